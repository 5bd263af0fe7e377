"""One process at a time works in a run folder."""

from pathlib import Path

import pytest

from server.run.errors import RunInterrupted
from server.run.lock import at_work, run_lock


def test_two_processes_do_not_work_on_one_run(tmp_path: Path):
    """The second one waits for the first for a while and is then refused."""
    assert not at_work(tmp_path)
    with run_lock(tmp_path):
        assert at_work(tmp_path)
        second = run_lock(tmp_path, wait=0.05, poll=0.01)
        with pytest.raises(RunInterrupted, match="another process is at work"), second:
            pass
    assert not at_work(tmp_path)
    with run_lock(tmp_path):
        pass
