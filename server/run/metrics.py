"""metrics.jsonl: one row for each thing that happens in a run, written and read here alone.

Every process of a run may append rows, and others follow the file while it grows. A kill may cut
off the last line, so readers skip lines that are not JSON.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypedDict, get_args

METRICS = "metrics.jsonl"
EventKind = Literal["refusal", "refused-update", "absent", "joined", "checkpoint-damaged"]
EVENTS: tuple[EventKind, ...] = get_args(EventKind)
"""Kinds of the rows that the report mentions."""


class PretrainingRow(TypedDict):
    """Progress of the public pre-training."""

    event: Literal["pretraining"]
    step: int
    steps: int
    public_loss: float
    seconds: float
    """Time since the pre-training began."""


class RoundRow(TypedDict):
    """A site's part of a trained round."""

    event: Literal["round"]
    round: int
    rounds: int
    """Planned rounds of the run."""
    phase: str
    site: str
    attempt: int
    """0, or the number of times that the round was lost before."""
    exact_loss: float | None
    """Mean training loss without noise; simulations only."""
    epsilon_progress: float | None
    """Epsilon that the run has cost the site so far; None without privacy."""
    seconds: float
    """Duration of the round, all sites together."""


class ValidationRow(TypedDict):
    """A site's result at the end of a phase; simulations only. The report does not use it."""

    event: Literal["validation"]
    round: int
    """The phase's last round."""
    phase: str
    site: str
    auc: float | None
    """Mean AUC of the site's tasks on its validation split; None if no task has one."""


class EventRow(TypedDict):
    """Something that the report has to mention."""

    event: EventKind
    round: int
    """0 before the first round."""
    site: str
    """Empty if the server itself is meant."""
    text: str


Row = PretrainingRow | RoundRow | ValidationRow | EventRow
_KINDS = {"pretraining", "round", "validation", *EVENTS}


def append_row(folder: Path, row: Row) -> None:
    """Append a row to the metrics of a run folder.

    Args:
        folder: The run folder.
        row: The row.
    """
    with open(folder / METRICS, "a") as file:
        file.write(json.dumps(row) + "\n")


def end_last_line(folder: Path) -> None:
    """End a line that a kill cut off, so that the next row starts a new line.

    Args:
        folder: The run folder.
    """
    path = folder / METRICS
    if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")


def read_metrics(folder: Path) -> Iterator[Row]:
    """Yield the rows of a run folder; lines that a kill cut off are skipped.

    Args:
        folder: The run folder.
    """
    path = folder / METRICS
    yield from _rows(path.read_text().splitlines() if path.exists() else [])


class Follower:
    """Reads each row of a growing metrics.jsonl once.

    Args:
        folder: The run folder. The file need not exist yet.
        from_end: Skip the rows that are there now.
    """

    def __init__(self, folder: Path, *, from_end: bool = False) -> None:
        self._path = folder / METRICS
        self._offset = self._path.stat().st_size if from_end and self._path.exists() else 0
        self.count = 0
        """Number of rows read so far."""

    def new_rows(self) -> Iterator[Row]:
        """Yield the rows that were completed since the last call."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            # The writer may be in the middle of the last line: it is read again at the next call.
            while (line := file.readline()).endswith(b"\n"):
                self._offset = file.tell()
                for row in _rows([line.decode(errors="replace")]):
                    self.count += 1
                    yield row


def _rows(lines: list[str]) -> Iterator[Row]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        # A cut-off line may still be valid JSON, for example a number.
        if isinstance(row, dict) and row.get("event") in _KINDS:
            yield row  # type: ignore[misc]  # its fields are those that this version writes
