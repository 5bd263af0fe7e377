"""Runs through Flower itself, interrupted in the middle of a round in every way that can happen.
They are few, because each starts a SuperLink and Ray."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from server.protocol import SIMULATED_SITES
from server.run.metrics import read_metrics
from simulations.launch.orphans import TOKEN
from tests.helpers.patience import PATIENCE, waited

pytestmark = pytest.mark.flower
ROOT = Path(__file__).parents[2]

STOPS = ("ray::", "SIGINT", "flwr-simulation", "SIGTERM", "flower-superlink")
ROUNDS = 8
SCENARIO = {
    "name": "kill",
    "pretraining": False,
    "spare_rounds": len(STOPS),
    "phases": [{"name": "supervised", "rounds": ROUNDS, "local_steps": 24,
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
        self._begin = self.log.seek(0, os.SEEK_END)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "simulations.cli", "simulate", str(scenario), "--out",
             os.path.relpath(out, ROOT), *more],
            cwd=ROOT, stdout=self.log, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def wait_for_round(self, number: int) -> None:
        """Wait until the server has finished round `number` and a site's ledger has an attempt of a
        later one. From then on that round is lost if a process dies."""

        def claimed() -> int:
            rows = (row for site in ("north", "south") for row in ledger(self.out, site, "attempt"))
            return max((row["round"] for row in rows), default=0)

        while (done := self.rounds()) < number or claimed() <= done:
            assert self.process.poll() is None, self.text()
            time.sleep(0.02)

    def rounds(self) -> int:
        """Return the number of rounds that the server has finished, all attempts together."""
        return max((r["round"] for r in read_metrics(self.out) if r["event"] == "round"), default=0)

    def find(self, wanted: str) -> psutil.Process:
        """Return the process of this simulation whose command line contains `wanted`."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if wanted in " ".join(child.cmdline()):
                    return child
            except psutil.Error:
                continue
        raise AssertionError(f"no {wanted} is running")

    def end(self) -> int:
        """Return the exit code."""
        return self.process.wait(timeout=PATIENCE)

    def text(self) -> str:
        """Return everything that it printed."""
        self.log.seek(self._begin)
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
    """Return the processes of this run, whatever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            token = process.environ().get(TOKEN, "")
            if token.startswith(str(out)) and process.status() != psutil.STATUS_ZOMBIE:
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


def stopped(one: Simulation, how: str) -> None:
    """End a run in one way: a signal to the command, or kill -9 of one of its processes."""
    if how.startswith("SIG"):
        one.process.send_signal(signal.Signals[how])
    elif how == "ray::":
        for child in psutil.Process(one.process.pid).children(recursive=True):
            try:
                if child.cmdline() and child.cmdline()[0].startswith("ray::"):
                    os.kill(child.pid, signal.SIGKILL)
            except psutil.Error:
                continue
    else:
        os.kill(one.find(how).pid, signal.SIGKILL)


@pytest.mark.parametrize("ways", [STOPS[:3], pytest.param(STOPS, marks=pytest.mark.heavy)])
def test_a_run_outlives_every_way_to_die_in_mid_round(simulate, ways: tuple[str, ...]):
    """One run is stopped in several ways, one after the other, and resumed after each. Each time
    the command exits with 1 within 90 s and a sentence, no process is left, and the admitted
    schedule is still on the ledger. At the end every lost round was trained again from the spares,
    and no other."""
    one, reserved = simulate(), None
    for how in ways:
        one.wait_for_round(one.rounds() + 1)
        stopped(one, how)
        assert one.end() == 1, (how, one.text())
        assert ("interrupted" if how.startswith("SIG") else "--resume") in one.text(), how
        assert "Traceback" not in one.text() or not how.startswith("SIG"), one.text()
        assert left_running(one.out) == [], how
        assert list((one.out / "checkpoints").glob("*.safetensors")), how
        now = [ledger(one.out, site, "reservation") for site in ("north", "south")]
        assert all(len(rows) == 1 and rows[0]["epsilon"] > 7 for rows in now), how
        assert reserved in (None, now), how
        reserved = now
        one = simulate("--resume")
    assert one.process.wait(timeout=PATIENCE) == 0, one.text()
    assert left_running(one.out) == []
    assert [ledger(one.out, site, "reservation") for site in ("north", "south")] == reserved
    for rows in (ledger(one.out, site, "attempt") for site in ("north", "south")):
        assert {row["round"] for row in rows} == set(range(1, ROUNDS + 1))
        assert 1 <= sum(row["attempt"] > 0 for row in rows) <= len(ways)
    report = json.loads((one.out / "report.json").read_text())
    assert report["rounds"] == ROUNDS
    assert (one.out / "report.html").exists()


@pytest.mark.smoke
def test_bare_flwr_run_works_and_too_few_nodes_are_named(tmp_path: Path):
    """Without the option, `flwr run .` has 2 nodes for 4 sites, and the error names the option."""
    from server.consortium.bundle import write_app
    from simulations.launch.superlink import ask, superlink, wait_healthy

    with superlink(tmp_path / "flower") as flower:
        wait_healthy(flower)
        flower.environment["HOME"] = str(tmp_path)
        app = write_app(flower.work / "app")
        answer = ask(flower, ["run", str(app), "own", "--format", "json",
                                "--run-config", f'out="{tmp_path / "out"}"'], 120)  # fmt: skip
        assert json.loads(answer)["success"], answer
        waited((tmp_path / "out" / "outcome.json").exists, "the run did not end")
    outcome = json.loads((tmp_path / "out" / "outcome.json").read_text())
    assert outcome["outcome"] == "failed"
    assert "num-supernodes=4" in outcome["reason"]


def test_flwr_run_trains_a_shipped_scenario_on_medmnist(tmp_path: Path):
    """Scenario, overrides and data folder come from the run config; the report is written."""
    from server.consortium.bundle import write_app
    from simulations.launch.superlink import ask, superlink, wait_healthy
    from tests.helpers.medmnist_files import write_set

    write_set(tmp_path, "pneumoniamnist")
    out = tmp_path / "out"
    fewer = "split.sites=2 pretraining=false recipe.rounds=2 recipe.expected_batch_size=8"
    config = f'scenario-file="pneumonia" data-root="{tmp_path}" out="{out}" settings="{fewer}"'
    with superlink(tmp_path / "flower") as flower:
        wait_healthy(flower)
        flower.environment["HOME"] = str(tmp_path)
        app = write_app(flower.work / "app")
        answer = ask(flower, ["run", str(app), "own", "--format", "json",
                              "--run-config", config], 120)  # fmt: skip
        assert json.loads(answer)["success"], answer
        waited((out / "outcome.json").exists, "the run did not end")
    assert json.loads((out / "outcome.json").read_text())["outcome"] == "done"
    report = json.loads((out / "report.json").read_text())
    assert (report["name"], report["rounds"]) == ("pneumonia", 2)
    assert {row["task"] for row in report["results"]} == {"pneumoniamnist"}
