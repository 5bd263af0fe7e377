"""Locks: one holder at a time, a wait that ends, and nothing left behind by a dead process."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from medformer.common.locks import is_locked, locked

HOLD = """
import sys, time
from pathlib import Path
from medformer.common.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_only_one_holds_a_lock_at_a_time(tmp_path: Path):
    """The second one is refused while the first holds it, and gets it afterwards."""
    path = tmp_path / "lock"
    refused = pytest.raises(TimeoutError, match="another process still holds")
    with locked(path), refused, locked(path, max_wait=0.0, poll=0.001):
        pass
    with locked(path, max_wait=0.0):
        assert is_locked(path)
    assert not is_locked(path)


def test_a_question_creates_no_lock(tmp_path: Path):
    """A lock whose file does not exist is not held."""
    assert not is_locked(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("max_wait", [None, 60.0])
def test_a_waiting_process_gets_the_lock_when_it_is_released(
    tmp_path: Path, max_wait: float | None
):
    """It says once that it waits, and never where it need not wait."""
    path, waits = tmp_path / "lock", []
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(path, on_wait=lambda: waits.append("holder")):
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)

    def on_wait() -> None:
        waits.append("waiting")
        release.set()

    with locked(path, max_wait=max_wait, poll=0.001, on_wait=on_wait):
        holder.join(60)
    assert waits == ["waiting"]


def test_a_killed_process_holds_nothing(tmp_path: Path):
    """The kernel releases the lock of a process that could not do it itself."""
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        told = holder.stdout.readline()
        before = is_locked(path)
        holder.kill()
    assert told == b"held\n"
    assert before
    assert not is_locked(path)


def test_an_error_inside_releases_the_lock(tmp_path: Path):
    """It is passed on as it is."""
    with pytest.raises(KeyError), locked(tmp_path / "lock"):
        raise KeyError
    assert not is_locked(tmp_path / "lock")
