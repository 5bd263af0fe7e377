"""Mean Dice overlap of outlines, from noisy counts: each site's, and that of all sites together."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from server.measures import POOLED
from server.measures.scores import CAUTION, CONFIDENCE, SIGNIFICANT
from server.protocol.score_counts import OVERLAPS, ScoreCounts

Array = npt.NDArray[np.float64]
Row = dict[str, Any]

PLACES = np.arange(OVERLAPS) / (OVERLAPS - 1)
"""(OVERLAPS,) places of the overlap."""


def overlaps(counts: Mapping[str, ScoreCounts], kinds: Mapping[str, str]) -> list[Row]:
    """Return the mean overlap of every task of outlines, by site and of all sites of a kind.

    Args:
        counts: Site -> what it sent.
        kinds: Site -> its kind of image. Tasks of unlike kinds are never joined.
    Returns:
        Rows {site, kind, task, images, dice}. `images` is the number of images with an outline, by
        the noisy counts. `dice` is {value, low, high}, or None where there are too few images. The
        value is the mean over images, which is not that over all pixels together.
    """
    rows = []
    sums: dict[tuple[str, str], list[tuple[Array, float]]] = defaultdict(list)
    for site, own in sorted(counts.items()):
        for task in own.overlaps:
            found = None
            if task.images is not None:
                found = np.array(task.images), own.std**2
                sums[kinds[site], task.task].append(found)
            rows.append(_row(site, kinds[site], task.task, found))
    for (kind, name), parts in sorted(sums.items()):
        if len(parts) > 1:
            total = sum((images for images, _ in parts), np.zeros(OVERLAPS))
            variance = sum(own for _, own in parts)
            rows.append(_row(POOLED, kind, name, (total, variance)))
    return rows


def _row(site: str, kind: str, task: str, counts: tuple[Array, float] | None) -> Row:
    row: Row = {"site": site, "kind": kind, "task": task, "images": None, "dice": None}
    if counts is None:
        return row
    images, variance = counts
    row["images"] = max(0, round(float(images.sum())))
    # Without enough images the mean would be made of noise.
    if images.sum() < SIGNIFICANT * math.sqrt(variance * OVERLAPS):
        return row
    return row | {"dice": _mean(images, variance)}


def _mean(images: Array, variance: float) -> Row:
    """Return the mean overlap, and the interval that holds it over noise and sampling.

    Images that are divided between two places spread a little more than they do in truth.
    """
    number = float(images.sum())
    mean = float(images @ PLACES) / number
    apart = (PLACES - mean) ** 2
    spread = max(0.0, float(images @ apart)) + variance * float(apart.sum())
    # The number of images is noisy, too, and may be too large.
    fewer = number - math.sqrt(variance * OVERLAPS)
    reach = CAUTION[0] * float(ndtri((1 + CONFIDENCE) / 2)) * math.sqrt(spread) / fewer
    low, high = max(0.0, mean - reach), min(1.0, mean + reach)
    value = min(1.0, max(0.0, mean))
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)}
