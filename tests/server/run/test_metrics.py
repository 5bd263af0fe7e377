"""Rows of metrics.jsonl: some processes write them, and others follow the file as it grows."""

import json
from pathlib import Path

from server.run.metrics import (
    METRICS,
    EventRow,
    Follower,
    RoundRow,
    append_row,
    end_last_line,
    read_metrics,
)

ROUND: RoundRow = {
    "event": "round", "round": 1, "rounds": 3, "phase": "s", "site": "north", "attempt": 0,
    "exact_loss": None, "epsilon_progress": 0.5, "seconds": 1.0,
}  # fmt: skip
ABSENT: EventRow = {"event": "absent", "round": 2, "site": "south", "text": "killed"}


def test_rows_are_read_as_they_were_written(tmp_path: Path):
    """They keep their order, and a folder without metrics has none."""
    assert list(read_metrics(tmp_path)) == []
    append_row(tmp_path, ROUND)
    append_row(tmp_path, ABSENT)
    assert list(read_metrics(tmp_path)) == [ROUND, ABSENT]


def test_a_row_after_a_kill_starts_a_line_of_its_own(tmp_path: Path):
    """The line that was cut off is skipped, and so is a line that is not a row."""
    (tmp_path / METRICS).write_text('[]\n{"event": "unknown"}\n{"event": "ro')
    end_last_line(tmp_path)
    append_row(tmp_path, ROUND)
    assert list(read_metrics(tmp_path)) == [ROUND]
    end_last_line(tmp_path)
    assert (tmp_path / METRICS).read_bytes().count(b"\n") == 4


def test_a_follower_reads_each_row_once_when_its_line_is_complete(tmp_path: Path):
    """It may look while the writer is in the middle of a line."""
    follower = Follower(tmp_path)
    assert list(follower.new_rows()) == []
    text = json.dumps(ROUND)
    with open(tmp_path / METRICS, "a") as file:
        file.write(text[:20])
        file.flush()
        assert list(follower.new_rows()) == []
        file.write(text[20:] + "\n")
    assert list(follower.new_rows()) == [ROUND]
    assert list(follower.new_rows()) == []
    assert follower.count == 1


def test_a_follower_that_starts_at_the_end_skips_what_was_there(tmp_path: Path):
    """After a resume only new rounds are shown."""
    append_row(tmp_path, ROUND)
    follower = Follower(tmp_path, from_end=True)
    append_row(tmp_path, ABSENT)
    assert list(follower.new_rows()) == [ABSENT]
