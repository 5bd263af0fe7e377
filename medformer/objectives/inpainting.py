"""Inpainting: predict hidden patches from the visible ones, as a masked autoencoder does."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medformer.grid import along_curve, patchify, positions
from medformer.model import Medformer
from medformer.objectives.batch import Batch

MASKED = 0.6
"""Fraction of the patches that the encoder does not see."""


class Guess(NamedTuple):
    """A prediction of whole images from a part of them."""

    patches: Tensor
    """(B, N, C * patch**rank), predicted pixels of every patch."""
    visible: Tensor
    """(B, N), 1 for the patches that the model saw, else 0."""


def losses(model: Medformer, batch: Batch, generator: torch.Generator, weight: float) -> Tensor:
    """Return the mean squared error over the hidden pixels of each image, (B,).

    Args:
        model, batch, generator, weight: As for every objective (`mix.LossPerExample`).

    Source: He et al. 2021, arXiv:2111.06377.
    """
    predicted, visible = guess(model, batch, generator)
    images, patch = batch.images, model.patch(batch.domain)
    real = patchify(torch.ones_like(images), patch)  # padding does not count
    wanted = (1 - visible)[:, :, None] * real
    errors = (predicted - patchify(images, patch)).square() * wanted
    return weight * errors.flatten(1).sum(1) / wanted.flatten(1).sum(1).clamp(min=1)


def guess(model: Medformer, batch: Batch, generator: torch.Generator) -> Guess:
    """Hide patches of each image at random and predict all of them.

    Hidden patches are zeroed in the image before the convolutional stem, whose receptive field
    overlaps its neighbours, and their tokens are left out of the encoder.

    Args:
        model: Its pretext decoder predicts.
        batch: Records; their labels are not read.
        generator: Draws the hidden patches.
    """
    images = batch.images
    patch = model.patch(batch.domain)
    grid = grid_of(images, patch)
    count = math.prod(grid)
    # At least one, or there would be nothing to predict.
    hidden = max(1, round(MASKED * count))
    # Every image hides other patches, drawn without looking at it.
    order = torch.rand(len(images), count, generator=generator).argsort(1)
    # Sorted, so that visible tokens keep the order of the grid.
    keep = order[:, hidden:].sort(1).values
    visible = torch.zeros(len(images), count).scatter(1, keep, 1.0)

    # Hidden in the image itself: the stem's fields overlap patch borders.
    shown = images * upsample(visible, grid, patch, images.shape[2:])
    tokens = model.tokens(shown, batch.domain, keep=keep, spacing=batch.spacing)
    place = positions(grid, tokens.shape[-1], batch.spacing)
    ranks = along_curve(grid)
    predicted = model.pretext.decode(tokens, keep, place, ranks, pixel_kind(model, batch))
    return Guess(predicted, visible)


def grid_of(images: Tensor, patch: int) -> tuple[int, ...]:
    """Return the number of tokens along each axis of images (B, C, *spatial).

    Args:
        images: (B, C, *spatial).
        patch: Side of a patch, pixels.
    """
    return tuple(-(-n // patch) for n in images.shape[2:])


def pixel_kind(model: Medformer, batch: Batch) -> str:
    """Return the key of the pixel decoder for a batch (`Pretext.pixels`).

    Args:
        model: Decides the depth.
        batch: Its domain decides the stem.
    """
    return f"{batch.domain.stem}-{model.preset.depth(batch.domain)}"


def upsample(visible: Tensor, grid: tuple[int, ...], patch: int, spatial: Sequence[int]) -> Tensor:
    """Give each pixel the value of its patch, (B, N) -> (B, 1, *spatial).

    Args:
        visible: (B, N), a value for each patch.
        grid: Patches along each axis.
        patch: Side of a patch, pixels; the last patch of an axis can be cut off.
        spatial: Pixels along each axis.
    """
    mask = visible.unflatten(1, (1, *grid))
    for axis, pixels in enumerate(spatial, start=2):
        mask = mask.repeat_interleave(patch, axis).narrow(axis, 0, pixels)
    return mask
