"""Paired differences of AUC with a bootstrap interval over seeds and test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from client.ranking import Ranking

RESAMPLES = 2_000
"""Number of resamples of seeds and images."""
NO_WORSE = -0.02
"""Smallest lower end of an interval that counts as no worse."""
_CHUNK = 64

Floats = npt.NDArray[np.float64]
Truth = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Difference:
    """The difference in AUC between two ways to train, with paired seeds.

    `lower` and `upper` enclose the middle 95 % of the resampled means.
    """

    mean: float
    lower: float
    upper: float
    pairs: int
    """Number of paired seeds."""

    @property
    def verdict(self) -> str:
        """`gain`: the lower end is above 0; `no worse`: above -0.02; else `loss`, `unresolved`."""
        if self.lower > 0:
            return "gain"
        if self.lower > NO_WORSE:
            return "no worse"
        return "loss" if self.upper < 0 else "unresolved"


def weighted_auc(truth: Truth, scores: Floats, weights: npt.NDArray[Any]) -> Floats:
    """Return the AUC of `client.evaluation.auc` for each of R resamples of the images.

    Args:
        truth: (N,) classes.
        scores: (N, T) scores, a higher one meaning more likely; (N, 1) for a binary task.
        weights: (R, N) number of times that each image was drawn.
    Returns:
        (R,) values; NaN for resamples that lack a class.
    """
    # A binary task has one score, that of class 1.
    columns = range(1, 2) if scores.shape[1] == 1 else range(scores.shape[1])
    drawn = np.asarray(weights, dtype=float)
    rankings = [Ranking(truth == column, scores[:, i]) for i, column in enumerate(columns)]
    return np.asarray(np.mean([ranking.auc(drawn) for ranking in rankings], axis=0))


@lru_cache(maxsize=8)
def _drawn(count: int, seed: int, resamples: int) -> npt.NDArray[np.uint8]:
    """Draw R resamples of N images: (R, N) number of times that each image is drawn."""
    rng = np.random.default_rng([count, seed])
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn.astype(np.uint8)


def areas(truth: Truth, scores: Floats, resamples: int = RESAMPLES) -> Floats:
    """Return the AUC of all images, then of each of R resamples of them.

    The resamples do not depend on the scores, so that those of two models are paired.

    Args:
        truth: (N,) classes of the test images.
        scores: (N, T) scores, a higher one meaning more likely.
        resamples: R.
    Returns:
        (1 + R,) values.
    """
    drawn = _drawn(len(truth), int(truth.sum()), resamples)
    # In chunks, because all resamples at once need R x N floats.
    chunks = [drawn[first : first + _CHUNK] for first in range(0, resamples, _CHUNK)]
    once = np.ones((1, len(truth)))
    return np.concatenate([weighted_auc(truth, scores, some) for some in (once, *chunks)])


Side = Mapping[int, Sequence[Floats]]
"""Seed -> (1 + R,) areas of each site's model; their mean is compared."""


def difference(pairs: Sequence[tuple[Side, Side]]) -> Difference:
    """Return the AUC of the first sides minus that of the second ones, averaged over pairs.

    Args:
        pairs: One pair, or one for each of several data sets. Only seeds that all sides have count.
    Raises:
        ValueError: The sides have no seed in common.
    Source: Efron and Tibshirani 1993 (the percentile bootstrap), doi:10.1201/9780429246593.
    """
    # Pairing removes the variance that both sides of a seed share.
    seeds = sorted(set.intersection(*(set(side) for pair in pairs for side in pair)))
    if not seeds:
        raise ValueError("no seed in common")
    gaps = np.mean([[_gap(pair, seed) for seed in seeds] for pair in pairs], axis=0)
    whole, resampled = gaps[:, 0], gaps[:, 1:]
    rng = np.random.default_rng(0)
    # Seeds are resampled along with images, since both vary.
    picked = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), resampled.shape[1])
    drawn = (resampled.T * picked).sum(1) / len(seeds)
    # Resamples that lack a class have no AUC and are left out.
    lower, upper = np.nanquantile(drawn, [0.025, 0.975])
    return Difference(float(whole.mean()), float(lower), float(upper), len(seeds))


def _gap(pair: tuple[Side, Side], seed: int) -> Floats:
    """Return the (1 + R,) differences of a seed."""
    ours, theirs = (np.mean(side[seed], axis=0) for side in pair)
    return np.asarray(ours - theirs)
