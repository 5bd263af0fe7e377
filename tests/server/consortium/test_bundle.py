"""The app bundle holds our sources and scenarios, and nothing of the working folder."""

import zipfile
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

from tests.helpers.sources import copy_sources


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
