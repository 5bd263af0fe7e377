"""Arrays of medical files -> images of a size that the model reads. C channels, rank 2 or 3."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from client.data.fit import fit, padded, padded_mask


def fitted(
    image: Tensor, spacing: Tensor | None, max_side: int, multiple: int
) -> tuple[Tensor, Tensor | None]:
    """The image with its longest side at most `max_side`, sides padded to a multiple of `multiple`.

    Reduced keeping its aspect, but no side of a volume below 32. Each new value is the mean of what
    it covers, so that none leaves the image's own range.

    Args:
        image: (C, *spatial) float32 or uint8.
        spacing: (rank,) distance between neighbours, or None.
    Returns:
        The image, of the same type, and its spacing.
    Raises:
        Unusable: Less is left than the model can read.
    """
    size = fit(tuple(image.shape[1:]), max_side, multiple)
    if spacing is not None:
        spacing = spacing * torch.tensor(size.stored) / torch.tensor(size.reduced)
    return padded(_resized(image, size.reduced), size), spacing


def fitted_mask(mask: Tensor, max_side: int, multiple: int) -> Tensor:
    """A mask of classes, (*spatial) int64, as `fitted` does it, each value that of the centre."""
    size = fit(tuple(mask.shape), max_side, multiple)
    for axis, (old, new) in enumerate(zip(size.stored, size.reduced, strict=True)):
        if new < old:
            mask = mask.index_select(axis, ((torch.arange(new) + 0.5) * (old / new)).long())
    return padded_mask(mask, size)


def _resized(image: Tensor, sides: tuple[int, ...]) -> Tensor:
    if sides == image.shape[1:]:
        return image
    pool: Any = F.adaptive_avg_pool2d if len(sides) == 2 else F.adaptive_avg_pool3d
    small: Tensor = pool(image[None].float(), sides)[0]
    return small.round().to(image.dtype) if image.dtype == torch.uint8 else small
