"""Rescanned: learn the labels from images as another scanner might have recorded them."""

from dataclasses import replace

import torch
from torch import Tensor

from medformer.degradations import rescan
from medformer.images import standardise
from medformer.model import Medformer
from medformer.objectives.batch import Batch
from medformer.objectives.supervised import losses as supervised_losses

SHARE = 0.5
"""Probability with which `half` shows an image as another scanner might have recorded it."""


def losses(model: Medformer, batch: Batch, generator: torch.Generator, weight: float) -> Tensor:
    """Return the supervised losses of images whose acquisition is drawn anew in every step, (B,).

    It replaces `supervised`, or shares the weight with it. Masks of dense tasks stay as they are,
    because no pixel moves.

    Args:
        model, batch, generator, weight: As for every objective (`mix.LossPerExample`).

    Source: Tobin et al. 2017, arXiv:1703.06907 (domain randomisation).
    """
    shown = standardise(rescan(batch.images, generator))
    return supervised_losses(model, replace(batch, images=shown), generator, weight)


def half(model: Medformer, batch: Batch, generator: torch.Generator, weight: float) -> Tensor:
    """Return the supervised losses of images of which a coin each decides how it is shown, (B,).

    An image is shown as it is, or with an acquisition drawn anew, as in `losses`. It replaces
    `supervised`: one pass does the work of `supervised` and `rescanned` together, and the accuracy
    on the scanners at hand is kept (docs/experiments/, section 45).

    Args:
        model, batch, generator, weight: As for every objective (`mix.LossPerExample`).
    """
    again = standardise(rescan(batch.images, generator))
    coins = torch.rand(len(batch), generator=generator).view(-1, *[1] * (again.ndim - 1))
    shown = torch.where(coins < SHARE, again, batch.images)
    return supervised_losses(model, replace(batch, images=shown), generator, weight)
