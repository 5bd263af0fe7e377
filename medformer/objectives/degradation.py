"""Degradation: recognise which acquisition fault an image was given, and how strong it is."""

import torch
import torch.nn.functional as F
from torch import Tensor

from medformer.degradations import DEGRADATIONS, degrade
from medformer.images import standardise
from medformer.model import Medformer
from medformer.objectives.batch import Batch

MIN_STRENGTH = 0.2
"""Weaker faults can hardly be told from none."""


def losses(model: Medformer, batch: Batch, generator: torch.Generator, weight: float) -> Tensor:
    """Return the cross-entropy of the kind plus the squared error of the strength, (B,).

    `None` is one of the kinds, with strength 0.

    Args:
        model, batch, generator, weight: As for every objective (`mix.LossPerExample`).
    """
    count = len(batch)
    kinds = (torch.rand(count, generator=generator) * (1 + len(DEGRADATIONS))).long()
    strength = MIN_STRENGTH + (1 - MIN_STRENGTH) * torch.rand(count, generator=generator)
    # No fault has no strength, and the model has to say so.
    strength = torch.where(kinds == 0, 0.0, strength)
    # Standardised again after the fault, so that mean and scale do not give the answer away.
    shown = standardise(degrade(batch.images, kinds, strength, generator))
    features = model.tokens(shown, batch.domain, spacing=batch.spacing).mean(1)
    answers = model.pretext.degradation(features)
    kind = F.cross_entropy(answers[:, :-1], kinds, reduction="none")
    return weight * (kind + (answers[:, -1].sigmoid() - strength).square())
