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


@dataclass(frozen=True)
class Pair:
    """Two ways to train, on the same test images."""

    truth: Truth
    """(N,) classes of the test images."""
    ours: Answers
    theirs: Answers


def difference(pairs: Sequence[Pair], *, resamples: int = RESAMPLES) -> Difference:
    """AUC of `ours` minus that of `theirs`, seed by seed; the mean over pairs.

    Args:
        pairs: One, or one for each of several data sets. Only seeds that all have count.
    Raises:
        ValueError: No seed in common.
    """
    both = [set(side) for pair in pairs for side in (pair.ours, pair.theirs)]
    seeds = sorted(set.intersection(*both))
    if not seeds:
        raise ValueError("no seed in common")
    rng = np.random.default_rng(0)
    gaps = np.mean([_gaps(p, seeds, np.ones((1, len(p.truth)))) for p in pairs])
    drawn = []
    for first in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - first)
        each = np.mean([_gaps(p, seeds, _images(rng, len(p.truth), size)) for p in pairs], axis=0)
        picked = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=size)
        drawn.append((each.T * picked).sum(1) / len(seeds))
    lower, upper = np.nanquantile(np.concatenate(drawn), [0.025, 0.975])
    return Difference(float(gaps), float(lower), float(upper), len(seeds))


def _images(rng: np.random.Generator, count: int, size: int) -> Floats:
    """How often each of N images is drawn, (R, N)."""
    return rng.multinomial(count, np.full(count, 1 / count), size=size).astype(float)


def _gaps(pair: Pair, seeds: Sequence[int], weights: Floats) -> Floats:
    """(S, R)."""
    return np.stack(
        [
            _mean(pair.truth, pair.ours[s], weights) - _mean(pair.truth, pair.theirs[s], weights)
            for s in seeds
        ]
    )


def _mean(truth: Truth, sites: Sequence[Floats], weights: Floats) -> Floats:
    return np.asarray(np.mean([weighted_auc(truth, s, weights) for s in sites], axis=0))
