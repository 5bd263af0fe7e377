"""What an evaluation finds, as its JSON holds it.

Everything in it was computed from private records, without privacy.
"""

from typing import Literal

from client.local.bootstrap import Interval
from medformer.config import Frozen

Split = Literal["val", "test"]


class Bin(Frozen):
    """Answers of about one stated probability."""

    stated: float
    """Their mean."""
    observed: Interval
    """How often they were right."""
    count: int


class Curve(Frozen):
    """True-positive rate at the false-positive rates 0, 0.01 ... 1, with a pointwise 95 % band."""

    tpr: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class ClassRow(Frozen):
    """One class, or label, against all others."""

    name: str
    count: int
    """Images, or pixels of a dense task, that show it."""
    measures: dict[str, Interval]
    roc: Curve | None = None


class TaskResult(Frozen):
    """One task on the split."""

    name: str
    kind: str
    images: int
    """Labelled ones."""
    measures: dict[str, Interval]
    classes: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...] = ()
    """Row: truth, column: answer. Of a multi-label task none."""
    reliability: tuple[Bin, ...] = ()
    calibration_error: float | None = None
    """Expected calibration error over 10 bins of equal width (Guo et al. 2017)."""
    calibration_error_before: float | None = None
    """Of what the head said before it was calibrated on the validation split."""


class Evaluation(Frozen):
    """Everything that the page says."""

    dp: Literal["none"] = "none"
    stays_at_the_site: Literal[True] = True
    site: str
    split: Split
    model: str
    made: str
    images: int
    unusable: int
    unit: Literal["patient", "image"]
    """What was drawn for the intervals."""
    units: int
    resamples: int
    abstained: Interval
    """Share of the images that `site predict` would not answer; all count in the other numbers."""
    strangers: dict[str, float]
    tasks: tuple[TaskResult, ...]
