"""Restoration: paint the image from a degraded copy; of a colour image, from its grey one.

Colourisation after Zhang et al. 2016 (arXiv:1603.08511), with a squared error instead of classes
of colour; for one channel, what an acquisition loses instead of colour (medformer/degradations.py).
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medformer.degradations import blur, contrast, noise
from medformer.grid import along_curve, patchify, positions
from medformer.images import standardise
from medformer.objectives.inpainting import grid_of, pixel_kind

if TYPE_CHECKING:
    from medformer.model import Medformer
    from medformer.objectives import Batch


def losses(model: "Medformer", batch: "Batch", generator: torch.Generator, weight: float) -> Tensor:
    """Mean squared error over the pixels of each image, (B,)."""
    images = batch.images
    patch = model.patch(batch.domain)
    grid = grid_of(images, patch)
    shown = standardise(_degraded(images, generator))
    tokens = model.tokens(shown, batch.domain, spacing=batch.spacing)
    place = positions(grid, tokens.shape[-1], batch.spacing)
    painted = model.pretext.paint(tokens, place, along_curve(grid), pixel_kind(model, batch))
    real = patchify(torch.ones_like(images[:1]), patch)  # padding is no pixel
    errors = (painted - patchify(images, patch)).square() * real
    return weight * errors.flatten(1).sum(1) / real.sum()


def _degraded(images: Tensor, generator: torch.Generator) -> Tensor:
    """Grey in every channel; one-channel images with another contrast, blurred and noisy."""
    if images.shape[1] > 1:
        return images.mean(1, keepdim=True).expand_as(images)
    for fault in (contrast, blur, noise):
        images = fault(images, torch.rand(len(images), generator=generator), generator)
    return images
