"""The kind of image that an export is made for, and images of that kind to check it with.

Letters: B images, C channels; `*spatial` is (H, W) or (D, H, W).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medformer.config import UNKNOWN, stem_kind
from medformer.errors import ConfigError
from medformer.images import SIDES
from medformer.model import Medformer


@dataclass(frozen=True)
class View:
    """The kind of image, and the question, that an export is made for."""

    stem: str
    """Stem that reads the images, such as `2d-1`."""
    size: tuple[int, ...]
    """*spatial, pixels."""
    task: str | None = None
    """Answer with the probabilities of this task's classes; with encoded tokens if None."""
    modality: str = UNKNOWN
    """Modality of the images."""
    anatomy: str = UNKNOWN
    """Anatomy that the images show."""
    flip: bool = False
    """True if labels do not depend on left and right; answers then average over mirror images."""

    @property
    def images_shape(self) -> tuple[int, ...]:
        """(C, *spatial)."""
        return (stem_kind(self.stem)[1], *self.size)

    def images(self, count: int, generator: torch.Generator) -> Tensor:
        """Return random raw images, (B, C, *spatial), in [0, 255].

        Args:
            count: B.
            generator: Source of the draws.
        """
        return 255 * torch.rand((count, *self.images_shape), generator=generator)

    def flat(self) -> Tensor:
        """Return constant images: extremes of uint8, and values that float32 sums do not keep."""
        values = torch.tensor([0.0, 0.1, 37.0, 255.0, -1024.3, 1e6])
        return values.view(-1, *[1] * (len(self.size) + 1)).expand(-1, *self.images_shape).clone()

    def difficult(self, generator: torch.Generator) -> Tensor:
        """Return images as scanners make them, (B, C, *spatial).

        They have black borders, one bright pixel or a dim one in a corner, only black and white,
        little contrast far from zero, very small and very large values.

        Args:
            generator: Source of the noise in them.
        """
        noise = self.images(1, generator)[0]
        inner, bright, corner = (torch.zeros_like(noise) for _ in range(3))
        box: tuple[Any, ...] = (..., *[slice(n // 4, n - n // 4) for n in self.size])
        middle: tuple[Any, ...] = (..., *[n // 2 for n in self.size])
        inner[box], bright[middle] = 1, 255
        corner.view(len(corner), -1)[:, 0] = 1
        saturated = 255.0 * (noise > 127)
        faint = 3000 + noise / 100
        kinds = [noise * inner, bright, corner, saturated, faint, noise / 1e6, noise * 1e6]
        return torch.stack(kinds)


def view_of(
    model: Medformer,
    size: Sequence[int] = (28,),
    *,
    stem: str | None = None,
    task: str | None = None,
    modality: str = UNKNOWN,
    anatomy: str = UNKNOWN,
    flip: bool = False,
) -> View:
    """Return the view that a model is to be exported for.

    Args:
        model: The model to export.
        size: Pixels, one number for all axes or one for each.
        stem: Stem that reads the images; if None, the only one that the model has for this rank.
        task: Task to answer; tokens if None.
        modality, anatomy: Words of the model's vocabulary, or `unknown`.
        flip: Whether labels do not depend on left and right.
    Raises:
        ConfigError: The model does not know a name, the size does not fit, or several stems do.
    """
    stem = _only_stem(model, size) if stem is None else stem
    for name, what, names in (
        (stem, "stem", model.config.stems),
        (modality, "modality", (UNKNOWN, *model.config.modalities)),
        (anatomy, "anatomy", (UNKNOWN, *model.config.anatomies)),
        (task, "task", (None, *model.tasks)),
    ):
        if name not in names:
            some = ", ".join(n for n in names if n) or "none"
            raise ConfigError(f"this model knows no {what} {name!r}; it knows {some}")
    return View(stem, _sides(stem, size), task, modality, anatomy, flip)


def _only_stem(model: Medformer, size: Sequence[int]) -> str:
    """Return the model's only stem for images of as many axes as there are sizes."""
    ranks = {len(size)} if len(size) > 1 else {2, 3}  # one size leaves the rank open
    fitting = [stem for stem in model.config.stems if stem_kind(stem)[0] in ranks]
    if len(fitting) != 1:
        known = ", ".join(model.config.stems)
        raise ConfigError(f"say which stem (--stem): this model has {known}")
    return fitting[0]


def _sides(stem: str, size: Sequence[int]) -> tuple[int, ...]:
    """Return the side along each axis, from one for all axes or one for each."""
    rank = stem_kind(stem)[0]
    sides = tuple(size) * rank if len(size) == 1 else tuple(size)
    low, high = SIDES[rank]
    if len(sides) != rank or not all(low <= n <= high for n in sides):
        raise ConfigError(
            f"stem {stem} needs one or {rank} sizes of {low} to {high} pixels, got {list(size)}"
        )
    return sides
