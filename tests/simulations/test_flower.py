"""Through Flower itself: a run, and kill -9 of each process in the middle of a round.

Few, because each starts a SuperLink and Ray.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from server.coordinate import read_metrics
from server.protocol import SIMULATED_SITES

pytestmark = [pytest.mark.flower, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]

SCENARIO = {
    "name": "kill",
    "pretraining": False,
    "spare_rounds": 2,
    "phases": [{"name": "supervised", "rounds": 6, "local_steps": 24,
                "objectives": {"supervised": 1}, "expected_batch_size": 96}],
    "privacy": {"epsilon": 8},
    "sites": [{"name": n, "data": {"source": "phantoms", "kind": "chest", "records": 128}}
              for n in ("north", "south")],
}  # fmt: skip


class Simulation:
    """`fedmedformer simulate` as a process."""

    def __init__(self, scenario: Path, out: Path, *more: str) -> None:
        self.out = out
        self.log = open(out.parent / "log.txt", "a+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "simulations.cli", "simulate", str(scenario), "--out",
             os.path.relpath(out, ROOT), *more],
            cwd=ROOT, stdout=self.log, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def wait_for_round(self, number: int) -> None:
        """Until the server has ended round `number` and a site has written on its ledger that it
        trains a later one: from here on, that round is lost when a process dies."""

        def ended() -> int:
            return max((r["round"] for r in read_metrics(self.out) if r["event"] == "round"),
                       default=0)  # fmt: skip

        def claimed() -> int:
            rows = (row for site in ("north", "south") for row in ledger(self.out, site, "attempt"))
            return max((row["round"] for row in rows), default=0)

        while (done := ended()) < number or claimed() <= done:
            assert self.process.poll() is None, self.text()
            time.sleep(0.02)

    def find(self, wanted: str) -> psutil.Process:
        """The process of this simulation whose command line holds `wanted`."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if wanted in " ".join(child.cmdline()):
                    return child
            except psutil.Error:
                continue
        raise AssertionError(f"no {wanted} is running")

    def end(self) -> int:
        """Exit code, within the 90 seconds that are promised."""
        return self.process.wait(timeout=90)

    def text(self) -> str:
        """Everything it printed."""
        self.log.seek(0)
        return self.log.read()


@pytest.fixture
def simulate(tmp_path: Path) -> Iterator[Callable[..., Simulation]]:
    scenario = tmp_path / "kill.yaml"
    scenario.write_text(yaml.safe_dump(SCENARIO))
    started: list[Simulation] = []

    def start(*more: str) -> Simulation:
        started.append(Simulation(scenario, tmp_path / "out", *more))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        one.log.close()


def left_running(out: Path) -> list[str]:
    """Processes of this very run, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            home = process.environ().get("FLWR_HOME", "")
            if home.startswith(str(out)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.name())
        except psutil.Error:
            continue
    return found


def ledger(out: Path, site: str, kind: str) -> list[dict]:
    folder = {Path(p["state"]).name: p["state"]
              for p in json.loads((out / SIMULATED_SITES).read_text())["sites"]}[site]  # fmt: skip
    with sqlite3.connect(Path(folder) / "ledger.sqlite") as db:
        rows = db.execute("SELECT body FROM entries WHERE kind = ? ORDER BY seq", [kind])
        return [json.loads(body) for (body,) in rows]


@pytest.mark.parametrize("victim", ["ray::", "flwr-simulation", "flower-superlink"])
def test_kill_9_in_mid_round_ends_cleanly_and_resume_finishes(simulate, victim: str):
    """Exit 1 within 90 s with the hint, nothing left running, the admitted schedule still on the
    ledger; then --resume re-trains the lost round from the spares and ends."""
    first = simulate()
    first.wait_for_round(2)
    if victim == "ray::":
        for child in psutil.Process(first.process.pid).children(recursive=True):
            try:
                if child.cmdline() and child.cmdline()[0].startswith("ray::"):
                    os.kill(child.pid, signal.SIGKILL)
            except psutil.Error:
                continue
    else:
        os.kill(first.find(victim).pid, signal.SIGKILL)
    assert first.end() == 1, first.text()
    assert "--resume" in first.text()
    assert left_running(first.out) == []
    reserved = [ledger(first.out, site, "reservation") for site in ("north", "south")]
    assert all(len(rows) == 1 and rows[0]["epsilon"] > 7 for rows in reserved)

    second = simulate("--resume")
    assert second.process.wait(timeout=400) == 0, second.text()
    assert left_running(first.out) == []
    assert [ledger(first.out, site, "reservation") for site in ("north", "south")] == reserved
    attempts = [ledger(first.out, site, "attempt") for site in ("north", "south")]
    assert any(row["attempt"] == 1 for rows in attempts for row in rows)
    for rows in attempts:
        assert {row["round"] for row in rows} == set(range(1, 7))
    report = json.loads((first.out / "report.json").read_text())
    assert report["rounds"] == 6
    assert (first.out / "report.html").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_mid_round_ends_cleanly(simulate, number: signal.Signals):
    """One sentence, exit 1, nothing left running, and the run can be resumed."""
    one = simulate()
    one.wait_for_round(1)
    one.process.send_signal(number)
    assert one.end() == 1, one.text()
    assert "interrupted" in one.text()
    assert "Traceback" not in one.text()
    assert left_running(one.out) == []
    assert list((one.out / "checkpoints").glob("*.safetensors"))


def test_bare_flwr_run_works_and_too_few_nodes_are_named(tmp_path: Path):
    """`flwr run .` without the option has 2 nodes for 4 sites: a sentence names the option."""
    from server.bundle import write_app
    from simulations.launcher import _flwr, superlink, wait_healthy

    with superlink(tmp_path / "flower") as flower:
        wait_healthy(flower)
        flower.environment["HOME"] = str(tmp_path)
        app = write_app(flower.work / "app")
        done = threading.Event()
        answer = _flwr(flower, ["run", str(app), "own", "--format", "json",
                                "--run-config", f'out="{tmp_path / "out"}"'], 120)  # fmt: skip
        assert json.loads(answer)["success"], answer
        end = time.monotonic() + 120
        while not (tmp_path / "out" / "outcome.json").exists() and time.monotonic() < end:
            done.wait(0.5)
    outcome = json.loads((tmp_path / "out" / "outcome.json").read_text())
    assert outcome["outcome"] == "failed"
    assert "num-supernodes=4" in outcome["reason"]
