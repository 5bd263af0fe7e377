"""Sides of images on their way into the model: reduced to a maximum, then padded to a multiple.

Nothing is cut off. Padding repeats the nearest pixel of the image; in a mask it is unlabelled, so
that no loss and no metric counts it. C channels, *spatial is (H, W) or (D, H, W).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from client.data.errors import Unusable
from medformer.config import UNLABELLED
from medformer.images import SIDES

MIN_REDUCED = 32
"""Voxels below which no side of a volume is reduced, unless `max_side` is smaller: scans have fewer
slices than rows."""


@dataclass(frozen=True)
class Fit:
    """The sides of an image: as stored, after reduction, and as read by the model."""

    stored: tuple[int, ...]
    reduced: tuple[int, ...]
    read: tuple[int, ...]
    """Sides as the model sees them: `reduced` and its padding."""

    @property
    def padding(self) -> float:
        """Share of the pixels seen by the model that no file holds, 0 to 1."""
        return 1 - math.prod(self.reduced) / math.prod(self.read)


def fit(sides: tuple[int, ...], max_side: int, multiple: int) -> Fit:
    """Return the sides to which an image is reduced and padded.

    Args:
        sides: (H, W) or (D, H, W) pixels.
        max_side: Maximum side in pixels; a longer image is reduced, keeping its aspect.
        multiple: Sides become multiples of it, so that not every image has a shape of its own and
            images can share a batch; a shorter side stays as it is.
    Raises:
        Unusable: Fewer pixels are left than the model can read.
    """
    smallest, longest = SIDES[len(sides)]
    longest = min(longest, max_side)
    # Padding comes last and must not exceed the maximum again.
    longest -= longest % multiple if longest >= multiple else 0
    factor = min(1.0, longest / max(sides))
    # A scan of 512 x 512 x 40 reduced by its longest side would have 10 slices left.
    kept = min(MIN_REDUCED, longest) if len(sides) == 3 else 1
    reduced = tuple(max(min(kept, side), round(side * factor)) for side in sides)
    if min(reduced) < smallest:
        sizes = " x ".join(map(str, sides))
        come = "" if reduced == sides else f" come to {' x '.join(map(str, reduced))}"
        what = "pixels" if len(sides) == 2 else "values"
        raise Unusable(f"{sizes} {what}{come}, fewer than {smallest} a side")
    # A side below the multiple stays: padding it would repeat more than the image holds.
    read = tuple(side + -side % multiple if side >= multiple else side for side in reduced)
    return Fit(sides, reduced, read)


def padded(image: Tensor, fit: Fit) -> Tensor:
    """Pad an image by repeating its outermost pixels; it stays in the middle.

    Args:
        image: (C, *reduced).
        fit: The sides.
    Returns:
        (C, *read).
    """
    for axis, (before, side) in enumerate(_margins(fit), start=1):
        new = fit.read[axis - 1]
        if new != side:
            # Indexing repeats the edge along one axis at a time, whatever the rank.
            image = image.index_select(axis, (torch.arange(new) - before).clamp(0, side - 1))
    return image.contiguous()


def padded_mask(mask: Tensor, fit: Fit) -> Tensor:
    """Pad a mask with `UNLABELLED`, because nobody has labelled what no file holds.

    Args:
        mask: (*reduced) int64.
        fit: The sides.
    Returns:
        (*read) int64.
    """
    margins: list[int] = []
    for (before, side), new in zip(_margins(fit), fit.read, strict=True):
        margins = [before, new - side - before, *margins]  # F.pad begins with the last axis
    return F.pad(mask, margins, value=UNLABELLED)


def _margins(fit: Fit) -> list[tuple[int, int]]:
    """Return for each axis the padding before it and the reduced side."""
    return [((new - side) // 2, side) for side, new in zip(fit.reduced, fit.read, strict=True)]
