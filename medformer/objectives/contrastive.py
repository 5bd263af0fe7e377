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
MOST_PLACES = 256
"""Places of an image that are contrasted; a random choice where there are more, so that memory
grows linearly with the tokens."""


def losses(model: "Medformer", batch: "Batch", generator: torch.Generator, weight: float) -> Tensor:
    """InfoNCE over the places of each image, (B,), averaged over both directions.

    The second view is mirrored along every spatial axis, so that positions alone cannot tell
    which tokens belong together, and both are changed in contrast, brightness and noise.
    """
    axes = tuple(range(2, batch.images.ndim))
    first = _photometric(batch.images, generator)
    second = _photometric(batch.images, generator).flip(axes)
    a = model.tokens(first, batch.domain, spacing=batch.spacing)
    b = model.tokens(second, batch.domain, spacing=batch.spacing)
    return weight * same_places(model, a, b.flip(1), generator)  # all axes: the tokens reversed


def same_places(
    model: "Medformer", first: Tensor, second: Tensor, generator: torch.Generator
) -> Tensor:
    """InfoNCE between tokens (B, N, D) of the same N places, both directions averaged, (B,)."""
    count, places = first.shape[:2]
    if places > MOST_PLACES:
        order = torch.rand(count, places, generator=generator).argsort(1)
        chosen = order[:, :MOST_PLACES, None].expand(-1, -1, first.shape[2])
        first, second = first.gather(1, chosen), second.gather(1, chosen)
    a = F.normalize(model.pretext.projector(first), dim=-1)
    b = F.normalize(model.pretext.projector(second), dim=-1)
    similar = a @ b.transpose(1, 2) / TEMPERATURE
    same_place = similar.diagonal(dim1=1, dim2=2)
    forward = similar.logsumexp(2) - same_place
    backward = similar.logsumexp(1) - same_place
    return (forward + backward).mean(1) / 2


def _photometric(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random contrast, brightness and noise, one draw an image."""
    shape = (len(images), *[1] * (images.ndim - 1))
    contrast = 0.7 + 0.6 * torch.rand(shape, generator=generator)
    brightness = 0.3 * torch.randn(shape, generator=generator)
    noise = 0.2 * torch.randn(images.shape, generator=generator)
    return images * contrast + brightness + noise
