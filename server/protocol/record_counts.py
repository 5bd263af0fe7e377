"""Statistics of a site's records under differential privacy: what is counted, and how it is sent.

A consortium plans with them before anything is trained: how many records, classes and sizes there
are, and how bright the images are. The ranges are the same everywhere and at all times. Every
count carries noise.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, ValidationError

from server.protocol.limits import WORD
from server.protocol.messages import ProtocolError
from server.protocol.score_counts import MAX_COUNT, MIN_STD, other_noise

STATISTICS = "statistics"
"""Name of the query in a site's plan: one step on all records, in a run that trains nothing."""
SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
"""Order of the three counts of a row."""
GREYS = 16
"""Number of equal ranges of grey values, from black to white."""
SIDES = (32, 64, 128, 256)
"""Upper ends of the ranges of the longest side, pixels; the last range is open."""
MAX_TASKS, MAX_ROWS = 100, 10_000
"""Most tasks, and most classes and labels of all of them, that a site can count records of."""
IMAGES = (1, 2, 4, 8)
"""Upper ends of the ranges of images a patient; the last range is open."""


class Statistics(BaseModel):
    """Count records before anything is trained, under differential privacy."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epsilon: StrictFloat = Field(gt=0, le=50)
    """Epsilon of all counts of a site together, at the delta that the site has chosen."""


Number = Annotated[float, Field(ge=-MAX_COUNT, le=MAX_COUNT)]
Row = Annotated[tuple[Number, ...], Field(min_length=len(SPLITS), max_length=len(SPLITS))]


def _ranges(count: int) -> Any:
    return Annotated[tuple[Number, ...], Field(min_length=count, max_length=count)]


# A site writes this text: nothing is converted, and no field is ignored.
_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class TaskCounts(BaseModel):
    """Noisy numbers of records by class or label of one task, and by split."""

    model_config = _STRICT

    task: Annotated[str, Field(pattern=WORD)]
    several: bool
    """True if a record may have several of these labels; False if it has one class."""
    rows: Annotated[tuple[Row, ...], Field(min_length=1, max_length=MAX_ROWS, fail_fast=True)]
    """For each class or label the counts of `SPLITS`."""


class RecordCounts(BaseModel):
    """Everything that a site sends of its records: patients or images, whatever its unit is."""

    model_config = _STRICT

    std: Annotated[float, Field(ge=MIN_STD, le=MAX_COUNT)]
    """Standard deviation of the noise on each count."""
    records: Row
    """Records that can be used, by split."""
    tasks: Annotated[tuple[TaskCounts, ...], Field(max_length=MAX_TASKS, fail_fast=True)]
    """Classes and labels of the tasks that are not dense."""
    sides: _ranges(len(SIDES) + 1)  # type: ignore[valid-type]
    """Records by the longest side of their images as the model gets them."""
    greys: _ranges(GREYS)  # type: ignore[valid-type]
    """Records by grey value: each spreads over the ranges as its pixels do."""
    images: _ranges(len(IMAGES) + 1) | None = None  # type: ignore[valid-type]
    """Patients by their number of images; None where the unit is an image."""

    @property
    def sensitivity(self) -> float:
        """L2 sensitivity of all counts together, under add/remove of one record."""
        tables = sum(len(task.rows) if task.several else 1 for task in self.tasks)
        return math.sqrt(3 + (self.images is not None) + tables)


def read_record_counts(text: str) -> RecordCounts:
    """Return a site's counts, checked as any answer of a site that may be hostile.

    Args:
        text: JSON of a `RecordCounts`.
    Raises:
        ProtocolError: A field is missing, unknown, of another type or beyond its bounds, or a task
            stands twice.
    """
    try:
        counts = RecordCounts.model_validate_json(text)
    except ValidationError as error:
        raise ProtocolError("its noisy counts are not those of a query for statistics") from error
    if len({task.task for task in counts.tasks}) < len(counts.tasks):
        raise ProtocolError("its noisy counts name a task twice")
    return counts


def not_paid_for(counts: RecordCounts, phases: Iterable[Mapping[str, Any]]) -> str | None:
    """Compare counts with what their site has admitted; return what is wrong, or None.

    Args:
        counts: What the site sent.
        phases: Those of its receipt.
    """
    own = [phase for phase in phases if phase["name"] == STATISTICS]
    if len(own) != 1:
        return "it has admitted no query for statistics"
    if not math.isclose(counts.sensitivity, own[0]["max_grad_norm"], rel_tol=1e-9):
        return "its counts are not of the tasks for which it has added noise"
    return other_noise(counts.std, own[0])
