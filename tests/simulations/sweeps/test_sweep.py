"""A sweep as a whole: what runs, what is kept, and how it ends. A stub stands for `simulate`."""

import re
from pathlib import Path

import pytest
import yaml

from medformer.common.locks import locked
from medformer.errors import ConfigError
from simulations.cli import main
from simulations.sweeps import running, sweep
from simulations.sweeps.grid import Cell, cells
from simulations.sweeps.running import Job, run_all
from simulations.sweeps.sweep import Plan, SweepError
from tests.simulations.test_cli import SMALL

ROOT = Path(__file__).parents[3]
STUB = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.helpers.compared import run_folder
words = sys.argv[1:]
settings = dict(w.split("=") for w in words if "=" in w)
print("round 1/1", flush=True)
if settings["seed"] == "13":
    sys.exit("fedmedformer: an unlucky number")
print("done in 0 s")
print("a table of results")
epsilon = float(settings.get("privacy.epsilon", 3))
run_folder(Path(words[words.index("--out") + 1]), dict(north=0.5 + epsilon / 100),
           seed=int(settings["seed"]), epsilon=epsilon)
"""
"""Writes a run folder in place of `simulate`; the seed 13 fails."""


@pytest.fixture
def small(tmp_path: Path) -> str:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(SMALL))
    return str(file)


@pytest.fixture(autouse=True)
def _stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "COMMAND", STUB)

    def known(cell: Cell, folder: Path, *_: object) -> str:
        return "done" if (folder / "report.json").exists() else "start"

    monkeypatch.setattr(sweep, "state_of", known)


def test_a_sweep_runs_what_is_missing_and_compares_all(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The second call finds the runs of the first."""
    words = ["sweep", small, "--out", str(tmp_path / "out"), "--workers", "2"]
    assert main([*words, "--epsilons", "1", "8", "--seeds", "0"]) == 0
    first = capsys.readouterr()
    assert "2 cells: 0 done, 2 to run" in first.err
    assert re.search(r"cell 1 of 2: epsilon-\d-seed-0: test AUC 0\.5\d+, \d+ s; about", first.err)
    assert "round 1/1" not in first.err  # lines of several runs would mix
    assert main([*words, "--epsilons", "1", "8", "--seeds", "0", "1"]) == 0
    second = capsys.readouterr()
    assert "4 cells: 2 done, 2 to run" in second.err
    assert re.search(r"^2 epsilon 8 +8\.000 +2 +0\.580", second.out, re.MULTILINE)
    assert "page: " in second.out
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "Test auc of every model against epsilon" in page
    assert "<h1>Sweep of small</h1>" in page


def test_a_failed_cell_is_reported_at_the_end_and_the_others_are_kept(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """With its reason, on the page as well; the exit code says so."""
    out = tmp_path / "out"
    assert main(["sweep", small, "--seeds", "13", "0", "--out", str(out), "--workers", "1"]) == 1
    text = capsys.readouterr().err
    assert "  round 1/1" in text
    assert "a table of results" not in text
    assert "1 of 2 cells failed: seed-13: an unlucky number." in text.splitlines()[-1]
    assert (out / "logs" / "seed-13.log").read_text().endswith("an unlucky number\n")
    page = (out / "compare.html").read_text()
    assert "1 wanted run failed" in page
    assert "seed-13 (an unlucky number)" in page
    plan = Plan(tuple(cells(small, [], seeds=[13])), out)
    with pytest.raises(SweepError, match="an unlucky number") as caught:
        sweep.run(plan, quiet=True)
    assert (caught.value.sweep.runs, caught.value.sweep.page) == ({}, None)


def test_runs_of_something_else_are_replaced_on_request_only(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The command of each state says so to `simulate`."""
    plan = Plan(tuple(cells(small, [], seeds=[0, 1])), tmp_path, baselines=(), actors=2)
    monkeypatch.setattr(sweep, "state_of", lambda *_: "other")
    with pytest.raises(ConfigError, match=r"seed-0: holds something else.*\(2 of 2 cells\)"):
        sweep.run(plan, quiet=True)
    cell = plan.cells[0]
    words = {state: plan.job(cell, state).words for state in ("start", "resume", "again", "other")}
    start = ("simulate", small, "--set", "seed=0", "--out", str(tmp_path / "seed-0"), "--engine",
             "local", "--actors", "2", "--no-baselines")  # fmt: skip
    assert words["start"] == start
    assert words["resume"] == (*start, "--resume")
    assert words["again"] == words["other"] == (*start, "--overwrite")


def test_two_sweeps_do_not_share_a_folder(small: str, tmp_path: Path):
    """They would start the same runs."""
    plan = Plan(tuple(cells(small, [], seeds=[0])), tmp_path)
    with (
        locked(tmp_path / sweep.LOCK),
        pytest.raises(ConfigError, match="another sweep is at work there"),
    ):
        sweep.run(plan, quiet=True)
    with pytest.raises(ConfigError, match="--workers must be at least 1"):
        sweep.run(plan, workers=0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--vary", "seed"], "write --vary KEY VALUE VALUE"),
        (["--vary", "a=1", "2"], "write --vary KEY VALUE VALUE"),
        (["--vary", "a", "1", "--vary", "a", "2"], "list all values at once"),
        ([], "nothing to sweep"),
    ],
)
def test_a_wrong_command_is_answered_at_once(
    small: str, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
):
    """In one sentence."""
    assert main(["sweep", small, *words]) == 1
    assert sentence in capsys.readouterr().err


def job(folder: Path, name: str, code: str) -> Job:
    return Job(name, (code,), folder / f"{name}.log")


@pytest.fixture
def _any_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "COMMAND", "import sys; exec(sys.argv[1])  # {root}")


@pytest.mark.usefixtures("_any_code")
def test_no_more_run_at_once_than_wanted(tmp_path: Path):
    """And the next starts when one has ended, in the given order."""
    begun, ended = ([tmp_path / f"{word}-{i}" for i in range(2)] for word in ("begun", "ended"))
    # The first two wait for each other; the third looks whether one of them has ended.
    pair = """
import time
from pathlib import Path
Path({own!r}).touch()
while not Path({other!r}).exists():
    time.sleep(.01)
time.sleep(.3)
Path({end!r}).touch()
"""
    codes = [
        pair.format(own=str(begun[i]), other=str(begun[1 - i]), end=str(ended[i])) for i in range(2)
    ]
    codes.append(
        f"from pathlib import Path; print(any(Path(p).exists() for p in {[*map(str, ended)]}))"
    )
    jobs = [job(tmp_path, str(i), code) for i, code in enumerate(codes)]
    assert [one.reason for one in run_all(jobs, 2)] == [""] * 3
    assert jobs[2].log.read_text().strip() == "True"


@pytest.mark.usefixtures("_any_code")
def test_a_command_without_words_still_has_a_reason(tmp_path: Path):
    """Its exit code; of several lines the sentence of the command, else the last one."""
    codes = {"silent": "sys.exit(3)", "loud": "sys.exit('one\\ntwo')"}
    reasons = {one.name: one.reason for one in
               run_all([job(tmp_path, *item) for item in codes.items()], 2)}  # fmt: skip
    assert reasons == {"silent": "it ended with 3", "loud": "two"}


@pytest.mark.usefixtures("_any_code")
def test_an_interrupt_ends_every_run(tmp_path: Path):
    """Ctrl-C reaches the sweep alone; a run that outlived it would hold its folder."""
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        if len(pids) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_all([job(tmp_path, name, code) for name in "ab"], 2, interrupt))
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
