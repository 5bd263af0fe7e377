"""The results of an evaluation, as in its JSON.

All of them were computed from private records, without privacy.
"""

from typing import Literal

from client.local.bootstrap import Interval
from medformer.config import Frozen

Split = Literal["val", "test"]


class Bin(Frozen):
    """Answers whose stated probabilities lie in one bin."""

    stated: float
    """Mean stated probability."""
    observed: Interval
    """Share of them that came true."""
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
    """Images, or pixels of a dense task, with the class."""
    measures: dict[str, Interval]
    roc: Curve | None = None


class TaskResult(Frozen):
    """One task on the split."""

    name: str
    kind: str
    images: int
    """Number of labelled images."""
    measures: dict[str, Interval]
    classes: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows: truth, columns: answer. Empty for a multi-label task."""
    reliability: tuple[Bin, ...] = ()
    calibration_error: float | None = None
    """Expected calibration error over 10 bins of equal width (Guo et al. 2017)."""
    calibration_error_before: float | None = None
    """Calibration error before the head was calibrated on the validation split."""


class Evaluation(Frozen):
    """Everything that the page shows."""

    dp: Literal["none"] = "none"
    stays_at_the_site: Literal[True] = True
    site: str
    split: Split
    model: str
    made: str
    images: int
    unusable: int
    unit: Literal["patient", "image"]
    """Unit of the resamples."""
    units: int
    resamples: int
    abstained: Interval
    """Share of the images on which `site predict` would abstain; all of them count in the other
    numbers."""
    strangers: dict[str, float]
    """Kind of public phantom of another modality -> share on which the model abstains."""
    tasks: tuple[TaskResult, ...]
