"""Figures of a model from noisy counts of its scores: each site's, and those of all sites together.

AUC, sensitivity and specificity, and whether the probabilities are right, each with an interval
that contains sampling and noise. All are functions of counts that left the sites with noise, so
they cost no epsilon.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from server.measures import POOLED
from server.measures.scores import (
    FINE,
    MAX_OVERLAP,
    POINTS,
    SIGNIFICANT,
    Array,
    Density,
    Estimate,
    Figure,
    estimated,
    overlap,
)
from server.protocol.score_counts import OutputCounts, ScoreCounts

SPECIFICITY = 0.9
"""Specificity at which the sensitivity is given, besides that at probability one half."""
PROBABILITIES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Edges of the ranges in which probabilities are compared with what is observed."""
FIGURES = ("shown", "absent", "auc", "sensitivity", "specificity", "sensitivity_at")

Row = dict[str, Any]


class _Key(NamedTuple):
    """One output of a task, at the sites of one kind of image."""

    kind: str
    task: str
    output: int
    outputs: int
    """Number of the task's outputs: a class among three is another question than among five."""


class _Sum(NamedTuple):
    """Counts of one output, of one site or of several."""

    shown: Array
    absent: Array
    variance: float
    """Variance of the noise on each count."""


def figures(counts: Mapping[str, ScoreCounts], kinds: Mapping[str, str]) -> list[Row]:
    """Return the figures of every output, by site and of all sites of a kind together.

    Args:
        counts: Site -> what it sent.
        kinds: Site -> its kind of image. Outputs of unlike kinds, or of tasks of the same name with
            more or fewer outputs, are never joined.
    Returns:
        Rows {site, kind, task, output, several, shown, absent, auc, sensitivity, specificity,
        sensitivity_at, calibration}. `several` is False for a task of one output. `shown` and
        `absent` are numbers of images, by the noisy counts. A figure is {value, low, high}, or None
        where there are too few images for it, or their scores are too similar.
    """
    rows = []
    sums: dict[_Key, list[_Sum]] = {}
    for site, own in sorted(counts.items()):
        tasks = Counter(output.task for output in own.outputs)
        for output in own.outputs:
            key = _Key(kinds[site], output.task, output.output, tasks[output.task])
            found = _read(output, own.std)
            if found is not None:
                sums.setdefault(key, []).append(found)
            rows.append(_row(site, key, found))
    together = [_row(POOLED, k, _together(sums[k])) for k in sorted(sums) if len(sums[k]) > 1]
    return rows + together


def _read(output: OutputCounts, std: float) -> _Sum | None:
    if output.shown is None or output.absent is None:
        return None
    return _Sum(np.array(output.shown), np.array(output.absent), std**2)


def _together(parts: Iterable[_Sum]) -> _Sum:
    """Add up counts; the variances of their noise add up, too."""
    shown, absent, variances = zip(*parts, strict=True)
    return _Sum(sum(shown), sum(absent), sum(variances))


def _row(site: str, key: _Key, counts: _Sum | None) -> Row:
    """Return the row of one output; without counts, one that says that there are none."""
    row: Row = {
        "site": site,
        "kind": key.kind,
        "task": key.task,
        "output": key.output,
        "several": key.outputs > 1,
        **dict.fromkeys(FIGURES),
        "calibration": [],
    }
    if counts is None:
        return row
    std = float(np.sqrt(counts.variance))
    shown, absent = Density.fit(counts.shown, std), Density.fit(counts.absent, std)
    row |= {
        "shown": max(0, round(float(counts.shown.sum()))),
        "absent": max(0, round(float(counts.absent.sum()))),
    }
    # Without enough images of either side a figure would be made of noise.
    if min(shown.significance, absent.significance) < SIGNIFICANT:
        return row
    if overlap(shown, absent) > MAX_OVERLAP:
        return row

    def of(figure: Figure) -> Row:
        return _rounded(estimated(figure, shown, absent))

    return row | {
        "auc": of(auc),
        "sensitivity": of(sensitivity),
        "specificity": of(specificity),
        "sensitivity_at": of(sensitivity_at),
        "calibration": _calibration(shown, absent),
    }


def _rounded(estimate: Estimate) -> Row:
    """Return an estimate with the digits that it has."""
    return {name: round(value, 4) for name, value in asdict(estimate).items()}


def auc(shown: Array, absent: Array) -> float:
    """Return how often an image that shows a finding has the higher score; ties count half.

    Args:
        shown: (F,) images that show it, by score.
        absent: (F,) images that do not.
    """
    shares = absent / absent.sum()
    below = np.cumsum(shares) - shares / 2
    return float(shown @ below / shown.sum())


def sensitivity(shown: Array, absent: Array) -> float:
    """Return which part of the images that show it has a probability above one half.

    Args:
        shown: (F,) images that show it, by score.
        absent: (F,) images that do not.
    """
    return float(shown[POINTS > 0].sum() / shown.sum())


def specificity(shown: Array, absent: Array) -> float:
    """Return which part of the images that do not show it has a probability below one half.

    Args:
        shown: (F,) images that show it, by score.
        absent: (F,) images that do not.
    """
    return float(absent[POINTS < 0].sum() / absent.sum())


def sensitivity_at(shown: Array, absent: Array) -> float:
    """Return the sensitivity at the threshold whose specificity is `SPECIFICITY`.

    Args:
        shown: (F,) images that show it, by score.
        absent: (F,) images that do not.
    """
    # Both as functions of the threshold, from one point to the next on a straight line.
    below = np.cumsum(absent) / absent.sum()
    missed = np.cumsum(shown) / shown.sum()
    return 1 - float(np.interp(SPECIFICITY, np.r_[0, below], np.r_[0, missed]))


def _calibration(shown: Density, absent: Density) -> list[Row]:
    """Compare probabilities with observed shares, range by range."""
    images = shown.images + absent.images
    noise = np.sqrt(shown.std**2 + absent.std**2)
    edges = logit(np.array(PROBABILITIES))
    rows = []
    for low, high in pairwise(edges):
        within = (low < POINTS) & (high >= POINTS)
        bins = within.sum() / FINE
        number = float(images[within].sum())
        # A share of noise says nothing.
        if number < SIGNIFICANT * noise * np.sqrt(bins):
            continue
        rows.append(
            {
                "images": round(number),
                "predicted": round(float(images[within] @ expit(POINTS[within]) / number), 4),
                "observed": _rounded(estimated(_share_within(within), shown, absent)),
            }
        )
    return rows


def _share_within(within: npt.NDArray[np.bool_]) -> Figure:
    """Return the figure: which part of the images at some points shows the finding."""

    def share(shown: Array, absent: Array) -> float:
        some = float(shown[within].sum())
        return some / (some + float(absent[within].sum()))

    return share
