"""Contrastive: tell the places of one image apart, across two views of it.

Positives are the same place in both views, negatives are the other places of the SAME image.
InfoNCE over a batch would mix private records and is not offered.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from medformer.model import Medformer
from medformer.objectives.batch import Batch

TEMPERATURE = 0.2
"""Divides cosine similarities; no unit."""
MAX_PLACES = 256
"""Places of an image that are contrasted; a random choice where there are more, so that memory
grows linearly with the tokens."""


def losses(model: Medformer, batch: Batch, generator: torch.Generator, weight: float) -> Tensor:
    """Return InfoNCE over the places of each image, (B,), averaged over both directions.

    The second view is mirrored along every spatial axis, so that positions alone cannot tell
    which tokens belong together, and both are changed in contrast, brightness and noise.

    Args:
        model, batch, generator, weight: As for every objective (`mix.LossPerExample`).

    Source: Wang et al. 2021, arXiv:2011.09157 (dense contrast; there with negatives from others).
    """
    axes = tuple(range(2, batch.images.ndim))
    first = _photometric(batch.images, generator)
    second = _photometric(batch.images, generator).flip(axes)
    a = model.tokens(first, batch.domain, spacing=batch.spacing)
    b = model.tokens(second, batch.domain, spacing=batch.spacing)
    # To mirror along every axis is to reverse the order of the tokens.
    return weight * same_places(model, a, b.flip(1), generator)


def same_places(
    model: Medformer, first: Tensor, second: Tensor, generator: torch.Generator
) -> Tensor:
    """Return InfoNCE between tokens of the same places, averaged over both directions, (B,).

    Args:
        model: Its `pretext.projector` is used.
        first, second: (B, N, D); the tokens at n show the same place.
        generator: Chooses places where there are more than `MAX_PLACES`.

    Source: van den Oord et al. 2018, arXiv:1807.03748 (InfoNCE).
    """
    count, places = first.shape[:2]
    if places > MAX_PLACES:
        # Scores of all places would grow with the square of their number.
        order = torch.rand(count, places, generator=generator).argsort(1)
        chosen = order[:, :MAX_PLACES, None].expand(-1, -1, first.shape[2])
        first, second = first.gather(1, chosen), second.gather(1, chosen)
    # Cosine similarity: lengths carry no information about places.
    a = F.normalize(model.pretext.projector(first), dim=-1)
    b = F.normalize(model.pretext.projector(second), dim=-1)
    similar = a @ b.transpose(1, 2) / TEMPERATURE
    same_place = similar.diagonal(dim1=1, dim2=2)
    forward = similar.logsumexp(2) - same_place
    backward = similar.logsumexp(1) - same_place
    return (forward + backward).mean(1) / 2


def _photometric(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change contrast, brightness and noise at random, by one draw for each image."""
    shape = (len(images), *[1] * (images.ndim - 1))
    contrast = 0.7 + 0.6 * torch.rand(shape, generator=generator)
    brightness = 0.3 * torch.randn(shape, generator=generator)
    noise = 0.2 * torch.randn(images.shape, generator=generator)
    return images * contrast + brightness + noise
