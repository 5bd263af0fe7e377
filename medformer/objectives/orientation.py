"""Orientation: recognise how an image was mirrored and turned.

Class = turn * 2**rank + mirrors. Bit a of `mirrors` mirrors spatial axis a; `turn` then rotates the
order of the axes: it transposes an image, and chooses which axis of a volume is depth. For images
these 8 classes are all rotations by 90 degrees with and without a mirror. The axes keep their order
(4 classes, 8 for a volume) where sides or distances between pixels differ, because the shape, or
the spacing that the model is given, would give the answer away.

Only the sine-cosine positions make an orientation visible. At a site that mirrors its images at
random (`flip`), the bit of that mirror can only be guessed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from medformer.model import Medformer
from medformer.objectives.batch import Batch


def losses(model: Medformer, batch: Batch, generator: torch.Generator, weight: float) -> Tensor:
    """Return the cross-entropy of an orientation drawn for each image, (B,).

    Args:
        model, batch, generator, weight: As for every objective (`mix.LossPerExample`).

    Source: Gidaris et al. 2018, arXiv:1803.07728.
    """
    rank = batch.domain.rank
    possible = _turns(batch) * 2**rank
    classes = (torch.rand(len(batch), generator=generator) * possible).long()
    shown = oriented(batch.images, classes)
    features = model.tokens(shown, batch.domain, spacing=batch.spacing).mean(1)
    answers = model.pretext.orientation[f"{rank}d"](features)
    impossible = torch.arange(answers.shape[1]) >= possible[:, None]
    # Classes that the image cannot have are no mistake of the model.
    guess = answers.masked_fill(impossible, -torch.inf)
    return weight * F.cross_entropy(guess, classes, reduction="none")


def oriented(images: Tensor, classes: Tensor) -> Tensor:
    """Mirror and turn each image by its class, (B, C, *spatial) -> the same shape.

    Args:
        images: (B, C, *spatial).
        classes: (B,) int64, as the head of this file defines them.
    """
    rank = images.ndim - 2
    mirrors, turns = (
        v.view(-1, *[1] * (rank + 1)) for v in (classes % 2**rank, classes // 2**rank)
    )
    for axis in range(rank):
        images = torch.where((mirrors >> axis) % 2 == 1, images.flip(2 + axis), images)
    # A turn would change the shape, and give the answer away.
    if not _cube(images):
        return images
    # Turns start from the mirrored image, not from an earlier turn.
    upright = images
    for turn in range(1, rank):
        order = [2 + (axis + turn) % rank for axis in range(rank)]
        images = torch.where(turns == turn, upright.permute(0, 1, *order), images)
    return images


def _turns(batch: Batch) -> Tensor:
    """Count the orders of the axes in which each image can be shown, (B,)."""
    spacing = batch.spacing
    if spacing is None:
        spacing = torch.tensor([batch.domain.spacing or [1.0] * batch.domain.rank])
    alike = (spacing == spacing[:, :1]).all(1).expand(len(batch)) & _cube(batch.images)
    return torch.where(alike, batch.domain.rank, 1)


def _cube(images: Tensor) -> bool:
    """Return whether all sides of the images are equal."""
    return len(set(images.shape[2:])) == 1
