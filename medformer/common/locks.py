"""One lock for everything that only one process at a time may do: a file that the kernel locks.

The kernel releases the lock when its holder ends, however it ends (flock(2)); the empty file stays.
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

POLL = 0.5
"""Seconds between two attempts, where the wait has an end."""


@contextmanager
def locked(
    path: Path,
    *,
    max_wait: float | None = None,
    poll: float = POLL,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold a lock while the block runs.

    Args:
        path: The file to lock; it is created if it is missing, its folder has to exist.
        max_wait: Seconds to wait for another holder; without an end if None.
        poll: Seconds between two attempts while it waits with an end.
        on_wait: Called once, before waiting, if another process holds the lock.
    Raises:
        TimeoutError: Another process still holds it after `max_wait` seconds.
        OSError: The file cannot be opened.
    """
    with open(path, "w") as file:
        if not _acquired(file):
            on_wait()
            _wait(file, path, max_wait, poll)
        yield


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock; does not create its file."""
    try:
        with open(path) as file:
            # A shared lock fails exactly while another process holds the exclusive one.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _acquired(file: IO[str]) -> bool:
    """Try to get the lock, without waiting."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(file: IO[str], path: Path, max_wait: float | None, poll: float) -> None:
    """Wait until another process has released the lock."""
    if max_wait is None:
        fcntl.flock(file, fcntl.LOCK_EX)
        return
    end = time.monotonic() + max_wait
    # Polled, because flock has no time limit, and a signal would end it in the main thread only.
    while time.monotonic() <= end:
        time.sleep(poll)
        if _acquired(file):
            return
    raise TimeoutError(f"{path}: another process still holds this lock after {max_wait:g} s")
