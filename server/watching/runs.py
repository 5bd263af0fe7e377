"""runs.json of a consortium's folder: where the folder of each submitted run is."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from medformer.common.files import replace_file
from medformer.common.locks import locked
from server.run.journal import now

RUNS = "runs.json"
MOST = 100
"""Runs that are remembered; the oldest are forgotten first, their folders stay."""


@dataclass(frozen=True)
class Submitted:
    """One run, as it was submitted last."""

    out: str
    """The run folder, absolute."""
    file: str
    """run.yaml, absolute."""
    flower_run_id: str
    at: str
    """Time of the submission, in UTC."""


def note_run(folder: Path, out: Path, file: Path, flower_run_id: str) -> None:
    """Remember a submission as the newest; an earlier one of the same run is replaced.

    Args:
        folder: Folder of the consortium.
        out: The run folder.
        file: run.yaml.
        flower_run_id: Flower's id of the submission.
    Raises:
        OSError: The list cannot be written.
    """
    new = Submitted(str(out.absolute()), str(file.absolute()), flower_run_id, now())
    # Two submissions at the same time must not forget each other.
    with locked(folder / f".{RUNS}.lock"):
        kept = [run for run in submitted(folder) if run.out != new.out][-MOST + 1 :]
        rows = [asdict(run) for run in (*kept, new)]
        replace_file(folder / RUNS, json.dumps(rows, indent=1).encode())


def submitted(folder: Path) -> list[Submitted]:
    """Return the runs of a consortium, the newest submission last.

    Args:
        folder: Folder of the consortium.
    Returns:
        Nothing, if none was submitted or the list is damaged.
    """
    try:
        return [Submitted(**row) for row in json.loads((folder / RUNS).read_bytes())]
    except (OSError, ValueError, TypeError):
        return []
