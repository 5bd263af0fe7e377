"""Dense contrast within one image (after Wang et al. 2021, arXiv:2011.09157).

Two views of the same image; positives are the same place in both, negatives are the other places
of the SAME image. InfoNCE over a batch would mix private records and is not offered.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from medformer.model import Medformer
    from medformer.objectives import Batch

TEMPERATURE = 0.2


def losses(model: "Medformer", batch: "Batch", generator: torch.Generator, weight: float) -> Tensor:
    """InfoNCE over the places of each image, (B,), averaged over both directions.

    The second view is mirrored along every spatial axis, so that positions alone cannot tell
    which tokens belong together, and both are changed in contrast, brightness and noise.
    """
    axes = tuple(range(2, batch.images.ndim))
    first = _photometric(batch.images, generator)
    second = _photometric(batch.images, generator).flip(axes)
    a = F.normalize(
        model.pretext.projector(model.tokens(first, batch.domain, spacing=batch.spacing)), dim=-1
    )
    b = F.normalize(
        model.pretext.projector(model.tokens(second, batch.domain, spacing=batch.spacing)), dim=-1
    )
    similar = a @ b.flip(1).transpose(1, 2) / TEMPERATURE  # a flip of all axes reverses the tokens
    same_place = similar.diagonal(dim1=1, dim2=2)
    forward = similar.logsumexp(2) - same_place
    backward = similar.logsumexp(1) - same_place
    return weight * (forward + backward).mean(1) / 2


def _photometric(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random contrast, brightness and noise, one draw an image."""
    shape = (len(images), *[1] * (images.ndim - 1))
    contrast = 0.7 + 0.6 * torch.rand(shape, generator=generator)
    brightness = 0.3 * torch.randn(shape, generator=generator)
    noise = 0.2 * torch.randn(images.shape, generator=generator)
    return images * contrast + brightness + noise
