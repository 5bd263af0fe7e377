"""Arrays of medical files -> images of a size that the model reads. C channels, rank 2 or 3."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from client.data.records import Unusable
from medformer.images import SIDES

KEPT = 32
"""Voxels below which no side of a volume is reduced."""


def fitted(
    image: Tensor, spacing: Tensor | None, max_side: int, multiple: int
) -> tuple[Tensor, Tensor | None]:
    """The image with its longest side at most `max_side`, sides cut to a multiple of `multiple`.

    Reduced keeping its aspect, but no side of a volume below 32: scans have fewer slices than rows.
    Each new value is the mean of what it covers, so that none leaves the image's own range; then
    cut around its centre.

    Args:
        image: (C, *spatial) float32 or uint8.
        spacing: (rank,) distance between neighbours, or None.
    Returns:
        The image, of the same type, and its spacing.
    Raises:
        Unusable: Less is left than the model can read.
    """
    before = image.shape[1:]
    image = _resized(image, _reduced(before, max_side))
    if spacing is not None:
        spacing = spacing * torch.tensor(before) / torch.tensor(image.shape[1:])
    return _cut(image, multiple, before), spacing


def fitted_mask(mask: Tensor, max_side: int, multiple: int) -> Tensor:
    """A mask of classes, (*spatial) int64, as `fitted` does it, each value that of the centre."""
    before = mask.shape
    for axis, new in enumerate(_reduced(before, max_side)):
        if new < before[axis]:
            step = before[axis] / new
            mask = mask.index_select(axis, ((torch.arange(new) + 0.5) * step).long())
    return _cut(mask[None], multiple, before)[0]


def _reduced(sides: tuple[int, ...], max_side: int) -> tuple[int, ...]:
    most = min(max_side, SIDES[len(sides)][1])
    factor = min(1.0, most / max(sides))
    kept = KEPT if len(sides) == 3 else 1
    return tuple(max(min(kept, side), round(side * factor)) for side in sides)


def _resized(image: Tensor, sides: tuple[int, ...]) -> Tensor:
    if sides == image.shape[1:]:
        return image
    pool: Any = F.adaptive_avg_pool2d if len(sides) == 2 else F.adaptive_avg_pool3d
    small: Tensor = pool(image[None].float(), sides)[0]
    return small.round().to(image.dtype) if image.dtype == torch.uint8 else small


def _cut(image: Tensor, multiple: int, before: tuple[int, ...]) -> Tensor:
    rank = image.ndim - 1
    for axis in range(1, image.ndim):
        side = image.shape[axis]
        kept = side - side % multiple if side >= multiple else side
        image = image.narrow(axis, (side - kept) // 2, kept)
    least = SIDES[rank][0]
    if min(image.shape[1:]) < least:
        sizes = [" x ".join(map(str, s)) for s in (before, image.shape[1:])]
        raise Unusable(f"{sizes[0]} values come to {sizes[1]}, fewer than {least} a side")
    return image.contiguous()
