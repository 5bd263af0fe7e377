"""Sides of images on their way into the model: reduced to a largest side, padded to a multiple.

Nothing is cut off. What is padded repeats the nearest pixel of the image; in a mask it is
unlabelled, so that no loss and no measure sees it. C channels, *spatial is (H, W) or (D, H, W).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from client.data.errors import Unusable
from medformer.config import UNLABELLED
from medformer.images import SIDES

KEPT = 32
"""Voxels below which no side of a volume is reduced if `max_side` is no smaller: scans have
fewer slices than rows."""


@dataclass(frozen=True)
class Fit:
    """What becomes of an image's sides."""

    stored: tuple[int, ...]
    reduced: tuple[int, ...]
    read: tuple[int, ...]
    """As the model sees it: `reduced` and its padding."""

    @property
    def padding(self) -> float:
        """Share of the pixels that the model sees and no file holds."""
        return 1 - math.prod(self.reduced) / math.prod(self.read)


def fit(sides: tuple[int, ...], max_side: int, multiple: int) -> Fit:
    """How an image of these sides is read.

    Args:
        sides: (H, W) or (D, H, W).
        max_side: Largest side that is read; a longer image is reduced, keeping its aspect.
        multiple: Sides become multiples of it, so that not every image has a shape of its own; a
            shorter side stays as it is.
    Raises:
        Unusable: Less is left than the model can read.
    """
    least, most = SIDES[len(sides)]
    most = min(most, max_side)
    most -= most % multiple if most >= multiple else 0
    factor = min(1.0, most / max(sides))
    kept = min(KEPT, most) if len(sides) == 3 else 1
    reduced = tuple(max(min(kept, side), round(side * factor)) for side in sides)
    if min(reduced) < least:
        sizes = " x ".join(map(str, sides))
        come = "" if reduced == sides else f" come to {' x '.join(map(str, reduced))}"
        what = "pixels" if len(sides) == 2 else "values"
        raise Unusable(f"{sizes} {what}{come}, fewer than {least} a side")
    read = tuple(side + -side % multiple if side >= multiple else side for side in reduced)
    return Fit(sides, reduced, read)


def padded(image: Tensor, fit: Fit) -> Tensor:
    """(C, *reduced) -> (C, *read); the image stays in the middle."""
    for axis, (before, side) in enumerate(_margins(fit), start=1):
        new = fit.read[axis - 1]
        if new != side:
            image = image.index_select(axis, (torch.arange(new) - before).clamp(0, side - 1))
    return image.contiguous()


def padded_mask(mask: Tensor, fit: Fit) -> Tensor:
    """(*reduced) int64 -> (*read), unlabelled where the image is padded."""
    margins: list[int] = []
    for (before, side), new in zip(_margins(fit), fit.read, strict=True):
        margins = [before, new - side - before, *margins]  # F.pad begins with the last axis
    return F.pad(mask, margins, value=UNLABELLED)


def _margins(fit: Fit) -> list[tuple[int, int]]:
    """Of each axis, what is padded before it, and its side."""
    return [((new - side) // 2, side) for side, new in zip(fit.reduced, fit.read, strict=True)]
