"""kill -9 of every process of a consortium, at seeded moments: the run ends, the ledgers are right.

The supervisor of the machine, systemd, is played by the test: it starts again what was started by
hand, and the follower by the command of its unit. Everything else is the product's.
"""

import json
import random
import re
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from client.ledger import export as ledger_file
from server.run.metrics import read_metrics
from tests.deployment.conftest import SITES, Consortium
from tests.helpers.patience import PATIENCE, waited

SEED = 20_261_125
SPARES = 40
RUN = """
name: {name}
phases: [{{name: supervised, rounds: 4, objectives: {{supervised: 1.0}}, expected_batch_size: 32}}]
spare_rounds: {spares}
quorum: 2
grace_seconds: 10
sites:
  north: {{name: north, modality: chest-xray, anatomy: chest, channels: 1}}
  south: {{name: south, modality: chest-xray, anatomy: chest, channels: 1}}
  west: {{name: west, modality: chest-xray, anatomy: chest, channels: 1}}
"""
SERVER = ("consortium", "superlink", "executor", "serverapp", "machine")
"""Processes of the coordinator; `machine`: all of them and the follower at once, a power cut."""
SITE = ("site", "guard", "supernode", "executor", "clientapp")
WORDS = {
    "superlink": "flower-superlink",
    "supernode": "client.node.supernode",
    "executor": "flower-superexec",
    "serverapp": "flwr-serverapp",
    "clientapp": "flwr-clientapp",
    "guard": "client.guard_rpc",
}

pytestmark = [pytest.mark.flower]


def victims(number: int) -> list[tuple[str, str]]:
    """Draw (who started it, process) for each kill: every kind in turn, in a seeded order."""
    rng = random.Random(SEED)
    kinds = [("server", what) for what in SERVER] + [("site", what) for what in SITE]
    chosen: list[tuple[str, str]] = []
    while len(chosen) < number:
        turn = [(rng.choice(SITES) if who == "site" else who, what) for who, what in kinds]
        chosen += rng.sample(turn, len(turn))
    return chosen[:number]


def found(own: Consortium, who: str, what: str) -> list[psutil.Process]:
    """Return the process, or all of a machine, if it is running now."""
    top = psutil.Process(own.processes[who].pid)
    if what in ("consortium", "site"):
        return [top]
    try:
        children = top.children(recursive=True)
        if what == "machine":
            follower = own.processes.get("follower")
            return [psutil.Process(follower.pid), top, *children] if follower else []
        for child in children:
            if any(WORDS[what] in word for word in child.cmdline()[:5]):
                return [child]
    except psutil.Error:
        pass
    return []


def follow(own: Consortium, out: Path, kills: int) -> list[str]:
    """Have the unit of the next run written, and return the arguments of its command."""
    (own.folder / "survival.yaml").write_text(RUN.format(name=out.name, spares=SPARES))
    own.command("server", "consortium", "install", "lungs", "survival.yaml", "--out", str(out),
                "--retries", str(kills))  # fmt: skip
    unit = own.folder / "lungs" / "service" / f"fedmedformer-run-{out.name}.service"
    (command,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    assert command.split()[0] == str(own.bin / "fedmedformer")
    return str(command).split()[1:]


def revive(own: Consortium) -> None:
    """Start again what the machine's own supervisor would start."""
    if own.processes["server"].poll() is not None:
        own.start("server", "consortium", "up", "lungs")
    for name in SITES:
        if own.processes[name].poll() is not None:
            own.site_up(name)


def check_ledger(folder: Path, runs: dict[str, Path]) -> Counter[str]:
    """Check that the chain is whole, that every run was reserved once, and that every answer at a
    server was paid for by its own attempt, within the reserved rounds and spares."""
    rows = ledger_file.read(folder / "state")
    kinds = Counter(row.kind for row in rows)
    by_run = {run_id: [r for r in rows if r.run_id == run_id] for run_id in runs}
    for run_id, out in runs.items():
        reservations = [r for r in by_run[run_id] if r.kind == "reservation"]
        assert len(reservations) == 1
        order = [
            (row.kind, body["round"], body["attempt"])
            for row in by_run[run_id]
            if row.kind in ("attempt", "answer") and (body := json.loads(row.body))
        ]
        started = [(number, attempt) for kind, number, attempt in order if kind == "attempt"]
        assert len(started) == len(set(started))
        for round_ in {number for number, _ in started}:
            attempts = sorted(a for number, a in started if number == round_)
            assert attempts == list(range(len(attempts)))
        assert sum(attempt > 0 for _, attempt in started) <= SPARES
        for kind, number, attempt in order:
            if kind == "answer":
                paid = order.index(("attempt", number, attempt))
                assert paid < order.index(("answer", number, attempt))
        answered = {(r["round"], r["attempt"]) for r in read_metrics(out)
                if r["event"] == "round" and r["site"] == folder.name}  # fmt: skip
        answers = {(number, attempt) for kind, number, attempt in order if kind == "answer"}
        assert answered <= answers, (folder.name, run_id, answered - answers)
    return kinds


@pytest.mark.parametrize(
    ("kills", "longest"),
    [
        pytest.param(len(SERVER + SITE), 13, marks=pytest.mark.timeout(7_200)),
        pytest.param(200, 18, marks=[pytest.mark.heavy, pytest.mark.timeout(14_400)]),
    ],
)
def test_kill_9_of_every_process(consortium: Consortium, kills: int, longest: float):
    """Runs follow each other until all kills are done; each ends, and each ledger has all of it.

    Between two of many kills there is time for a round now and then: a server that is killed more
    often than it can start does not get on.
    """
    own, folder = consortium, consortium.folder
    rng = random.Random(SEED + 1)
    outs: list[Path] = []
    unit: list[str] = []
    waiting = victims(kills)
    done: Counter[str] = Counter()
    due = time.monotonic() + rng.uniform(3, longest)
    since = time.monotonic()
    while waiting or "follower" in own.processes:
        revive(own)
        follower = own.processes.get("follower")
        if follower is not None and (code := follower.poll()) is not None:
            output = (folder / "follower.log").read_text()[-3_000:]
            assert code in (0, -signal.SIGKILL), output
            del own.processes["follower"]
            if code:  # Restart=on-abnormal
                own.start("follower", *unit)
        elif follower is None and waiting:
            outs.append(folder / "lungs" / "runs" / f"survival-{kills}-{len(outs)}")
            unit = follow(own, outs[-1], kills)
            own.start("follower", *unit)
        if waiting and time.monotonic() > due:
            if struck := found(own, *waiting[0]):
                for process in struck:
                    with suppress(psutil.NoSuchProcess):  # its parent has taken it along
                        process.kill()
                who, what = waiting.pop(0)
                done[f"{'server' if who == 'server' else 'site'} {what}"] += 1
                due = time.monotonic() + rng.uniform(3, longest)
                since = time.monotonic()
            assert time.monotonic() - since < PATIENCE, (
                waiting[0],
                (folder / "server.log").read_text(),
            )
        time.sleep(0.02)
    runs = {json.loads((out / "run.json").read_text())["run_id"]: out for out in outs}
    for out in outs:
        assert json.loads((out / "outcome.json").read_text())["outcome"] == "done"
        report = json.loads((out / "report.json").read_text())
        assert all(site["epsilon"] <= 8 for site in report["sites"])
    for name in SITES:
        print(name, dict(check_ledger(folder / name, runs)))
    print("killed:", dict(done))
    assert set(done) == {f"server {w}" for w in SERVER} | {f"site {w}" for w in SITE}
    waited(lambda: len(own.connected()) == len(SITES), "a node did not come back")
