"""Masked inpainting (He et al. 2021, arXiv:2111.06377): predict hidden patches from the others."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from medformer.model import Medformer, positions

if TYPE_CHECKING:
    from medformer.objectives import Batch

MASKED = 0.6
"""Fraction of the patches that the encoder does not see."""


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, C, *spatial) -> (B, N, C * patch**rank); edges padded with zeros, N as in the stem."""
    rank = images.ndim - 2
    pads = [p for n in reversed(images.shape[2:]) for p in (0, -n % patch)]
    images = F.pad(images, pads)
    for axis in range(2, 2 + 2 * rank, 2):
        images = images.unflatten(axis, (-1, patch))
    grid, inside = range(2, 2 + 2 * rank, 2), range(3, 3 + 2 * rank, 2)
    patches = images.permute(0, *grid, 1, *inside)
    return patches.flatten(rank + 1).flatten(1, rank)


def losses(model: Medformer, batch: "Batch", generator: torch.Generator, weight: float) -> Tensor:
    """Mean squared error over the hidden pixels of each image, (B,).

    Hidden patches are zeroed in the image before the convolutional stem, whose receptive field
    overlaps its neighbours, and their tokens are left out of the encoder.
    """
    images = batch.images
    grid = model.grid(images.shape[2:])
    count = len(positions(grid, 4 * len(grid)))
    hidden = max(1, round(MASKED * count))
    order = torch.rand(len(images), count, generator=generator).argsort(1)
    keep = order[:, hidden:].sort(1).values
    visible = torch.zeros(len(images), count).scatter(1, keep, 1.0)

    tokens = model.encode(images * _upsample(visible, grid, images), batch.domain, keep=keep)
    place = positions(grid, tokens.shape[-1])
    predicted = model.pretext.decode(tokens, keep, place, batch.domain.stem)
    real = patchify(torch.ones_like(images), model.stride)  # padding is no pixel
    wanted = (1 - visible)[:, :, None] * real
    errors = (predicted - patchify(images, model.stride)).square() * wanted
    return weight * errors.flatten(1).sum(1) / wanted.flatten(1).sum(1).clamp(min=1)


def _upsample(visible: Tensor, grid: tuple[int, ...], images: Tensor) -> Tensor:
    """(B, N) 0/1 -> (B, 1, *spatial), one value a patch."""
    mask = visible.unflatten(1, (1, *grid))
    for axis, (tokens, pixels) in enumerate(zip(grid, images.shape[2:], strict=True), start=2):
        patch = -(-pixels // tokens)
        mask = mask.repeat_interleave(max(patch, 1), axis).narrow(axis, 0, pixels)
    return mask
