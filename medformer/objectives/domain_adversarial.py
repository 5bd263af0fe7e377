"""Domain-adversarial adaptation (Ganin et al. 2016, arXiv:1505.07818)."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from medformer.errors import ConfigError

if TYPE_CHECKING:
    from medformer.model import Medformer
    from medformer.objectives import Batch


class _Reverse(torch.autograd.Function):
    """Identity forward, gradient times -lambda backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None


def losses(model: "Medformer", batch: "Batch", generator: torch.Generator, weight: float) -> Tensor:
    """Cross-entropy of the domain guess for each image, (B,); `weight` is the lambda.

    A site sees its own domain only: used for more than one local step, its discriminator would
    learn a constant. The schedule therefore allows one local step a round in such phases.
    """
    if batch.domain.name not in model.config.domains:
        raise ConfigError(
            f"domain {batch.domain.name!r} is not on the public list {model.config.domains}"
        )
    features = model.tokens(batch.images, batch.domain, spacing=batch.spacing).mean(1)
    guess = model.discriminator(_Reverse.apply(features, weight))
    own = torch.full((len(batch),), model.config.domains.index(batch.domain.name))
    return F.cross_entropy(guess, own, reduction="none")
