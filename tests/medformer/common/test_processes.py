"""Child processes: their output is in a file, and nothing of them is left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from medformer.common.processes import end, start
from tests.helpers.patience import waited
from tests.helpers.processes import alive

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, '-c', 'import signal, time;'
                  'signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(99)'])
print('ready', flush=True)
time.sleep(99)
"""


def gone(pids: list[int]) -> None:
    waited(lambda: not any(alive(pid) for pid in pids))


def test_what_does_not_want_to_end_is_killed_with_its_children(tmp_path: Path):
    """After its patience; the log goes on where it was."""
    log = tmp_path / "logs" / "one.log"
    for turn in (1, 2):
        process = start([sys.executable, "-c", STUBBORN], log, os.environ)
        waited(lambda: log.exists() and log.read_text() == "ready\n" * turn)  # noqa: B023
        group = [p.pid for p in psutil.Process(process.pid).children()] + [process.pid]
        end([process], patience=0.5)
        assert process.returncode == -signal.SIGKILL
        gone(group)
    assert log.read_text() == "ready\n" * 2


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")
def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path):
    """kill -9 leaves no process that holds a port or a lock."""
    code = f"""
import os, sys, time
from pathlib import Path
from medformer.common.processes import start
child = start([sys.executable, '-c', 'import time; time.sleep(99)'], Path({str(tmp_path / "c")!r}),
              os.environ)
print(child.pid, flush=True)
time.sleep(99)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    gone([child])
