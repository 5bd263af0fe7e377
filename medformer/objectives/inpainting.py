"""Masked inpainting (He et al. 2021, arXiv:2111.06377): predict hidden patches from the others."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from medformer.grid import along_curve, patchify, positions

if TYPE_CHECKING:
    from medformer.model import Medformer
    from medformer.objectives import Batch

MASKED = 0.6
"""Fraction of the patches that the encoder does not see."""


class Guess(NamedTuple):
    """What the model makes of images of which it saw a part."""

    patches: Tensor
    """(B, N, C * patch**rank), predicted pixels of every patch."""
    visible: Tensor
    """(B, N): 1 for the patches that it saw, else 0."""


def losses(model: "Medformer", batch: "Batch", generator: torch.Generator, weight: float) -> Tensor:
    """Mean squared error over the hidden pixels of each image, (B,)."""
    predicted, visible = guess(model, batch, generator)
    images, patch = batch.images, model.patch(batch.domain)
    real = patchify(torch.ones_like(images), patch)  # padding is no pixel
    wanted = (1 - visible)[:, :, None] * real
    errors = (predicted - patchify(images, patch)).square() * wanted
    return weight * errors.flatten(1).sum(1) / wanted.flatten(1).sum(1).clamp(min=1)


def guess(model: "Medformer", batch: "Batch", generator: torch.Generator) -> Guess:
    """Hide patches of each image at random and predict all of them.

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

    shown = images * upsample(visible, grid, patch, images.shape[2:])
    tokens = model.tokens(shown, batch.domain, keep=keep, spacing=batch.spacing)
    place = positions(grid, tokens.shape[-1], batch.spacing)
    ranks = along_curve(grid)
    predicted = model.pretext.decode(tokens, keep, place, ranks, pixel_kind(model, batch))
    return Guess(predicted, visible)


def grid_of(images: Tensor, patch: int) -> tuple[int, ...]:
    """Tokens along each axis of images (B, C, *spatial)."""
    return tuple(-(-n // patch) for n in images.shape[2:])


def pixel_kind(model: "Medformer", batch: "Batch") -> str:
    """Which pixel decoder these images have."""
    return f"{batch.domain.stem}-{model.preset.depth(batch.domain)}"


def upsample(visible: Tensor, grid: tuple[int, ...], patch: int, spatial: Sequence[int]) -> Tensor:
    """(B, N) -> (B, 1, *spatial), one value a patch; the last patch of a side may be cut off."""
    mask = visible.unflatten(1, (1, *grid))
    for axis, pixels in enumerate(spatial, start=2):
        mask = mask.repeat_interleave(patch, axis).narrow(axis, 0, pixels)
    return mask
