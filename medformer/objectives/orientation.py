"""How an image was mirrored and turned (after Gidaris et al. 2018, arXiv:1803.07728).

Class = turn * 2**rank + mirrors. Bit a of `mirrors` mirrors spatial axis a; `turn` then rotates the
order of the axes: of a volume, which of its axes is depth; of an image, its transpose. For images
these 8 classes are all rotations by 90 degrees with and without a mirror. The axes keep their order
(4 classes, 8 of a volume) where a side or the distance between pixels differs among them, because
the shape, or the distances that the model is told, would give the answer away.

The sine-cosine positions are what makes an orientation visible at all. A site that mirrors its
images (`flip`) cannot do better than guess that one bit.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from medformer.model import Medformer
    from medformer.objectives import Batch


def losses(model: "Medformer", batch: "Batch", generator: torch.Generator, weight: float) -> Tensor:
    """Cross-entropy of the class, drawn for each image, (B,)."""
    rank = batch.domain.rank
    possible = _turns(batch) * 2**rank
    classes = (torch.rand(len(batch), generator=generator) * possible).long()
    shown = oriented(batch.images, classes)
    features = model.tokens(shown, batch.domain, spacing=batch.spacing).mean(1)
    answers = model.pretext.orientation[f"{rank}d"](features)
    impossible = torch.arange(answers.shape[1]) >= possible[:, None]
    guess = answers.masked_fill(impossible, -torch.inf)
    return weight * F.cross_entropy(guess, classes, reduction="none")


def oriented(images: Tensor, classes: Tensor) -> Tensor:
    """Mirror and turn each image (B, C, *spatial) as its class, (B,) int64, says."""
    rank = images.ndim - 2
    mirrors, turns = (
        v.view(-1, *[1] * (rank + 1)) for v in (classes % 2**rank, classes // 2**rank)
    )
    for axis in range(rank):
        images = torch.where((mirrors >> axis) % 2 == 1, images.flip(2 + axis), images)
    if not _cube(images):
        return images
    upright = images
    for turn in range(1, rank):
        order = [2 + (axis + turn) % rank for axis in range(rank)]
        images = torch.where(turns == turn, upright.permute(0, 1, *order), images)
    return images


def _turns(batch: "Batch") -> Tensor:
    """Orders of the axes that each image may be shown in, (B,)."""
    spacing = batch.spacing
    if spacing is None:
        spacing = torch.tensor([batch.domain.spacing or [1.0] * batch.domain.rank])
    alike = (spacing == spacing[:, :1]).all(1).expand(len(batch)) & _cube(batch.images)
    return torch.where(alike, batch.domain.rank, 1)


def _cube(images: Tensor) -> bool:
    return len(set(images.shape[2:])) == 1
