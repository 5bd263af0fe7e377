"""Cross-scale: match the tokens of an image at half its size with those at full size.

Positives are the same place at both scales, negatives the other places of the SAME image, as in
contrastive.py. The smaller image costs 2**rank times less than a second view of full size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from medformer.images import standardise
from medformer.model import Medformer
from medformer.objectives.batch import Batch
from medformer.objectives.contrastive import same_places
from medformer.objectives.inpainting import grid_of

POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}


def losses(model: Medformer, batch: Batch, generator: torch.Generator, weight: float) -> Tensor:
    """Return InfoNCE over the places of the smaller image, (B,); 0 where it has only one token.

    The smaller image is mirrored along every axis, so that positions alone cannot tell which
    tokens belong together. One of its tokens covers 2**rank tokens of the full image: their mean.

    Args:
        model, batch, generator, weight: As for every objective (`mix.LossPerExample`).

    Source: Wang et al. 2021, arXiv:2011.09157 (dense contrast), here between two scales.
    """
    images, rank = batch.images, batch.domain.rank
    # Standardised like every image, because averaging lowers the contrast.
    half = standardise(_halved(images, rank)).flip(tuple(range(2, 2 + rank)))
    full = model.tokens(images, batch.domain, spacing=batch.spacing)
    small = model.tokens(half, batch.domain, spacing=batch.spacing).flip(1)
    grid = grid_of(images, model.patch(batch.domain))
    # The mean of the tokens that a token of the smaller image covers.
    means = _halved(full.transpose(1, 2).unflatten(2, grid), rank).flatten(2).transpose(1, 2)
    return weight * same_places(model, small, means, generator)


def _halved(images: Tensor, rank: int) -> Tensor:
    """Halve every axis of (B, C, *spatial), rounded up; at the edges over the pixels there are."""
    halved: Tensor = POOL[rank](images, 2, ceil_mode=True)
    return halved
