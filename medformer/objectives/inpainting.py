"""Masked inpainting (He et al. 2021, arXiv:2111.06377): predict hidden patches from the others."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medformer.grid import along_curve, patchify, positions

if TYPE_CHECKING:
    from medformer.model import Medformer
    from medformer.objectives import Batch

MASKED = 0.6
"""Fraction of the patches that the encoder does not see."""


def losses(model: "Medformer", batch: "Batch", generator: torch.Generator, weight: float) -> Tensor:
    """Mean squared error over the hidden pixels of each image, (B,).

    Hidden patches are zeroed in the image before the convolutional stem, whose receptive field
    overlaps its neighbours, and their tokens are left out of the encoder.
    """
    images = batch.images
    patch = model.patch(batch.domain)
    grid = grid_of(images, patch)
    count = math.prod(grid)
    hidden = max(1, round(MASKED * count))
    order = torch.rand(len(images), count, generator=generator).argsort(1)
    keep = order[:, hidden:].sort(1).values
    visible = torch.zeros(len(images), count).scatter(1, keep, 1.0)

    shown = images * upsample(visible, grid, images)
    tokens = model.tokens(shown, batch.domain, keep=keep, spacing=batch.spacing)
    place = positions(grid, tokens.shape[-1], batch.spacing)
    ranks = along_curve(grid)
    predicted = model.pretext.decode(tokens, keep, place, ranks, pixel_kind(model, batch))
    real = patchify(torch.ones_like(images), patch)  # padding is no pixel
    wanted = (1 - visible)[:, :, None] * real
    errors = (predicted - patchify(images, patch)).square() * wanted
    return weight * errors.flatten(1).sum(1) / wanted.flatten(1).sum(1).clamp(min=1)


def grid_of(images: Tensor, patch: int) -> tuple[int, ...]:
    """Tokens along each axis of images (B, C, *spatial)."""
    return tuple(-(-n // patch) for n in images.shape[2:])


def pixel_kind(model: "Medformer", batch: "Batch") -> str:
    """Which pixel decoder these images have."""
    return f"{batch.domain.stem}-{model.preset.depth(batch.domain)}"


def upsample(visible: Tensor, grid: tuple[int, ...], images: Tensor) -> Tensor:
    """(B, N) -> (B, 1, *spatial), one value a patch."""
    mask = visible.unflatten(1, (1, *grid))
    for axis, (tokens, pixels) in enumerate(zip(grid, images.shape[2:], strict=True), start=2):
        patch = -(-pixels // tokens)
        mask = mask.repeat_interleave(max(patch, 1), axis).narrow(axis, 0, pixels)
    return mask
