"""Images of one split that look nearly like one of another. FOR THE SITE'S OWN EYES.

Copies that were saved again, cropped by a pixel or windowed anew have other bytes, and measures on
them are as much too good. Thumbnails are compared by correlation, which gain and offset do not
change. A count is all that is made of them: it says where to look, not that it is so. N images.
"""

from collections.abc import Mapping, Sequence, Set
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from client.data.records import Records

SIDES = {2: 16, 3: 8}
"""Spatial dimensions -> side of a thumbnail."""
LIKE = 0.99
"""Least correlation of near copies. At 16 x 16 pixels 51 of BreastMNIST's 156 test images reach it
with a training image, and one more is the same; of 2,000 test images of blood, organs and chests
one does."""
MAX_IMAGES = 8_192
"""Images of a split that are looked at, evenly over it: three pairs of splits then take seconds."""
IMAGES, ROWS = 16, 1_024
"""In memory at once: whole images, and thumbnails that are compared."""


def thumbnails(records: Records) -> Tensor:
    """(N, side**rank) of the valid records, in their order: mean 0, length 1; a constant image is
    all zeros, and like nothing."""
    found = []
    for stack in records.stacks:
        for start in range(0, len(stack), IMAGES):
            part = stack[slice(start, start + IMAGES)]
            found.append(_small(part.images[part.valid]))
    return torch.cat(found) if found else torch.zeros(0, 1)


def _small(images: Tensor) -> Tensor:
    """(N, C, *spatial) -> (N, side**rank)."""
    rank = images.ndim - 2
    pool: Any = F.adaptive_avg_pool2d if rank == 2 else F.adaptive_avg_pool3d
    if not len(images):
        return torch.zeros(0, SIDES[rank] ** rank)
    # Values of half the largest float would overflow in a sum of squares.
    grey = images.double().mean(1, keepdim=True)
    small: Tensor = pool(grey, (SIDES[rank],) * rank).flatten(1)
    small = small - small.mean(1, keepdim=True)
    length = small.abs().amax(1, keepdim=True)
    small = small / length.clamp_min(torch.finfo(torch.float64).tiny)
    return F.normalize(torch.where(length > 1e-9, small, 0.0), dim=1).float()


def near_copies(small: Mapping[str, Tensor], prints: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """`a+b` -> images of b that look nearly like one of a and are not the same pixel by pixel.

    Args:
        small: Split -> thumbnails.
        prints: Split -> fingerprint of each of these images.
    """
    kept = {split: _spread(values) for split, values in small.items()}
    found = {}
    for a, b in combinations(small, 2):
        same = set(prints[a])
        count = _alike(small[a][kept[a]], small[b][kept[b]], kept[b], prints[b], same)
        if count:
            found[f"{a}+{b}"] = count
    return found


def _spread(values: Tensor) -> Tensor:
    """Rows that are looked at: all, or MAX_IMAGES of them at even distances."""
    if len(values) <= MAX_IMAGES:
        return torch.arange(len(values))
    return torch.linspace(0, len(values) - 1, MAX_IMAGES).round().long()


def _alike(
    ones: Tensor, others: Tensor, rows: Tensor, prints: Sequence[str], same: Set[str]
) -> int:
    """Of `others`, how many are like any of `ones`."""
    if not len(ones) or not len(others) or ones.shape[1] != others.shape[1]:
        return 0
    count = 0
    for start in range(0, len(others), ROWS):
        closest = (others[start : start + ROWS] @ ones.T).amax(1)
        for row in rows[start : start + ROWS][closest >= LIKE].tolist():
            count += prints[row] not in same
    return count
