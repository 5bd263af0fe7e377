"""docs/hospital.md, line by line: what it tells people to type is typed, in its own order.

Blocks: `sh` is run, `sh up` is started and left running, `sh until` is tried until it works, `yaml`
is written to the file that the line before names. Changed are ports, fingerprints and the run's id.
"""

import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import jsonschema
import psutil
import pytest

from simulations.commands.poc import rehearse
from simulations.rehearsal import texts
from simulations.rehearsal.consortium import SITES, Rehearsal
from simulations.rehearsal.terminal import Terminal
from tests.deployment.conftest import free_port
from tests.docs.test_extend import FILES
from tests.helpers.patience import PATIENCE
from tests.helpers.sources import ROOT

TEXT = (ROOT / "docs" / "hospital.md").read_text()
BLOCK = re.compile(r"(?:^`([\w./-]+)`[^\n]*:\n\n)?^```(\w+(?: \w+)?)\n(.*?)^```$", re.M | re.S)

pytestmark = pytest.mark.flower


class Reader(Terminal):
    """A person who does what the page says, with a shell in one folder, as `fedmedformer poc`
    does."""

    def __init__(self, folder: Path, bin_: Path) -> None:
        path = f"{bin_}{os.pathsep}/usr/bin{os.pathsep}/bin"
        variables = {
            "PATH": path, "HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        super().__init__(folder, variables, print, PATIENCE)
        self.known = {"9092": str(free_port()), "9195": str(free_port())}

    def write(self, name: str, text: str) -> None:
        if name == "lungs/consortium.yaml":
            text += f"health_port: {free_port()}\n"  # the default may be somebody else's here
        super().write(name, text)

    def type(self, line: str) -> str:
        if "site check" in line:
            line += f" --health-port {free_port()}" + (" --allow-root" if os.getuid() == 0 else "")
        return super().type(line)

    def try_until(self, line: str) -> str:
        return self.until(line, lambda output: "no run waits" not in output)

    def start_up(self, line: str) -> None:
        if "site up" in line and "--health-port" not in line:
            line += f" --health-port {free_port()}"
        if "site up" in line and os.getuid() == 0:
            line += " --one-user"
        self.start(f"started-{len(self.typed)}", line)


@pytest.fixture
def reader(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("t")
    folder.chmod(0o755)
    one = Reader(folder, installed)
    try:
        yield one
    finally:
        one.stop()


def test_every_line_works_and_the_first_run_ends(reader: Reader):
    """Both hospitals train two rounds under secure noise, one of them after an approval; ledgers
    agree."""
    for file, kind, text in BLOCK.findall(TEXT):
        if kind == "yaml":
            reader.write(file, text)
        for line in text.splitlines() if kind.startswith("sh") else ():
            do = {"sh": reader.type, "sh up": reader.start_up, "sh until": reader.try_until}
            do[kind](line)
    run = reader.folder / "runs" / "lungs-1"
    report = json.loads((run / "report.json").read_text())
    jsonschema.validate(report, json.loads((run / "report.schema.json").read_text()))
    assert (report["noise_source"], report["unit"]) == ("secure", "patient")
    assert [s["name"] for s in report["sites"] if s["participated"]] == ["north", "south"]
    assert all(0 < s["epsilon"] <= 3 for s in report["sites"])
    assert (run / "report.html").exists()
    assert (run / "model.safetensors").exists()
    for name, asked in (("north", 1), ("south", 0)):
        with closing(sqlite3.connect(reader.folder / name / "state" / "ledger.sqlite")) as db:
            kinds = [kind for (kind,) in db.execute("SELECT kind FROM entries")]
        assert kinds.count("reservation") == 2
        assert kinds.count("answer") == 3
        assert kinds.count("approval") == 2 * asked
    masked = json.loads((reader.folder / "runs" / "lungs-2" / "report.json").read_text())
    assert masked["masked"] is True
    assert [s["name"] for s in masked["sites"] if s["participated"]] == ["north", "south"]
    # It looks every few seconds, and a run that is answered before needs no announcement.
    announced = (reader.folder / "north" / "logs" / "announcer.log").read_text().splitlines()
    assert len(announced) <= 2
    assert all("WARNING announcer: run " in line for line in announced)
    hospital = {" ".join(line.split()[1:3]) for line in reader.typed if " north" in line}
    assert {"site init", "site check", "site up", "site approve"} <= hospital


@pytest.mark.heavy
def test_a_whole_rehearsal_ends_in_a_signed_report(installed: Path, tmp_path: Path):
    """`python -m pytest -m heavy tests/deployment/test_tutorial.py`, four minutes."""
    tmp_path.chmod(0o755)
    command = [str(installed / "fedmedformer"), "poc", "lungs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1_800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the coordinator has signed it" in done.stdout
    assert "nothing is wrong" in done.stdout
    assert not [p for p in psutil.process_iter() if str(tmp_path) in " ".join(_words(p))]


@pytest.mark.heavy
def test_a_deployed_run_executes_what_every_hospital_allows(installed: Path, tmp_path: Path):
    """An objective and a rule from outside, installed beside the package: three guards admit and
    train them, and the signed report names both. Four minutes."""
    site_packages = next((installed.parent / "lib").glob("python3*/site-packages"))
    for name, text in FILES.items():
        if name.startswith("kit/"):
            (site_packages / "kit").mkdir(exist_ok=True)
            (site_packages / name).write_text(text)
    (site_packages / "kit" / "__init__.py").touch()
    tmp_path.chmod(0o755)
    (tmp_path / "lungs").mkdir(mode=0o755)
    terminal = Terminal(tmp_path / "lungs", Reader(tmp_path, installed).variables, print, PATIENCE)
    own = "{{supervised: 1.0, 'kit.losses:within_image': 0.5}}"
    run = texts.RUN.replace("{{supervised: 1.0}}", own) + "server_rule: kit.rules:median\n"
    policy = texts.POLICY + 'extensions: ["kit.losses:within_image"]\n'
    rehearse(Rehearsal(terminal, "lungs", policy=policy, run=run))
    report = json.loads((tmp_path / "lungs" / "runs" / "first" / "report.json").read_text())
    assert sorted(report["extensions"]) == ["kit.losses:within_image", "kit.rules:median"]
    assert [site["name"] for site in report["sites"] if site["participated"]] == list(SITES)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
