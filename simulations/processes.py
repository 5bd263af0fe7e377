"""Everything a simulation started can be found and stopped, also after it lost its parent."""

import contextlib
import time
from collections.abc import Iterable

import psutil

TOKEN = "FEDMEDFORMER_RUN_TOKEN"
"""Environment variable that marks the processes of one run. It configures nothing."""

SCANS = 3
"""Looks in a row that find nobody: one that is just being started has no environment yet."""


def belonging_to(token: str) -> list[psutil.Process]:
    """Every live process of the run, whoever its parent is by now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(TOKEN) == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def stop(token: str, *, patience: float = 5.0) -> list[int]:
    """Terminate, then kill, every process of the run.

    Returns:
        Process ids that survived even that, normally none.
    """
    _send(belonging_to(token), "terminate", patience)
    end, quiet = time.monotonic() + 10, 0
    while quiet < SCANS and time.monotonic() < end:
        left = belonging_to(token)
        quiet = 0 if left else quiet + 1
        _send(left, "kill", 1.0)
        time.sleep(0.3)
    return [p.pid for p in belonging_to(token)]


def _send(processes: Iterable[psutil.Process], how: str, patience: float) -> None:
    targets = list(processes)
    for process in targets:
        with contextlib.suppress(psutil.Error):
            getattr(process, how)()
    psutil.wait_procs(targets, timeout=patience)
