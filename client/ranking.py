"""The ROC curve of scores and the area under it, for evaluations, local pages and benchmarks.

N images, R weightings of them (how often each image was drawn in a resample).
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Ranking:
    """Ranks images by their scores, and compares the ranking with the truth.

    Args:
        positive: (N,) True where an image shows the finding.
        scores: (N,) the model's scores; a higher one means that the finding is more likely.
    """

    def __init__(self, positive: npt.NDArray[np.bool_], scores: Array) -> None:
        # Sorted once; every weighting reuses the order.
        self._order = np.argsort(scores, kind="stable")
        self._positive = positive[self._order].astype(np.float64)
        ordered = scores[self._order]
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def auc(self, weights: Array) -> Array:
        """Return the area under the ROC curve: how often a positive outranks a negative.

        Args:
            weights: (R, N) weight of each image in each weighting, at least 0.
        Returns:
            (R,) values in [0, 1]; equal scores count half. NaN where a weighting holds no positive
            or no negative.
        Source: Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747.

        >>> truth = np.array([True, False, True, False])
        >>> ranking = Ranking(truth, np.array([0.9, 0.2, 0.4, 0.4]))
        >>> float(ranking.auc(np.ones((1, 4)))[0])
        0.875
        """
        yes, no = self._tied(weights)
        # Negatives with a strictly lower score; those with an equal one count half.
        below = no.cumsum(1) - no
        pairs = yes.sum(1) * no.sum(1)
        # Without a pair there is nothing to rank: NaN, not 0 or 1/2.
        return (yes * (below + no / 2)).sum(1) / np.where(pairs > 0, pairs, np.nan)

    def curve(self, weights: Array, grid: Array) -> Array:
        """Return the true-positive rate at each false-positive rate of a grid.

        Args:
            weights: (R, N) weight of each image in each weighting, at least 0.
            grid: (G,) false-positive rates in [0, 1], ascending.
        Returns:
            (R, G) rates, interpolated linearly between the points of the curve. NaN where a
            weighting holds no positive or no negative.
        """
        yes, no = (part[:, ::-1].cumsum(1) for part in self._tied(weights))
        rates = np.full((len(weights), len(grid)), np.nan)
        for i, (hits, alarms) in enumerate(zip(yes, no, strict=True)):
            # Rates need at least one positive and one negative.
            if hits[-1] > 0 and alarms[-1] > 0:
                x, y = np.r_[0.0, alarms / alarms[-1]], np.r_[0.0, hits / hits[-1]]
                last = np.r_[x[1:] != x[:-1], True]  # the top of each vertical step
                rates[i] = np.interp(grid, x[last], y[last])
        return rates

    def _tied(self, weights: Array) -> tuple[Array, Array]:
        """Return the weight of positives and of negatives at each distinct score, ascending."""
        ordered = weights[:, self._order]
        yes = np.add.reduceat(ordered * self._positive, self._starts, axis=1)
        return yes, np.add.reduceat(ordered * (1 - self._positive), self._starts, axis=1)
