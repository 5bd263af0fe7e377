"""Which acquisition fault was put on the image, and how strongly."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from medformer.degradations import DEGRADATIONS, degrade
from medformer.images import standardise

if TYPE_CHECKING:
    from medformer.model import Medformer
    from medformer.objectives import Batch

WEAKEST = 0.2
"""Least strength of a fault: weaker ones can hardly be told from none."""


def losses(model: "Medformer", batch: "Batch", generator: torch.Generator, weight: float) -> Tensor:
    """Cross-entropy of the kind, none among them, plus the squared error of the strength, (B,).

    The image is standardised again after the fault, so that mean and scale tell nothing.
    """
    count = len(batch)
    kinds = (torch.rand(count, generator=generator) * (1 + len(DEGRADATIONS))).long()
    strength = WEAKEST + (1 - WEAKEST) * torch.rand(count, generator=generator)
    strength = torch.where(kinds == 0, 0.0, strength)
    shown = standardise(degrade(batch.images, kinds, strength, generator))
    features = model.tokens(shown, batch.domain, spacing=batch.spacing).mean(1)
    answers = model.pretext.degradation(features)
    kind = F.cross_entropy(answers[:, :-1], kinds, reduction="none")
    return weight * (kind + (answers[:, -1].sigmoid() - strength).square())
