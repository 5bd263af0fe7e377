"""Restoration: paint an image from a degraded copy.

The copy of a colour image is grey. The copy of a one-channel image has what an acquisition loses
instead of colour: contrast, sharpness and a quiet background (medformer/degradations.py).
"""

import torch
from torch import Tensor

from medformer.degradations import blur, contrast, noise
from medformer.grid import along_curve, patchify, positions
from medformer.images import standardise
from medformer.model import Medformer
from medformer.objectives.batch import Batch
from medformer.objectives.inpainting import grid_of, pixel_kind


def losses(model: Medformer, batch: Batch, generator: torch.Generator, weight: float) -> Tensor:
    """Return the mean squared error over the pixels of each image, (B,).

    Args:
        model, batch, generator, weight: As for every objective (`mix.LossPerExample`).

    Source: Zhang et al. 2016, arXiv:1603.08511 (colourisation; there over classes of colour).
    """
    images = batch.images
    patch = model.patch(batch.domain)
    grid = grid_of(images, patch)
    shown = standardise(_degraded(images, generator))
    tokens = model.tokens(shown, batch.domain, spacing=batch.spacing)
    place = positions(grid, tokens.shape[-1], batch.spacing)
    painted = model.pretext.paint(tokens, place, along_curve(grid), pixel_kind(model, batch))
    real = patchify(torch.ones_like(images[:1]), patch)  # padding does not count
    errors = (painted - patchify(images, patch)).square() * real
    return weight * errors.flatten(1).sum(1) / real.sum()


def _degraded(images: Tensor, generator: torch.Generator) -> Tensor:
    """Make colour images grey; change contrast, blur and noise of one-channel images."""
    # The grey copy keeps its channels, so that the same stem reads it.
    if images.shape[1] > 1:
        return images.mean(1, keepdim=True).expand_as(images)
    # One strength for each image and fault, from nothing to full.
    for fault in (contrast, blur, noise):
        images = fault(images, torch.rand(len(images), generator=generator), generator)
    return images
