"""Follows a run of real hospitals, and submits it again when something has died."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medformer.common.rounding import rounded_up
from medformer.errors import MedFormerError
from server.run.errors import FederationError, SuperLinkError
from server.run.journal import EXCLUDED, OUTCOME
from server.run.lock import at_work
from server.run.metrics import Follower, Row
from server.watching.reasons import sentence

log = logging.getLogger(__name__)

Show = Callable[[str], None]
"""Shows a line of progress."""


@dataclass(frozen=True)
class Waits:
    """Times to wait for a run, all in seconds."""

    start: float = 60.0
    """Time from a submission until the run's process is at work."""
    pause: float = 5.0
    """Time before a run is submitted again."""
    poll: float = 0.5
    """Time between two looks at the run folder."""


def follow(
    folder: Path, submit: Callable[[], object], retries: int, show: Show, waits: Waits | None = None
) -> None:
    """Submit a run, show its rounds, and submit it again while it is interrupted.

    Args:
        folder: The run folder.
        submit: Starts the run, or continues it.
        retries: Times in a row, without a round in between, that it is submitted again.
        show: Called with each line of progress.
        waits: Times to wait.
    Raises:
        ConfigError: The run file cannot be used, or the folder holds another run.
        SuperLinkError: The SuperLink is not up, and there are no retries.
        FederationError: The run failed, or was interrupted too often.
    """
    waits = waits or Waits()
    rows, left = Follower(folder), retries
    while True:
        before = rows.count
        try:
            submit()
        except MedFormerError as error:
            first = left == retries and not rows.count
            # Waiting mends a SuperLink that still starts, but no run file that cannot be used.
            if left == retries == 0 or (first and not isinstance(error, SuperLinkError)):
                raise
            reason = str(error)
        else:
            reason = _watch(folder, rows, show, waits)
        if not reason:
            return
        # A round in between shows that trying again gets the run further.
        left = (retries if rows.count > before else left) - 1
        if left < 0:
            raise FederationError(f"{folder}: {sentence('RunInterrupted', reason, {}, '')}")
        log.warning("interrupted: %s; submitting again in %g s", reason, waits.pause)
        time.sleep(waits.pause)


def _watch(folder: Path, rows: Follower, show: Show, waits: Waits) -> str:
    """Wait until a run ends.

    Returns:
        Why it was interrupted; empty if it is done.
    Raises:
        FederationError: It failed for good.
    """
    began, started = time.monotonic(), False
    while True:
        working = at_work(folder)  # before the outcome is read: it is written under the lock
        outcome = _json(folder / OUTCOME)
        for row in rows.new_rows():
            show(_line(row))
        started = started or working
        if outcome is not None and not working:
            if outcome["kind"] not in ("", "RunInterrupted"):
                refusals = _json(folder / EXCLUDED) or {}
                why = sentence(outcome["kind"], outcome["reason"], refusals, "")
                raise FederationError(f"{folder}: {why}")
            return str(outcome["reason"])
        # The kernel releases the lock of a process that was killed: no outcome will come.
        if started and not working:
            return "the server's process died"
        if not started and time.monotonic() - began > waits.start:
            return (
                f"the server's process did not start within {waits.start:g} s (start_seconds in "
                "consortium.yaml)"
            )
        time.sleep(waits.poll)


def _json(file: Path) -> dict[str, Any] | None:
    """Read a file of the run, such as how it has ended; None while it is not there."""
    try:
        found: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found


def _line(row: Row) -> str:
    """Write a row of metrics.jsonl as a line of progress."""
    if row["event"] == "pretraining":
        return (
            f"public pre-training, step {row['step']}/{row['steps']}  loss {row['public_loss']:.3f}"
            f"  ({row['seconds']:.1f} s)"
        )
    where = f"round {row['round']}"
    if row["event"] == "validation":
        auc = "unknown" if row["auc"] is None else f"{row['auc']:.3f}"
        return f"{where} {row['phase']}  {row['site']}: validation AUC {auc}"
    if row["event"] == "round":
        epsilon, rounds = row["epsilon_progress"], row["rounds"]
        spent = f"  epsilon so far {rounded_up(epsilon)}" if epsilon is not None else ""
        took = f"({row['seconds']:.1f} s)"
        return f"{where}/{rounds} {row['phase']}  {row['site']}{spent}  {took}"
    return f"{where}  {row['site']}: {row['event']}: {row['text']}"
