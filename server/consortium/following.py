"""Follow a run of real hospitals, and submit it again when something died."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from medformer.common.locks import is_locked, locked
from medformer.common.rounding import rounded_up
from medformer.errors import MedFormerError
from server.run.coordinate import read_metrics
from server.run.errors import FederationError, RunInterrupted, SuperLinkError

log = logging.getLogger(__name__)

LOCK = ".lock"
"""In a run folder; held by the process that works there."""
LOCK_WAIT = 60.0
"""Seconds for the process of an earlier submission of the same run to end."""
START_SECONDS = 60.0
"""From a submission until its process is at work."""
PAUSE = 5.0
"""Seconds before a run is submitted again."""
POLL = 0.5

Show = Callable[[str], None]


@contextmanager
def alone(folder: Path, wait: float | None = None) -> Iterator[None]:
    """Nobody else works in a run folder meanwhile: the process of an earlier submission may live.

    Args:
        wait: Seconds until it has to be over; `LOCK_WAIT` if left out.
    Raises:
        RunInterrupted: Another process is at work there, and does not end.
    """
    with ExitStack() as stack:
        max_wait = LOCK_WAIT if wait is None else wait
        try:
            stack.enter_context(locked(folder / LOCK, max_wait=max_wait, poll=POLL))
        except TimeoutError as error:
            raise RunInterrupted(
                f"{folder}: another process is at work on this run; stop it first"
            ) from error
        yield


def at_work(folder: Path) -> bool:
    """Whether a process works in a run folder."""
    return is_locked(folder / LOCK)


def follow(
    folder: Path,
    submit: Callable[[], str],
    retries: int,
    show: Show,
    start_seconds: float | None = None,
) -> None:
    """Submit a run, show its rounds, and submit it again while it is interrupted.

    Args:
        folder: The run folder.
        submit: Begins the run, or goes on with it.
        retries: How often in a row, without a round in between, it is submitted again.
        show: Told each line of progress.
        start_seconds: From a submission until its process is at work; `START_SECONDS` if left out.
    Raises:
        ConfigError: The run file cannot be used, or the folder is of another run.
        SuperLinkError: It is not up, and there are no retries.
        FederationError: The run failed, or was interrupted too often.
    """
    rows, left = _Rows(folder, show), retries
    while True:
        before = rows.shown
        try:
            submit()
        except MedFormerError as error:
            first = left == retries and not rows.shown
            if left == retries == 0 or (first and not isinstance(error, SuperLinkError)):
                raise  # nothing that waiting would mend, as a run file that cannot be used
            reason = str(error)
        else:
            reason = _watch(folder, rows, start_seconds or START_SECONDS)
        if not reason:
            return
        left = (retries if rows.shown > before else left) - 1
        if left < 0:
            raise FederationError(f"{folder}: {reason}. Submit it again to go on")
        log.warning("interrupted: %s; submitting again in %g s", reason, PAUSE)
        time.sleep(PAUSE)


class _Rows:
    """Shows each row of metrics.jsonl once."""

    def __init__(self, folder: Path, show: Show) -> None:
        self._folder = folder
        self._show = show
        self.shown = 0

    def update(self) -> None:
        rows = list(read_metrics(self._folder))
        for row in rows[self.shown :]:
            self._show(_line(row))
        self.shown = len(rows)


def _watch(folder: Path, rows: _Rows, start_seconds: float) -> str:
    """Until the run is done: "", or interrupted: why.

    Raises:
        FederationError: It failed for good.
    """
    began, started = time.monotonic(), False
    while True:
        working = at_work(folder)
        outcome = _outcome(folder)
        rows.update()
        started = started or working
        if outcome is not None and not working:
            if outcome["kind"] not in ("", "RunInterrupted"):
                raise FederationError(f"{folder}: {outcome['reason']}")
            return str(outcome["reason"])
        if started and not working:
            return "the server's process died"
        if not started and time.monotonic() - began > start_seconds:
            return (
                f"the server's process did not start within {start_seconds:g} s (start_seconds in "
                "consortium.yaml)"
            )
        time.sleep(POLL)


def _outcome(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / "outcome.json").read_bytes())
    except (OSError, ValueError):
        return None
    return found


def _line(row: dict[str, Any]) -> str:
    if row["event"] == "pretraining":
        return (
            f"public pre-training, step {row['step']}/{row['steps']}  loss {row['public_loss']:.3f}"
            f"  ({row['seconds']:.1f} s)"
        )
    where = f"round {row['round']}"
    if row["event"] == "round":
        epsilon, rounds = row["epsilon_progress"], row["rounds"]
        spent = f"  epsilon so far {rounded_up(epsilon)}" if epsilon is not None else ""
        took = f"({row['seconds']:.1f} s)"
        return f"{where}/{rounds} {row['phase']}  {row['site']}{spent}  {took}"
    return f"{where}  {row['site']}: {row['event']}: {row['text']}"
