"""A mean over seeds with Student's interval, or without one where there is one seed."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

LEVEL = 0.95
"""Probability with which an interval holds the mean over all seeds."""


class Spread(NamedTuple):
    """A mean over seeds."""

    mean: float
    low: float | None
    """Lower end of the interval; None for a single seed, which says nothing about others."""
    high: float | None
    """Upper end of the interval; None for a single seed."""
    count: int
    """Number of seeds."""


def spread(values: Sequence[float]) -> Spread:
    """Return the mean of values and Student's interval around it.

    The interval holds the mean over all seeds with probability `LEVEL` where the values are draws
    from a normal distribution. Data and test images count as fixed: it says nothing about other
    patients.

    Args:
        values: One value a seed, at least one.
    Source: Student 1908, doi:10.1093/biomet/6.1.1.

    >>> spread([0.8])
    Spread(mean=0.8, low=None, high=None, count=1)
    >>> two = spread([0.7, 0.9])
    >>> round(two.mean, 3), round(two.low, 3), round(two.high, 3)
    (0.8, -0.471, 2.071)
    """
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Spread(mean, None, None, 1)
    # Imported here: a single seed needs no quantile, and scipy takes long to load.
    from scipy.special import stdtrit

    quantile = float(stdtrit(count - 1, (1 + LEVEL) / 2))
    half = quantile * statistics.stdev(values) / count**0.5
    return Spread(mean, mean - half, mean + half, count)
