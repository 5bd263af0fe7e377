"""Child processes that end with whoever started them."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE = 15.0
"""Seconds that a process has to end after SIGTERM."""
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def start(
    command: Sequence[str], log: Path, environment: Mapping[str, str], **more: Any
) -> "subprocess.Popen[bytes]":
    """Start a process in a group of its own, whose output is appended to a file.

    On Linux it gets SIGTERM when the thread that started it ends, also by kill -9: nothing is left
    behind that holds a port or a lock.

    Args:
        more: Further arguments of `subprocess.Popen`.
    """
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(log, "ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            env=environment, preexec_fn=_end_with_parent, **more,
        )  # fmt: skip


def end(processes: Iterable["subprocess.Popen[bytes]"], patience: float = PATIENCE) -> None:
    """SIGTERM to each group, and SIGKILL to what is left of it after so many seconds."""
    mine = list(processes)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in mine:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        until = time.monotonic() + patience
        while time.monotonic() < until and any(process.poll() is None for process in mine):
            time.sleep(0.05)


def _end_with_parent() -> None:
    """Runs between fork and exec: no lock may be taken here, so that libc is loaded before."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
