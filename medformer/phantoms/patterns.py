"""Patterns: objects of many shapes and textures, which imitate no kind of image.

Public pre-training learns from them what all kinds of image need: outlines, texture and
arrangement, whatever the colours. Letters as in fields.py.

Source: Kataoka et al. 2020, arXiv:2101.08515 (learning from procedural images).
"""

from typing import cast

import numpy as np
import numpy.typing as npt

from medformer.phantoms.fields import (
    Floats,
    Scene,
    draw,
    pixel_centres,
    rotate,
    smooth_field,
    step,
)

SHAPES = ("disc", "ellipse", "two lobes", "three lobes", "star", "ring", "square", "crescent")
TEXTURES = ("plain", "coarse", "fine", "striped")
ARRANGEMENTS = ("one", "several")
CLASSES = tuple(
    f"{arrangement}, {shape}, {texture}"
    for arrangement in ARRANGEMENTS
    for texture in TEXTURES
    for shape in SHAPES
)
SEVERAL = 5
"""Number of objects in an image that shows more than one."""


def render(rng: np.random.Generator, labels: npt.NDArray[np.int64], size: int) -> Scene:
    """Draw patterns, in colour; a label names the whole image, not a place in it.

    Args:
        rng: Source of all draws.
        labels: (B,), positions in `CLASSES`.
        size: S, pixels.
    """
    count = len(labels)
    rest, shape = np.divmod(labels, len(SHAPES))
    arrangement, texture = np.divmod(rest, len(TEXTURES))
    covered = np.zeros((count, size, size), dtype=np.float32)
    for number in range(SEVERAL):
        thing = _thing(rng, shape, arrangement == 1, number, size)
        shown = (arrangement == 1) | (number == 0)
        covered = np.maximum(covered, thing * shown[:, None, None])
    ground, colour = _colours(rng, count)
    slow = 0.12 * smooth_field(rng, count, size, (2, 2))[..., None]
    inside = colour + draw(rng, count, 0.12, 0.25)[..., None] * _texture(rng, texture, size)
    mixed = (ground + slow) * (1 - covered[..., None]) + inside * covered[..., None]
    return Scene(np.clip(mixed, 0, 1).astype(np.float32))


def _thing(
    rng: np.random.Generator,
    shape: npt.NDArray[np.int64],
    several: npt.NDArray[np.bool_],
    number: int,
    size: int,
) -> Floats:
    """Return the share of each pixel that one object covers, (B, S, S).

    If there are several objects, each is small and lies off the middle.
    """
    count = len(shape)
    many = several[:, None, None]
    # The first of several lies in the middle.
    away = np.where(many, draw(rng, count, 0.25, 0.38) * (number > 0), draw(rng, count, 0, 0.08))
    bearing = 2 * np.pi * (number / (SEVERAL - 1) + draw(rng, count, -0.08, 0.08))
    long = np.where(many, draw(rng, count, 0.1, 0.15), draw(rng, count, 0.24, 0.4))
    y, x = pixel_centres(size)
    dy, dx = y - 0.5 - away * np.sin(bearing), x - 0.5 - away * np.cos(bearing)
    dy, dx = rotate(dy.astype(np.float32), dx.astype(np.float32), draw(rng, count, 0, 2 * np.pi))
    kind = shape[:, None, None]
    flat = np.where(kind == 1, draw(rng, count, 0.4, 0.6), 1)
    dy, dx = dy / (long * flat), dx / long
    angle, distance = np.arctan2(dy, dx), np.sqrt(dy**2 + dx**2)
    # Lobed outlines are cosines of the angle.
    lobes, depth = np.choose(kind, (0, 0, 2, 3, 6, 0, 0, 0)), np.where(kind == 4, 0.22, 0.35)
    reach = np.where(lobes > 0, (1 + depth * np.cos(lobes * angle)) / (1 + depth), 1)
    square = 1.15 * np.maximum(np.abs(dy), np.abs(dx))
    inner = np.where(kind == 7, np.sqrt(dy**2 + (dx - 0.5) ** 2) / 0.8, distance / 0.55)
    edge = 2 / (size * long)
    covered = step(1 - np.where(kind == 6, square, distance / reach), edge)
    # Rings and crescents have a hole.
    hollow = step(1 - inner, edge) * ((kind == 5) | (kind == 7))
    return cast(Floats, covered * (1 - hollow))


def _texture(rng: np.random.Generator, texture: npt.NDArray[np.int64], size: int) -> Floats:
    """Draw a texture with variance 1 at every pixel, or 0 where it is plain, (B, S, S, 1)."""
    count = len(texture)
    y, x = pixel_centres(size)
    across, _ = rotate(y - 0.5, x - 0.5, draw(rng, count, 0, np.pi))
    stripes = np.sqrt(2) * np.sin(2 * np.pi * (across * draw(rng, count, 6, 9)))
    coarse, fine = (smooth_field(rng, count, size, (cells, cells)) for cells in (6, 18))
    kind = texture[:, None, None]
    return cast(Floats, np.choose(kind, (0 * coarse, coarse, fine, stripes))[..., None])


def _colours(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Draw different colours for the ground and for the objects, (B, 1, 1, 3) each."""
    ground = rng.uniform(0.1, 0.9, (count, 1, 1, 3))
    turned = rng.standard_normal((count, 1, 1, 3)) + rng.choice([-1.0, 1.0], (count, 1, 1, 1))
    step_to = turned / np.linalg.norm(turned, axis=-1, keepdims=True)
    # Away from white, so that the object stays visible.
    step_to *= np.where((ground + 0.4 * step_to).mean(-1, keepdims=True) > 0.9, -1, 1)
    colour = ground + rng.uniform(0.3, 0.6, (count, 1, 1, 1)) * step_to
    return ground.astype(np.float32), np.clip(colour, 0.05, 0.95).astype(np.float32)
