"""docs/hospital.md, line by line: what it tells people to type is typed, in its own order.

Blocks: `sh` is run, `sh up` is started and left running, `sh until` is tried until it works, `yaml`
is written to the file that the line before names. Changed are ports, fingerprints and the run's id.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import jsonschema
import pytest

from tests.deployment.conftest import free_port
from tests.helpers.patience import PATIENCE
from tests.helpers.sources import ROOT

TEXT = (ROOT / "docs" / "hospital.md").read_text()
BLOCK = re.compile(r"(?:^`([\w./-]+)`[^\n]*:\n\n)?^```(\w+(?: \w+)?)\n(.*?)^```$", re.M | re.S)

pytestmark = pytest.mark.flower


class Reader:
    """A person who does what the page says, with a shell in one folder."""

    def __init__(self, folder: Path, bin_: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.typed: list[str] = []
        self._known = {"9092": str(free_port()), "9195": str(free_port())}
        path = f"{bin_}{os.pathsep}/usr/bin{os.pathsep}/bin"
        self._environment = {
            "PATH": path, "HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name == "lungs/consortium.yaml":
            text += f"health_port: {free_port()}\n"  # the default may be somebody else's here
        (self.folder / name).write_text(self._filled_in(text))

    def type(self, line: str) -> str:
        """Run a line, and remember what it tells people to remember."""
        if "site check" in line:
            line += f" --health-port {free_port()}" + (" --allow-root" if os.getuid() == 0 else "")
        done = self._run(line)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return self._noted(line, done.stdout)

    def try_until(self, line: str) -> str:
        end = time.monotonic() + PATIENCE
        while True:
            done = self._run(line)
            if done.returncode == 0 and "no run waits" not in done.stdout:
                return self._noted(line, done.stdout)
            assert time.monotonic() < end, (line, done.stdout, done.stderr, self.logs())
            time.sleep(1)

    def start(self, line: str) -> None:
        self.typed.append(line)
        line = self._filled_in(line)
        if "site up" in line and "--health-port" not in line:
            line += f" --health-port {free_port()}"
        if "site up" in line and os.getuid() == 0:
            line += " --one-user"
        with open(self.folder / "started.log", "ab") as out:
            self.processes.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec {line}"],
                    cwd=self.folder,
                    stdout=out,
                    stderr=out,
                    env=self._environment,
                    start_new_session=True,
                )
            )

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def logs(self) -> str:
        """Return the end of every log."""
        files = [f for f in self.folder.rglob("*.log") if "records" not in f.parts]
        return "\n".join(f"== {f}\n{f.read_text(errors='replace')[-2000:]}" for f in files)

    def _run(self, line: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-c", self._filled_in(line)], cwd=self.folder, env=self._environment,
            capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip

    def _noted(self, line: str, output: str) -> str:
        self.typed.append(line)
        if made := re.match(r"fedmedformer site init (\w+) --name", line):
            (fingerprint,) = re.findall(r"fingerprint of this site's key: (.*)", output)
            self._known[f"FINGERPRINT-OF-{made[1].upper()}"] = fingerprint
        if guard := re.match(r"fingerprint of (\w+)'s guard: (.*)", output):
            self._known[f"GUARD-OF-{guard[1].upper()}"] = guard[2]
        if signer := re.search(r"fingerprint of the signing key.*: (.*)", output):
            self._known["FINGERPRINT-OF-SIGNER"] = signer[1]
        if "site approve" in line and (waits := re.search(r"^run (\S+)$", output, re.MULTILINE)):
            self._known["RUN"] = waits[1]
        return output

    def _filled_in(self, text: str) -> str:
        for name, value in self._known.items():
            text = re.sub(rf"\b{re.escape(name)}\b", value, text)
        return text


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
            do = {"sh": reader.type, "sh up": reader.start, "sh until": reader.try_until}
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
    announced = (reader.folder / "north" / "logs" / "announcer.log").read_text()
    assert announced.count("asked by lungs since") == 2
    assert announced.splitlines()[0].split("Z ")[1].startswith("WARNING announcer: run ")
    assert "asked by lungs since" in (reader.folder / "started.log").read_text()
    hospital = {" ".join(line.split()[1:3]) for line in reader.typed if " north" in line}
    assert {"site init", "site check", "site up", "site approve"} <= hospital
