"""Limits of processor time and memory for the process that reads a hostile file."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SECONDS = 5
"""Processor seconds of one case. Wall time would fail on a busy machine."""
MEMORY = 2**30
"""Bytes of the whole process, its libraries included."""


class Hang(BaseException):
    """A case took too long. No Exception: readers catch those."""


def cap_memory() -> None:
    """From now on the process may grow to `MEMORY` and no further."""
    sizes = Path("/proc/self/statm").read_text().split()
    virtual, resident = (int(size) * resource.getpagesize() for size in sizes[:2])
    most = virtual + MEMORY - resident
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def peak_memory() -> int:
    """Return the largest number of bytes that this process had in memory since its program began.

    Not `ru_maxrss`, which begins with what the process that started it had.
    """
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) * 1024


@contextmanager
def in_time(seconds: float = SECONDS) -> Iterator[None]:
    """Raises `Hang` in the block when its time is over."""

    def over(number: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
