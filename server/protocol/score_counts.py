"""Measuring a model at a site under differential privacy: what is counted, and how it is sent.

For each output of a task, a class or a label, the site counts how often which score occurs, among
the images that show it and among those that do not. The bins are the same everywhere and at all
times. Every count carries noise.

For a task of outlines, the site counts the images by their Dice overlap.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError

from server.protocol.aggregation import noise_std
from server.protocol.limits import WORD
from server.protocol.messages import ProtocolError

EVALUATION = "evaluation"
"""Name of the measurement in a site's plan: one step on all records, after all rounds."""
STEP = 0.28
"""Width of a bin on the scale of `EDGES`."""
EDGES = tuple(round(math.sinh(STEP * k), 3) for k in range(-11, 12))
"""Edges between the bins, as log odds of an output's probability, from -10.9 to 10.9: equal steps
of the inverse hyperbolic sine, so narrow where most scores are, and wide where a confident model
puts them. The outer bins are open."""
BINS = len(EDGES) + 1
"""Number of bins."""
OVERLAPS = 11
"""Number of places of a Dice overlap: 0, .1, ... 1. An image counts at the two places around its
overlap, at the nearer one more, so that the mean over the places is that of the images."""
MAX_OUTPUTS, MAX_OUTLINED = 1_000, 100
"""Most classes and labels, and most tasks of outlines, that a site can count scores of."""
MAX_COUNT = 1e9
"""Upper limit of a count's size."""
MIN_STD = 1e-3
"""Least standard deviation of the noise: that of any epsilon that is allowed is larger."""


class Evaluation(BaseModel):
    """Measure the final model on records that no site trains on, under differential privacy."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epsilon: StrictFloat = Field(gt=0, le=50)
    """Epsilon of the measurement by itself, at the delta of the run. The ledger composes it with
    the training, which costs far less than adding it."""
    split: Literal["val", "test"] = "test"
    """Records on which the model is measured."""
    min_count: StrictInt = Field(default=20, ge=1, le=1_000_000)
    """Nothing is sent on a class or a label with fewer images, by the noisy counts, that show it,
    or that do not. A site's own `min_evaluated` may ask for more."""


Counts = Annotated[
    tuple[Annotated[float, Field(ge=-MAX_COUNT, le=MAX_COUNT)], ...],
    Field(min_length=BINS, max_length=BINS),
]

# A site writes this text: nothing is converted, and no field is ignored.
_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class OutputCounts(BaseModel):
    """Noisy counts of one output of a task: one class against all others, or one label."""

    model_config = _STRICT

    task: Annotated[str, Field(pattern=WORD)]
    output: Annotated[int, Field(ge=0, le=10_000)]
    """Number of the class or label, from 0; 1 for a binary task."""
    shown: Counts | None
    """Images that show it, by bin of their score; None where they are too few."""
    absent: Counts | None
    """Images that do not."""


class OverlapCounts(BaseModel):
    """Noisy counts of the images of a dense task, by the Dice overlap of their outlines."""

    model_config = _STRICT

    task: Annotated[str, Field(pattern=WORD)]
    images: (
        Annotated[
            tuple[Annotated[float, Field(ge=-MAX_COUNT, le=MAX_COUNT)], ...],
            Field(min_length=OVERLAPS, max_length=OVERLAPS),
        ]
        | None
    )
    """Images at each place of the overlap; None where they are too few."""


class ScoreCounts(BaseModel):
    """Everything that a site sends of its measurement."""

    model_config = _STRICT

    std: Annotated[float, Field(ge=MIN_STD, le=MAX_COUNT)]
    """Standard deviation of the noise on each count."""
    outputs: Annotated[tuple[OutputCounts, ...], Field(max_length=MAX_OUTPUTS, fail_fast=True)]
    overlaps: Annotated[
        tuple[OverlapCounts, ...], Field(max_length=MAX_OUTLINED, fail_fast=True)
    ] = ()
    """Counts of the dense tasks."""


def read_score_counts(text: str) -> ScoreCounts:
    """Return a site's counts, checked as any answer of a site that may be hostile.

    Args:
        text: JSON of a `ScoreCounts`.
    Raises:
        ProtocolError: A field is missing, unknown, of another type or beyond its bounds, or an
            output stands twice.
    """
    try:
        counts = ScoreCounts.model_validate_json(text)
    except ValidationError as error:
        raise ProtocolError("its noisy counts are not those of an evaluation") from error
    names = [(one.task, one.output) for one in counts.outputs]
    outlined = {one.task for one in counts.overlaps}
    if len(set(names)) < len(names) or len(outlined) < len(counts.overlaps):
        raise ProtocolError("its noisy counts name an output twice")
    return counts


def not_admitted(counts: ScoreCounts, phases: Iterable[Mapping[str, Any]]) -> str | None:
    """Compare counts with what their site has admitted; return what is wrong, or None.

    Args:
        counts: What the site sent.
        phases: Those of its receipt.
    """
    own = [phase for phase in phases if phase["name"] == EVALUATION]
    if len(own) != 1:
        return "it has admitted no measurement"
    if wrong := other_noise(counts.std, own[0]):
        return wrong
    # A unit changes the counts of each output, and of each task of outlines, by 1.
    admitted, sent = round(own[0]["max_grad_norm"] ** 2), len(counts.outputs) + len(counts.overlaps)
    if sent != admitted:
        return f"its counts are of {sent} outputs, and it has admitted {admitted}"
    return None


def other_noise(std: float, phase: Mapping[str, Any]) -> str | None:
    """Compare the noise that a site states with what it has admitted; say what is wrong, or None.

    Args:
        std: Standard deviation of the noise on each count, as the site states it.
        phase: The count in its receipt.
    """
    admitted = noise_std(phase["noise_multiplier"], phase["max_grad_norm"], 1)
    # Intervals and pooled figures rest on the noise, so nobody states another.
    if not math.isclose(std, admitted, rel_tol=1e-9):
        return f"its counts state noise of {std:g}, and it has admitted {admitted:g}"
    return None
