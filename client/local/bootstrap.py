"""Confidence intervals by resampling units: patients where they are known, else images.

R resamples, N images. A resample is a weight for every image, so that every measure here is a
function of weights (R, N) -> (R,), NaN where it is not defined. Intervals are percentile intervals
(Efron and Tibshirani 1993, chapter 13). Whole units are drawn, because images of one patient are
not independent (Field and Welsh 2007).
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from medformer.config import Frozen

Array = npt.NDArray[np.float64]
Measure = Callable[[Array], Array]
CHUNK = 4_000_000
"""Weights that are in memory at once."""
MIN_DEFINED = 0.9
"""Minimum share of resamples in which a measure must be defined for an interval to be given."""
LEVEL = 0.95


class Interval(Frozen):
    """A measure and its 95 % confidence interval; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Bootstrap:
    """Resamples of a split, the same for every measure, so that intervals can be compared.

    Args:
        units: (N,) unit of each image.
        count: R.
        seed: Seed of the draws.
        chunk: Maximum weights that are in memory at once.
    """

    def __init__(self, units: Sequence[str], count: int, seed: int, chunk: int = CHUNK) -> None:
        self.names, self._unit = np.unique(np.array(units, dtype=str), return_inverse=True)
        self._count, self._seed, self._chunk = count, seed, chunk

    def weights(self) -> Iterator[Array]:
        """Yield (R', N) counts of how often each image was drawn, chunk by chunk."""
        rng = np.random.default_rng(self._seed)
        units, images = len(self.names), len(self._unit)
        most = max(1, self._chunk // max(images, 1))
        for first in range(0, self._count, most):
            rows = min(most, self._count - first)
            # As many units as there are, with replacement: their counts are multinomial.
            drawn = rng.multinomial(units, np.full(units, 1 / units), size=rows)
            yield drawn[:, self._unit].astype(np.float64)

    def values(self, measure: Measure) -> Array:
        """Return the measure of each resample, (R,).

        Args:
            measure: A function of weights (R, N) -> (R,).
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.concatenate([measure(weights) for weights in self.weights()])

    def interval(self, measure: Measure) -> Interval:
        """Return the measure of all images, and its interval.

        Args:
            measure: A function of weights (R, N) -> (R,).
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            value = float(measure(np.ones((1, len(self._unit))))[0])
        # Not defined on the images themselves, as an AUC without positives.
        if not np.isfinite(value):
            return Interval(value=None)
        values = self.values(measure)
        values = values[np.isfinite(values)]
        # An interval over the few resamples where a measure exists would be too narrow.
        if len(values) < MIN_DEFINED * self._count:
            return Interval(value=value)
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(value=value, low=float(low), high=float(high))

    def share(self, hits: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> Interval:
        """Return the share of `hits` among the images of `among`, and its interval.

        A share of 0 or 1 is the same in all resamples. Its interval is the exact binomial one for
        as many trials as there are units.

        Args:
            hits: (N,) bool.
            among: (N,) bool.

        Source: Clopper and Pearson 1934.
        """
        found = self.interval(share(hits, among))
        # The percentile interval has a width only where resamples differ.
        if found.value not in (0.0, 1.0):
            return found
        units = len(np.unique(self._unit[among]))
        # Units, not images: images of one patient are not independent trials.
        exact = binomtest(round(found.value * units), units).proportion_ci(LEVEL, "exact")
        return Interval(value=found.value, low=float(exact.low), high=float(exact.high))


def share(hits: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> Measure:
    """Return the measure: weighted share of `hits` among `among`.

    Args:
        hits: (N,) bool.
        among: (N,) bool.
    """
    both, whole = (hits & among).astype(np.float64), among.astype(np.float64)
    return lambda weights: (weights @ both) / (weights @ whole)


def mean(values: Array) -> Measure:
    """Return the measure: weighted mean of the values.

    Args:
        values: (N,).
    """
    return lambda weights: (weights @ values) / weights.sum(1)


def mean_of(measures: Sequence[Measure]) -> Measure:
    """Return the mean of several measures; it is not defined where one of them is not.

    Args:
        measures: Functions of weights (R, N) -> (R,).
    """
    return lambda weights: np.mean([measure(weights) for measure in measures], axis=0)
