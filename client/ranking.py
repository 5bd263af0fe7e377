"""How well scores rank images: the ROC curve and the area under it, for whoever asks.

N images, R weightings of them (how often each was drawn in a resample).
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Ranking:
    """ROC curve of scores against a yes or no, ties counted half.

    Args:
        positive: (N,) the truth.
        scores: (N,) the higher, the likelier.
    """

    def __init__(self, positive: npt.NDArray[np.bool_], scores: Array) -> None:
        self._order = np.argsort(scores, kind="stable")
        self._positive = positive[self._order].astype(np.float64)
        ordered = scores[self._order]
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def auc(self, weights: Array) -> Array:
        """Area under the curve: how often a positive is scored above a negative."""
        yes, no = self._tied(weights)
        below = no.cumsum(1) - no
        pairs = yes.sum(1) * no.sum(1)
        return (yes * (below + no / 2)).sum(1) / np.where(pairs > 0, pairs, np.nan)

    def curve(self, weights: Array, grid: Array) -> Array:
        """True-positive rate at each false-positive rate of `grid`, (R, len(grid)); between two
        points of the curve as on the line that joins them."""
        yes, no = (part[:, ::-1].cumsum(1) for part in self._tied(weights))
        rates = np.full((len(weights), len(grid)), np.nan)
        for i, (hits, alarms) in enumerate(zip(yes, no, strict=True)):
            if hits[-1] > 0 and alarms[-1] > 0:
                x, y = np.r_[0.0, alarms / alarms[-1]], np.r_[0.0, hits / hits[-1]]
                last = np.r_[x[1:] != x[:-1], True]  # of a vertical step, its top
                rates[i] = np.interp(grid, x[last], y[last])
        return rates

    def _tied(self, weights: Array) -> tuple[Array, Array]:
        """Weight of positives and of negatives at each distinct score, ascending."""
        ordered = weights[:, self._order]
        yes = np.add.reduceat(ordered * self._positive, self._starts, axis=1)
        return yes, np.add.reduceat(ordered * (1 - self._positive), self._starts, axis=1)
