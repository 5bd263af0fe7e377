"""The app bundle holds our sources and scenarios, and nothing of the working folder."""

import tomllib
import zipfile
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

from server.consortium.bundle import write_app
from tests.helpers.sources import ROOT, copy_sources


def test_private_files_of_the_working_folder_stay_behind(tmp_path: Path):
    """site.yaml, policies, reports and data beside the packages are not in the bundle."""
    app = copy_sources(tmp_path / "app")
    for private in ("site.yaml", "policy.yaml", "report.json", "runs/x/site.yaml", "data/a.csv"):
        (app / private).parent.mkdir(parents=True, exist_ok=True)
        (app / private).write_text("private: yes\n")
    file = tmp_path / "app.fab"
    file.write_bytes(build_fab_from_disk(app))
    names = {n for n in zipfile.ZipFile(file).namelist() if not n.startswith(".info")}
    outside = {n for n in names if n.split("/")[0] not in
               ("client", "medformer", "server", "simulations")}  # fmt: skip
    assert outside <= {"pyproject.toml", "LICENSE", "README.md"}
    assert "server/report/template.py" in names
    assert "simulations/scenarios/quickstart.yaml" in names


def test_the_bundle_has_the_version_of_the_package(tmp_path: Path):
    """The version is written in pyproject.toml alone."""
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    theirs = tomllib.loads((write_app(tmp_path / "app") / "pyproject.toml").read_text())["project"]
    assert (theirs["name"], theirs["version"]) == (ours["name"], ours["version"])
