"""Resizes medical images and their masks to what the model reads. C channels, rank 2 or 3."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from client.data.fit import fit, padded, padded_mask


def fitted(
    image: Tensor, spacing: Tensor | None, max_side: int, multiple: int
) -> tuple[Tensor, Tensor | None]:
    """Reduce an image to at most `max_side` and pad its sides to a multiple of `multiple`.

    The aspect is kept, but no side of a volume goes below 32. Each new value is the mean of the
    area that it covers, so that no value leaves the image's range.

    Args:
        image: (C, *spatial) float32 or uint8.
        spacing: (rank,) distance between neighbours, or None.
        max_side: Maximum side in pixels or voxels.
        multiple: The number that divides the padded sides.
    Returns:
        The image, of the same type, and its spacing after the reduction.
    Raises:
        Unusable: Fewer values are left than the model can read.
    """
    size = fit(tuple(image.shape[1:]), max_side, multiple)
    # Fewer pixels over the same length lie farther apart.
    if spacing is not None:
        spacing = spacing * torch.tensor(size.stored) / torch.tensor(size.reduced)
    return padded(_resized(image, size.reduced), size), spacing


def fitted_mask(mask: Tensor, max_side: int, multiple: int) -> Tensor:
    """Reduce and pad a mask as `fitted` does its image; each new value is that of the centre.

    Args:
        mask: Classes, (*spatial) int64.
        max_side: Maximum side in pixels or voxels.
        multiple: The number that divides the padded sides.
    """
    size = fit(tuple(mask.shape), max_side, multiple)
    for axis, (old, new) in enumerate(zip(size.stored, size.reduced, strict=True)):
        if new < old:
            # A mean of class numbers would be another class.
            mask = mask.index_select(axis, ((torch.arange(new) + 0.5) * (old / new)).long())
    return padded_mask(mask, size)


def _resized(image: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Reduce (C, *spatial) to the given sides by average pooling, in the image's own type."""
    if sides == image.shape[1:]:
        return image
    pool: Any = F.adaptive_avg_pool2d if len(sides) == 2 else F.adaptive_avg_pool3d
    small: Tensor = pool(image[None].float(), sides)[0]
    # Truncation would darken every pixel by half a step.
    return small.round().to(image.dtype) if image.dtype == torch.uint8 else small
