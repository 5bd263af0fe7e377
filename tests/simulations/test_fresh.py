"""The helper process: results and errors come back, and it never outlives or outshouts anybody."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from simulations.fresh import FreshProcess, in_fresh_process


def fail() -> None:
    raise ValueError("three is not four")


def test_results_and_errors_come_back():
    """From another process."""
    assert in_fresh_process(os.getpid) != os.getpid()
    with pytest.raises(ValueError, match="three is not four"):
        in_fresh_process(fail)


def test_an_error_ends_the_helper_without_a_word(capfd: pytest.CaptureFixture[str]):
    """What the user reads is one sentence, not the traceback of a process he never heard of."""
    with pytest.raises(ValueError, match="three"), FreshProcess() as helper:
        helper.call(fail)
    assert capfd.readouterr().err == ""


def test_it_ends_when_its_parent_was_killed():
    """kill -9 of the launcher leaves nothing behind."""
    code = """
import os, time
from simulations.fresh import FreshProcess
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
    end = time.monotonic() + 10
    while psutil.pid_exists(pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
