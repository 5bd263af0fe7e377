"""Paired differences of AUC with a bootstrap interval over seeds and test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from client.ranking import Ranking

RESAMPLES = 2_000
NO_WORSE = -0.02
_CHUNK = 64

Floats = npt.NDArray[np.float64]
Truth = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Difference:
    """Of two ways to train, seeds paired: the mean, and the middle 95 % of its resamples."""

    mean: float
    lower: float
    upper: float
    pairs: int

    @property
    def verdict(self) -> str:
        """`gain`: the lower end is above 0; `no worse`: above -0.02; else `loss`, `unresolved`."""
        if self.lower > 0:
            return "gain"
        if self.lower > NO_WORSE:
            return "no worse"
        return "loss" if self.upper < 0 else "unresolved"


def weighted_auc(truth: Truth, scores: Floats, weights: npt.NDArray[Any]) -> Floats:
    """AUC as `client.evaluation.auc`, of each of R resamples of the images.

    Args:
        truth: (N,) classes.
        scores: (N, T), the higher the likelier; (N, 1) of a binary task.
        weights: (R, N) how often each image was drawn.
    Returns:
        (R,); NaN where a resample lacks a class.
    """
    columns = range(1, 2) if scores.shape[1] == 1 else range(scores.shape[1])
    drawn = np.asarray(weights, dtype=float)
    rankings = [Ranking(truth == column, scores[:, i]) for i, column in enumerate(columns)]
    return np.asarray(np.mean([ranking.auc(drawn) for ranking in rankings], axis=0))


@lru_cache(maxsize=8)
def _drawn(count: int, seed: int, resamples: int) -> npt.NDArray[np.uint8]:
    """(R, N) how often each image is drawn."""
    rng = np.random.default_rng([count, seed])
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn.astype(np.uint8)


def areas(truth: Truth, scores: Floats, resamples: int = RESAMPLES) -> Floats:
    """AUC of all images, then of each of R resamples of them, (1 + R,): the same resamples
    whatever the scores, so that those of two models are paired.

    Args:
        truth: (N,) classes of the test images.
        scores: (N, T), the higher the likelier.
    """
    drawn = _drawn(len(truth), int(truth.sum()), resamples)
    chunks = [drawn[first : first + _CHUNK] for first in range(0, resamples, _CHUNK)]
    once = np.ones((1, len(truth)))
    return np.concatenate([weighted_auc(truth, scores, some) for some in (once, *chunks)])


Side = Mapping[int, Sequence[Floats]]
"""Seed -> (1 + R,) areas of each site's model, whose mean counts."""


def difference(pairs: Sequence[tuple[Side, Side]]) -> Difference:
    """AUC of the first sides minus that of the second, seed by seed; the mean over pairs.

    Args:
        pairs: One, or one for each of several data sets. Only seeds that all have count.
    Raises:
        ValueError: No seed in common.
    """
    seeds = sorted(set.intersection(*(set(side) for pair in pairs for side in pair)))
    if not seeds:
        raise ValueError("no seed in common")
    gaps = np.mean([[_gap(pair, seed) for seed in seeds] for pair in pairs], axis=0)
    whole, resampled = gaps[:, 0], gaps[:, 1:]
    rng = np.random.default_rng(0)
    picked = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), resampled.shape[1])
    drawn = (resampled.T * picked).sum(1) / len(seeds)
    lower, upper = np.nanquantile(drawn, [0.025, 0.975])
    return Difference(float(whole.mean()), float(lower), float(upper), len(seeds))


def _gap(pair: tuple[Side, Side], seed: int) -> Floats:
    """(1 + R,)."""
    ours, theirs = (np.mean(side[seed], axis=0) for side in pair)
    return np.asarray(ours - theirs)
