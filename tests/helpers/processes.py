"""Asks the machine about processes that a test has started."""

import psutil


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie, which its parent has not collected, does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
