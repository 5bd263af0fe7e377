"""Everything a simulation started can be found and stopped, also after it lost its parent."""

import contextlib
import time
from collections.abc import Iterable

import psutil

TOKEN = "FEDMEDFORMER_RUN_TOKEN"
"""Environment variable that marks the processes of one run. It configures nothing."""


def belonging_to(token: str) -> set[psutil.Process]:
    """Every live process of the run, whoever its parent is by now: those that carry the token, and
    all below them. Ray's agents write their titles over their environment and can't be asked."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(TOKEN) == token:
                found |= {process, *process.children(recursive=True)}
    return {process for process in found if alive(process)}


def stop(token: str, *, patience: float = 5.0) -> list[int]:
    """Terminate, then kill, every process of the run.

    Returns:
        Process ids that survived even that, normally none.
    """
    ours = belonging_to(token)
    _send(ours, "terminate", patience)
    end = time.monotonic() + 10
    while (left := {p for p in ours if alive(p)} | belonging_to(token)) and time.monotonic() < end:
        ours |= left  # who lost its parent is found here only
        _send(left, "kill", 1.0)
    return [p.pid for p in left]


def alive(process: psutil.Process) -> bool:
    """Running, and not a zombie that nobody has asked after."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _send(processes: Iterable[psutil.Process], how: str, patience: float) -> None:
    targets = list(processes)
    for process in targets:
        with contextlib.suppress(psutil.Error):
            getattr(process, how)()
    psutil.wait_procs(targets, timeout=patience)
