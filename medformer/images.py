"""Images before they meet the model: checked, standardised, moved.

Letters: B images, C channels, T outputs of a task; `*spatial` is (H, W) or (D, H, W).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from torch import Tensor

from medformer.common.yaml_file import explain
from medformer.config import MAX_VOLUME_SIDE, UNKNOWN, Domain
from medformer.errors import ConfigError, ShapeError

Pixels = Tensor | npt.NDArray[np.generic]
SIDES = {2: (16, 512), 3: (16, MAX_VOLUME_SIDE)}
"""Spatial dimensions -> smallest and largest side of the images, pixels."""


def as_images(images: Pixels) -> Tensor:
    """Check raw images and return them as a tensor that the model can read.

    Args:
        images: (B, C, H, W) or (B, C, D, H, W), uint8 or floating point, any range, finite.
    Raises:
        ShapeError: Another rank, type or size, no image at all, or NaN and infinite pixels.
    """
    if not isinstance(images, Tensor):
        # Integers of other widths are often labels or raw counts: the caller has to decide.
        if images.dtype.kind not in "uf":
            raise ShapeError(f"images must be uint8 or floating point, got {images.dtype}")
        images = torch.from_numpy(np.ascontiguousarray(images))
    if images.ndim not in (4, 5):
        raise ShapeError(
            f"images must be (B, C, H, W) or (B, C, D, H, W), got {tuple(images.shape)}. "
            "For one image, pass images[None]; for grey images without channels, images[:, None]."
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ShapeError(f"images must be uint8 or floating point, got {images.dtype}")
    rank = images.ndim - 2
    low, high = SIDES[rank]
    # Smaller images have too few tokens, larger ones too many.
    if not len(images) or not all(low <= n <= high for n in images.shape[2:]):
        raise ShapeError(
            f"{rank}D images must have {low} to {high} pixels a side and be at least one, "
            f"got {tuple(images.shape)}. Crop or resample them first."
        )
    # A NaN would reach every token of its image silently.
    if not images.isfinite().all():
        raise ShapeError(f"{int((~images.isfinite()).sum())} pixels are NaN or infinite")
    return images


def domain_of(
    images: Tensor,
    modality: str = UNKNOWN,
    anatomy: str = UNKNOWN,
    spacing: Sequence[float] | None = None,
) -> Domain:
    """Return a domain for images that no site declares.

    Args:
        images: (B, C, *spatial).
        modality, anatomy: Words of the model's vocabulary, or `unknown`.
        spacing: Distance between pixels along each axis, in any unit; equal if None.
    Raises:
        ConfigError: Not one positive distance for each axis, or more channels than any model has.
    """
    rank = images.ndim - 2
    try:
        return Domain(
            name="these",
            modality=modality,
            anatomy=anatomy,
            channels=images.shape[1],
            rank=rank,  # type: ignore[arg-type]
            size=round(math.prod(images.shape[2:]) ** (1 / rank)),
            spacing=None if spacing is None else tuple(spacing),
        )
    except ValidationError as error:
        raise ConfigError(f"these images: {explain(error, Domain)}") from error


def standardise(images: Tensor) -> Tensor:
    """Give every image mean 0 and standard deviation 1.

    Args:
        images: (B, C, *spatial), uint8 or floating point, finite.
    Returns:
        (B, C, *spatial) float32. Each image depends only on itself; a constant image becomes
        exactly 0, whatever its value.
    Raises:
        ShapeError: Fewer than 4 dimensions.
    """
    if images.ndim < 4:
        raise ShapeError(
            f"images must be (B, C, H, W) or (B, C, D, H, W), got {tuple(images.shape)}. "
            "For one image, pass images.unsqueeze(0)."
        )
    values = images.float()
    dims = tuple(range(1, values.ndim))
    # In float32, the mean of equal values is not exactly that value, and the small rest would be
    # divided by almost 0. In float64 the sum of 2^29 equal float32 values is exact, and their mean.
    precise = values.double()
    centred = (precise - precise.mean(dims, keepdim=True)).float()
    scale = centred.square().mean(dims, keepdim=True).sqrt()
    return centred / (scale + 1e-5 * (1 + values.abs().amax(dims, keepdim=True)))


SHIFT = 2
"""Largest shift of an image along each axis, pixels."""


@dataclass(frozen=True)
class Move:
    """A shift along every axis and a mirror, for images and their masks.

    It holds one move for each image, or (B = 1) one for all.
    """

    shifts: Tensor
    """(rank, B), in pixels."""
    mirrored: Tensor
    """(B,) bool, whether the last axis is mirrored."""

    @classmethod
    def draw(
        cls, count: int, rank: int, generator: torch.Generator, *, shift: int = SHIFT, flip: bool
    ) -> "Move":
        """Draw moves without looking at a pixel.

        Args:
            count: B.
            rank: Spatial dimensions.
            generator: Source of the draws.
            shift: Largest shift along each axis, pixels.
            flip: Mirror half of the images.
        """
        shifts = torch.randint(-shift, shift + 1, (rank, count), generator=generator)
        mirrored = torch.rand(count, generator=generator) < (0.5 if flip else 0.0)
        return cls(shifts, mirrored)

    def __getitem__(self, rows: slice) -> "Move":
        """Return the moves of some of the images."""
        return Move(self.shifts[:, rows], self.mirrored[rows])

    def __call__(self, images: Tensor) -> Tensor:
        """Move images, (B, ..., *spatial) -> the same shape; edges are repeated, not wrapped."""
        first = images.ndim - len(self.shifts)
        for axis, shift in enumerate(self.shifts, start=first):
            size = images.shape[axis]
            # Clamped: what is moved in from outside repeats the edge.
            places = (torch.arange(size) + shift[:, None]).clamp(0, size - 1)
            # Only the last axis is mirrored: it is left and right in nearly all images.
            if axis == images.ndim - 1:
                places = torch.where(self.mirrored[:, None], places.flip(1), places)
            shape = [len(places), *[1] * (images.ndim - 1)]
            shape[axis] = size
            images = images.gather(axis, places.view(shape).expand_as(images))
        return images


def over_views(logits: Callable[[Tensor], Tensor], images: Tensor, *, flip: bool = False) -> Tensor:
    """Return the mean logits over several views of each raw image, (B, C, *spatial) -> (B, T).

    The views are moved as in training. Averaging them improves answers and costs no privacy
    (docs/experiments/, section 25).

    Args:
        logits: Answers one view, standardised (B, C, *spatial) -> (B, T).
        images: (B, C, *spatial), raw.
        flip: Also use mirror images; only where the labels are left-right invariant.
    """
    # The same for all images, so that an image is answered alone as among others.
    moves = _moves(images.ndim - 2, flip)
    return torch.stack([logits(standardise(move(images))) for move in moves]).mean(0)


def _moves(rank: int, flip: bool) -> Iterator[Move]:
    """Yield moves in which each shift of training occurs once along every axis; one is no shift.

    Their shifts form a lattice (Korobov 1959), which covers the square, or cube, of all shifts as
    evenly as so few points can.
    """
    sides = 2 * SHIFT + 1
    for step in range(-SHIFT, SHIFT + 1):
        shifts = [(2**axis * step + SHIFT) % sides - SHIFT for axis in range(rank)]
        for mirrored in (False, True)[: 1 + flip]:
            yield Move(torch.tensor(shifts)[:, None], torch.tensor([mirrored]))


def shift_and_flip(
    images: Tensor, generator: torch.Generator, *, shift: int = SHIFT, flip: bool = False
) -> Tensor:
    """Move each image at random, (B, C, *spatial) -> the same shape.

    Args:
        images: (B, C, *spatial).
        generator: Draws, for each image, a shift along each axis and a mirror; sees no pixel.
        shift: Largest shift, pixels.
        flip: Mirror half of them along the last axis; only where the labels are left-right
            invariant.
    """
    move = Move.draw(len(images), images.ndim - 2, generator, shift=shift, flip=flip)
    return move(images)
