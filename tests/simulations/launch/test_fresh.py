"""The helper process: results and errors come back, and it never outlives or outshouts anybody."""

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest

from medformer.common.processes import KEEP_MEMORY
from simulations.baselines.pool import each_done
from simulations.launch.fresh import FreshProcess, in_fresh_process
from tests.helpers.patience import waited
from tests.helpers.processes import alive


def fail() -> None:
    raise ValueError("three is not four")


def faults() -> int:
    """Return how often pages are fetched when the system hands out 64 MiB ten times: 16,384 a time,
    or once."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        b"x" * 2**26 * (before > 0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_results_and_errors_come_back():
    """Another process computes, and its result or its error arrives here."""
    assert in_fresh_process(os.getpid) != os.getpid()
    with pytest.raises(ValueError, match="three is not four"):
        in_fresh_process(fail)


def in_pool(function: Callable[[], int]) -> int:
    ((_, found),) = each_done(function, [()], method="spawn", workers=1)
    return found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are as they are")
@pytest.mark.parametrize("call", [in_fresh_process, in_pool])
def test_what_trains_keeps_the_memory_that_it_frees(
    call: Callable[[Callable[[], int]], int], monkeypatch: pytest.MonkeyPatch
):
    """Else every step asks the system for the same pages, which takes a fifth to a third of it."""
    for name in KEEP_MEMORY:
        monkeypatch.delenv(name, raising=False)
    assert call(faults) < 2 * 16_384


def test_an_error_ends_the_helper_without_a_word(capfd: pytest.CaptureFixture[str]):
    """A user reads one sentence, and no traceback of a process that he never heard of."""
    with pytest.raises(ValueError, match="three"), FreshProcess() as helper:
        helper.call(fail)
    assert capfd.readouterr().err == ""


def test_it_ends_when_its_parent_was_killed():
    """kill -9 of the launcher leaves nothing behind."""
    code = """
import os, time
from simulations.launch.fresh import FreshProcess
if __name__ == "__main__":
    helper = FreshProcess()
    print(helper.call(os.getpid), flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.communicate()
    waited(lambda: not alive(pid))
