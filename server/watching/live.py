"""live.json of a run folder: whom the coordinator waits for now, and what each site said last.

The coordinator replaces the file whenever something changes, and never reads it back but for the
totals of earlier submissions. No decision of a run depends on it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

LIVE = "live.json"
MAX_REASON = 300
"""Characters of a site's reason that are kept and shown."""
Stage = Literal[
    "nodes", "hello", "admission", "agreement", "round", "measurement", "report", "ended"
]
"""Step of a run; `nodes`: it waits for nodes to connect."""
Part = Literal["", "takes-part", "waits-for-approval", "closed-now", "refused", "away"]
"""A site's part in the run, by its last answer; empty before the first."""
Short = Annotated[str, Field(max_length=2 * MAX_REASON)]
Number = Annotated[int, Field(ge=0)]


@dataclass
class LiveSite:
    """One site of a run, as the coordinator knows it."""

    heard: Short = ""
    """Time of its last answer, in UTC; empty before the first."""
    sources: Literal["", "equal", "other"] = ""
    """Comparison of its sources with the coordinator's, as it said at the last hello."""
    part: Part = ""
    text: Short = ""
    """Its reason, or the loss of its answer, in one line."""
    round: Number = 0
    """Last round that it was asked to train."""
    repeated: bool = False
    """True if it was asked to train any round more than once."""
    sent: Number = 0
    """Bytes of all questions to it: tensors and texts, without what transport adds."""
    received: Number = 0
    """Bytes of all its answers, counted in the same way."""


@dataclass
class Live:
    """The state of a run that is at work, or was last."""

    began: Short = ""
    """Start of the newest submission, in UTC."""
    stage: Stage = "nodes"
    since: Short = ""
    """Time at which the stage, or its question, began."""
    round: Number = 0
    """Round of the question; 0 outside rounds."""
    asked: list[Short] = field(default_factory=list)
    """Sites that the last question went to, or all questions of a round."""
    waiting: list[Short] = field(default_factory=list)
    """Those of them whose answer is still waited for."""
    sites: dict[Short, LiveSite] = field(default_factory=dict)


LIVE_FILE = TypeAdapter(Live)
"""Reads and writes the file's JSON."""


def read_live(folder: Path) -> Live | None:
    """Return the state of a run.

    Args:
        folder: The run folder.
    Returns:
        None if there is none, or it is of another version.
    """
    try:
        return LIVE_FILE.validate_json((folder / LIVE).read_bytes())
    except (OSError, ValidationError):
        return None
