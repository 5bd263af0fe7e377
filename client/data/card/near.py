"""Images of one split that look nearly like one of another. FOR THE SITE'S OWN EYES.

Copies that were saved again, cropped by a pixel or windowed anew have other bytes, and metrics on
them are too good. Thumbnails are compared by correlation, which gain and offset do not change. The
result is only a count: it says where to look, not that images are the same. N images.
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
MIN_CORRELATION = 0.99
"""Minimum correlation of near copies. At 16 x 16 pixels 51 of BreastMNIST's 156 test images reach
it with a training image, and one more is identical; of 2,000 test images of blood, organs and
chests one does."""
MAX_IMAGES = 8_192
"""Maximum images of a split that are compared, evenly over it: three pairs of splits then take
seconds."""
IMAGES, ROWS = 16, 1_024
"""Images, and rows of thumbnails, that are in memory at once."""


def thumbnails(records: Records) -> Tensor:
    """Return a thumbnail of each valid record, in their order.

    Args:
        records: One split.
    Returns:
        (N, side**rank) with mean 0 and length 1. A constant image is all zeros, and so resembles no
            image.
    """
    found = []
    for stack in records.stacks:
        for start in range(0, len(stack), IMAGES):
            part = stack[slice(start, start + IMAGES)]
            found.append(_small(part.images[part.valid]))
    return torch.cat(found) if found else torch.zeros(0, 1)


def _small(images: Tensor) -> Tensor:
    """Reduce images (N, C, *spatial) to standardised thumbnails (N, side**rank)."""
    rank = images.ndim - 2
    pool: Any = F.adaptive_avg_pool2d if rank == 2 else F.adaptive_avg_pool3d
    if not len(images):
        return torch.zeros(0, SIDES[rank] ** rank)
    # float64: values of half the largest float32 would overflow in a sum of squares.
    grey = images.double().mean(1, keepdim=True)
    small: Tensor = pool(grey, (SIDES[rank],) * rank).flatten(1)
    small = small - small.mean(1, keepdim=True)
    # Divided by the maximum first, so that a length neither overflows nor underflows.
    length = small.abs().amax(1, keepdim=True)
    small = small / length.clamp_min(torch.finfo(torch.float64).tiny)
    return F.normalize(torch.where(length > 1e-9, small, 0.0), dim=1).float()


def near_copies(
    small: Mapping[str, Tensor],
    prints: Mapping[str, Sequence[str]],
    max_images: int = MAX_IMAGES,
) -> dict[str, int]:
    """Count images of one split that look nearly like an image of another, without exact copies.

    Args:
        small: Split -> thumbnails (N, side**rank).
        prints: Split -> fingerprint of each of these images.
        max_images: Maximum images of a split that are compared.
    Returns:
        `a+b` -> number of images of b, where it is not zero.
    """
    kept = {split: _compared(values, max_images) for split, values in small.items()}
    found = {}
    for a, b in combinations(small, 2):
        same = set(prints[a])
        count = _alike(small[a][kept[a]], small[b][kept[b]], kept[b], prints[b], same)
        if count:
            found[f"{a}+{b}"] = count
    return found


def _compared(values: Tensor, max_images: int) -> Tensor:
    """Return the rows that are compared: all, or `max_images` of them at even distances."""
    if len(values) <= max_images:
        return torch.arange(len(values))
    return torch.linspace(0, len(values) - 1, max_images).round().long()


def _alike(
    ones: Tensor, others: Tensor, rows: Tensor, prints: Sequence[str], same: Set[str]
) -> int:
    """Count the images of `others` that look like one of `ones` and have other pixels."""
    # Thumbnails of 2D images and of volumes have different lengths and are never compared.
    if not len(ones) or not len(others) or ones.shape[1] != others.shape[1]:
        return 0
    count = 0
    # In blocks: the full matrix of 8,192 x 8,192 correlations takes 256 MiB.
    for start in range(0, len(others), ROWS):
        closest = (others[start : start + ROWS] @ ones.T).amax(1)
        for row in rows[start : start + ROWS][closest >= MIN_CORRELATION].tolist():
            # Exact copies are counted apart, as shared images.
            count += prints[row] not in same
    return count
