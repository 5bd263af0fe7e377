"""The lock of a run folder: one process at a time works on a run."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from medformer.common.locks import POLL, is_locked, locked
from server.run.errors import RunInterrupted

LOCK = ".lock"
"""Name of the lock file in a run folder."""
LOCK_WAIT = 60.0
"""Seconds for the process of an earlier submission of the same run to end."""


@contextmanager
def run_lock(folder: Path, wait: float = LOCK_WAIT, poll: float = POLL) -> Iterator[None]:
    """Hold a run folder: the process of an earlier submission may still be working there.

    Args:
        folder: The run folder.
        wait: Seconds to wait for another process to end.
        poll: Seconds between two attempts.
    Raises:
        RunInterrupted: Another process works there, and does not end in time.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / LOCK, max_wait=wait, poll=poll))
        except TimeoutError as error:
            raise RunInterrupted(
                f"{folder}: another process is at work on this run; stop it first"
            ) from error
        yield


def at_work(folder: Path) -> bool:
    """Return True if a process works in a run folder.

    Args:
        folder: The run folder.
    """
    return is_locked(folder / LOCK)
