"""Finds and stops every process of a simulation, also one that lost its parent."""

import contextlib
import time
from collections.abc import Iterable

import psutil

TOKEN = "FEDMEDFORMER_RUN_TOKEN"
"""Environment variable that marks the processes of one run. It configures nothing."""


def belonging_to(token: str) -> set[psutil.Process]:
    """Return every live process of the run, whoever its parent is by now.

    These are the processes that carry the token and all below them: Ray's agents write their titles
    over their environment, so that they no longer show the token themselves.

    Args:
        token: Value of `TOKEN` in the environment of the run's processes.
    """
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(TOKEN) == token:
                found |= {process, *process.children(recursive=True)}
    return {process for process in found if alive(process)}


def stop(token: str, *, patience: float = 5.0) -> list[int]:
    """Terminate, then kill, every process of the run.

    Args:
        token: Value of `TOKEN` in the environment of the run's processes.
        patience: Seconds to end by themselves.

    Returns:
        Process ids that survived even that, normally none.
    """
    ours = belonging_to(token)
    _send(ours, "terminate", patience)
    end = time.monotonic() + 10
    while (left := {p for p in ours if alive(p)} | belonging_to(token)) and time.monotonic() < end:
        ours |= left  # a process that lost its parent is found by the token alone
        _send(left, "kill", 1.0)
    return [p.pid for p in left]


def alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; a zombie, which its parent has not collected, does not."""
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
