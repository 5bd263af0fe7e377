"""Limits of tests: they compute for so long, and wait as long as it takes on a busy machine."""

import signal
import time
from collections.abc import Callable, Iterator

import pytest

PATIENCE = 1_800.0
"""Seconds of wall time after which a wait ends. Only a process that hangs reaches it."""

MAX_PROCESSOR_SECONDS = 300.0
"""Processor time of one test in its own process; tests marked `heavy` have no limit."""


def waited(
    condition: Callable[[], object], what: str = "what was waited for did not happen"
) -> None:
    """Wait until the condition holds.

    Args:
        condition: Asked again and again; true ends the wait.
        what: The message of the failure.

    Raises:
        AssertionError: It does not hold after `PATIENCE` seconds.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def processor_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that computes for too long, and never one that a busy machine keeps waiting."""
    if request.node.get_closest_marker("heavy"):
        yield
        return

    def over(number: int, frame: object) -> None:
        pytest.fail(f"more than {MAX_PROCESSOR_SECONDS:g} s of processor time")

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, MAX_PROCESSOR_SECONDS)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)
