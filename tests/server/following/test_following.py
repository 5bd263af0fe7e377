"""A run is followed to its end, and submitted again when something has died."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medformer.errors import ConfigError
from server.following.follow import Waits, follow
from server.run.errors import FederationError, SuperLinkError
from server.run.lock import LOCK, at_work

QUICK = Waits(start=0.3, pause=0.01, poll=0.01)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, list[str]]]:
    """Follow a run with scripted submissions: (rounds that it trains, outcome or None)."""

    def run_(script: list[tuple[int, str | None] | Exception], retries: int = 0):  # type: ignore[no-untyped-def]
        submitted, shown, trained = 0, [], 0

        def submit() -> str:
            nonlocal submitted, trained
            (tmp_path / "outcome.json").unlink(missing_ok=True)
            step = script[submitted]
            submitted += 1
            if isinstance(step, Exception):
                raise step
            rounds, outcome = step
            with open(tmp_path / "metrics.jsonl", "a") as file:
                for _ in range(rounds):
                    trained += 1
                    row = {"event": "round", "round": trained, "rounds": 4, "phase": "s",
                           "site": "north", "epsilon_progress": 1.0, "seconds": 2.0}  # fmt: skip
                    file.write(json.dumps(row) + "\n")
            (tmp_path / LOCK).touch()
            if outcome is not None:
                kind = "" if outcome == "done" else outcome
                text = {"outcome": "done" if not kind else "failed", "kind": kind,
                        "reason": "" if not kind else "why"}  # fmt: skip
                (tmp_path / "outcome.json").write_text(json.dumps(text))
            return "1"

        try:
            follow(tmp_path, submit, retries, shown.append, QUICK)
        finally:
            run_.seen = submitted, shown  # type: ignore[attr-defined]
        return submitted, shown

    return run_


def test_a_run_that_ends_well_is_submitted_once_and_its_rounds_are_shown(run):
    """Each round is shown once."""
    submitted, shown = run([(2, "done")])
    assert submitted == 1
    assert shown == [f"round {n}/4 s  north  epsilon so far 1.000  (2.0 s)" for n in (1, 2)]


def test_public_pre_training_is_shown(run, tmp_path: Path):
    """Its steps belong to no round."""
    row = {"event": "pretraining", "step": 50, "steps": 300, "public_loss": 0.25, "seconds": 7.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    _, shown = run([(1, "done")])
    assert shown[0] == "public pre-training, step 50/300  loss 0.250  (7.0 s)"
    assert len(shown) == 2


def test_interrupted_runs_are_submitted_again_until_they_are_done(run):
    """A new submission follows a lost quorum, a process that never started, and a SuperLink that
    was away."""
    submitted, shown = run(
        [(1, "RunInterrupted"), (0, None), SuperLinkError("is the SuperLink up"), (2, "done")], 3
    )
    assert (submitted, len(shown)) == (4, 3)


def test_a_superlink_that_still_starts_is_waited_for_where_retries_are_asked_for(run):
    """After a power cut everything comes up at the same time."""
    assert run([SuperLinkError("is the SuperLink up"), (2, "done")], 1)[0] == 2
    with pytest.raises(SuperLinkError, match="is the SuperLink up"):
        run([SuperLinkError("is the SuperLink up"), (2, "done")], 0)


def test_retries_count_in_a_row_and_a_round_renews_them(run):
    """One retry allows six interruptions with a round in between, but not two without."""
    with pytest.raises(
        FederationError, match=r"Why: submit it again to go on from the last finished round\.$"
    ):
        run([(1, "RunInterrupted"), (0, "RunInterrupted"), (2, "done")], 1)
    assert run.seen[0] == 2
    assert run([(1, "RunInterrupted")] * 5 + [(1, "done")], 1)[0] == 6


def test_what_no_retry_can_mend_is_not_tried_again(run):
    """A run that must not begin and a run file that cannot be used are not submitted again. What
    would mend it is said."""
    with pytest.raises(FederationError, match="Why: see which site it names"):
        run([(0, "FederationError")], 9)
    assert run.seen[0] == 1
    with pytest.raises(ConfigError, match="holds another run"):
        run([ConfigError("holds another run")], 9)
    assert run.seen[0] == 1


def test_a_process_that_dies_without_an_outcome_is_noticed(tmp_path: Path):
    """The kernel releases the lock of a process that died."""
    assert not at_work(tmp_path)
    turns: list[bool] = []

    def submit() -> str:
        lock = open(tmp_path / LOCK, "w")  # noqa: SIM115
        fcntl.flock(lock, fcntl.LOCK_EX)
        turns.append(at_work(tmp_path))
        import threading

        threading.Timer(0.1, lock.close).start()
        return "1"

    with pytest.raises(FederationError, match="The server's process died: submit it again"):
        follow(tmp_path, submit, 0, lambda _: None, QUICK)
    assert turns == [True]
