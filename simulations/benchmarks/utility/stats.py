"""Paired differences of AUC with a bootstrap interval over seeds and test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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


def weighted_auc(truth: Truth, scores: Floats, weights: Floats) -> Floats:
    """AUC as `client.evaluation.auc`, of each of R resamples of the images.

    Args:
        truth: (N,) classes.
        scores: (N, T) probabilities, (N, 1) of a binary task.
        weights: (R, N) how often each image was drawn.
    Returns:
        (R,); NaN where a resample lacks a class.
    """
    columns = range(1, 2) if scores.shape[1] == 1 else range(scores.shape[1])
    areas = [_binary(truth == column, scores[:, i], weights) for i, column in enumerate(columns)]
    return np.mean(areas, axis=0)


def _binary(positive: npt.NDArray[np.bool_], scores: Floats, weights: Floats) -> Floats:
    """(R,): share of pairs in the right order, ties counted half."""
    order = np.argsort(scores, kind="stable")
    _, group = np.unique(scores[order], return_inverse=True)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(group)) + 1])
    own = weights[:, order] * positive[order]
    other = weights[:, order] * ~positive[order]
    wins, rivals = np.add.reduceat(own, starts, axis=1), np.add.reduceat(other, starts, axis=1)
    below = np.cumsum(rivals, axis=1) - rivals
    with np.errstate(invalid="ignore"):
        won = (wins * (below + rivals / 2)).sum(1)
        return np.asarray(won / (wins.sum(1) * rivals.sum(1)))


Answers = Mapping[int, Sequence[Floats]]
"""Seed -> (N, T) probabilities of each site's model, whose AUCs are averaged."""


def difference(
    truth: Truth,
    ours: Answers,
    theirs: Answers,
    *,
    resamples: int = RESAMPLES,
) -> Difference:
    """AUC of `ours` minus that of `theirs`, seed by seed.

    Args:
        truth: (N,) classes of the test images.
        ours: Only seeds that both have count.
    Raises:
        ValueError: No seed in common.
    """
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        raise ValueError("no seed in common")
    rng = np.random.default_rng(0)
    count = len(truth)
    whole = np.ones((1, count))
    gaps = [_mean(truth, ours[s], whole)[0] - _mean(truth, theirs[s], whole)[0] for s in seeds]
    drawn = []
    for first in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - first)
        images = rng.multinomial(count, np.full(count, 1 / count), size=size).astype(float)
        each = np.stack(
            [_mean(truth, ours[s], images) - _mean(truth, theirs[s], images) for s in seeds]
        )
        picked = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=size)
        drawn.append((each.T * picked).sum(1) / len(seeds))
    lower, upper = np.nanquantile(np.concatenate(drawn), [0.025, 0.975])
    return Difference(float(np.mean(gaps)), float(lower), float(upper), len(seeds))


def _mean(truth: Truth, sites: Sequence[Floats], weights: Floats) -> Floats:
    return np.asarray(np.mean([weighted_auc(truth, s, weights) for s in sites], axis=0))
