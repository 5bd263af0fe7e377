"""Domain-adversarial: make the domain of an image hard to guess from its features."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from medformer.model import Medformer
from medformer.objectives.batch import Batch
from medformer.objectives.idle import refuse_idle


class _Reverse(torch.autograd.Function):
    """Passes values on unchanged, and gradients times -lambda."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None


def losses(model: Medformer, batch: Batch, generator: torch.Generator, weight: float) -> Tensor:
    """Return the cross-entropy of the domain guess for each image, (B,); `weight` is the lambda.

    A site sees only its domain: over more than one local step, its discriminator would learn a
    constant. The schedule therefore allows one local step a round in such phases.

    Args:
        model, batch, generator, weight: As for every objective (`mix.LossPerExample`).
    Raises:
        ConfigError: The batch's domain is not one of the model's, or is the only one.

    Source: Ganin et al. 2016, arXiv:1505.07818.
    """
    refuse_idle(model.config, batch.domain, list(batch.labels), {"domain_adversarial": weight})
    features = model.tokens(batch.images, batch.domain, spacing=batch.spacing).mean(1)
    # The discriminator learns to tell domains apart; the reversed gradient teaches the encoder not
    # to let it.
    guess = model.discriminator(_Reverse.apply(features, weight))
    truth = torch.full((len(batch),), model.config.domains.index(batch.domain.name))
    return F.cross_entropy(guess, truth, reduction="none")
