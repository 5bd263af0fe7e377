"""Rescanned: learn the labels from images as another scanner might have recorded them."""

from dataclasses import replace

import torch
from torch import Tensor

from medformer.degradations import rescan
from medformer.images import standardise
from medformer.model import Medformer
from medformer.objectives.batch import Batch
from medformer.objectives.supervised import losses as supervised_losses


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
