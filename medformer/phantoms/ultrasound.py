"""Breast ultrasound phantoms: layered tissue under speckle, with no, a smooth or a jagged lesion.

Letters as in fields.py. y is depth below the probe and x lateral position, both in (0, 1).
Levels are display grey, 0 to 1, after logarithmic compression.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from medformer.phantoms.fields import (
    Floats,
    Scene,
    blur,
    draw,
    line,
    pixel_centres,
    radius,
    rotate,
    smooth_field,
    step,
)

CLASSES = ("no lesion", "smooth oval lesion", "irregular spiculated lesion")

SPECKLE = (0.012, 0.02)
"""Correlation length of the speckle along y and x, fractions of the image side."""


@dataclass(frozen=True)
class Lesion:
    """One lesion for each image; arrays are (B, 1, 1), lengths fractions of the image side."""

    depth: Floats
    centre: Floats
    height: Floats
    width: Floats
    jagged: Floats
    """Amplitude of the border's spikes, relative to the radius."""
    contrast: Floats
    """Grey levels by which the inside is darker than its surroundings."""


def render(rng: np.random.Generator, labels: npt.NDArray[np.int64], size: int) -> Scene:
    """Draw ultrasound scenes; the finding is the inside of the lesion.

    Args:
        rng: Source of all draws.
        labels: (B,), positions in `CLASSES`.
        size: S, pixels.
    """
    count = len(labels)
    y, x = pixel_centres(size)
    present = (labels > 0).reshape(-1, 1, 1)
    lesion = _draw_lesion(rng, labels)
    level = _tissue(rng, count, y)
    level = level + _fat_lobule(rng, count, y, x)
    change, inside = _lesion_level(rng, lesion, y, x, labels)
    level = level + present * change
    # Sound is attenuated with depth.
    level = level - draw(rng, count, 0.05, 0.3) * y
    level = level * _coupling(rng, count, x)
    image = np.clip(level + _speckle(rng, count, size), 0, 1).astype(np.float32)
    return Scene(image, present & (inside > 0.5))


def _tissue(rng: np.random.Generator, count: int, y: Floats) -> Floats:
    """Draw skin, fat, fibroglandular tissue, muscle and chest wall, with wavy borders."""
    size = y.shape[1]
    depth = y + draw(rng, count, 0.015, 0.05) * smooth_field(rng, count, size, (1.5, 2))
    fat, gland = draw(rng, count, 0.16, 0.3), draw(rng, count, 0.58, 0.74)
    wall = gland + draw(rng, count, 0.12, 0.2)
    level: Floats = 0.42 + 0.05 * smooth_field(rng, count, size, (6, 4))
    parenchyma = 0.16 + 0.07 * smooth_field(rng, count, size, (10, 4))
    level = level + parenchyma * step(depth - fat, 0.06) * step(gland - depth, 0.05)
    # Muscle shows as fine horizontal fibres.
    fibres = 0.08 * smooth_field(rng, count, size, (18, 2)) - 0.04
    level = level + fibres * step(depth - gland, 0.04)
    level = level - draw(rng, count, 0.15, 0.25) * step(depth - wall, 0.05)
    level = level + 0.25 * line(depth - gland, 0.014) + 0.32 * line(depth - wall, 0.02)
    # A bright septum runs through the fat.
    septum = fat * 0.55 + 0.06 * smooth_field(rng, count, size, (1, 3))
    level = level + 0.14 * line(depth - septum, 0.012)
    return level + 0.4 * step(draw(rng, count, 0.035, 0.06) - y, 0.03)


def _fat_lobule(rng: np.random.Generator, count: int, y: Floats, x: Floats) -> Floats:
    """Draw a faintly dark lobule in every image, which can be mistaken for a lesion."""
    dy, dx = y - draw(rng, count, 0.25, 0.7), x - draw(rng, count, 0.1, 0.9)
    lobule = step(
        1 - radius(dy, dx, draw(rng, count, 0.05, 0.1), draw(rng, count, 0.08, 0.18)), 0.5
    )
    return -draw(rng, count, 0.0, 0.16) * lobule


def _draw_lesion(rng: np.random.Generator, labels: npt.NDArray[np.int64]) -> Lesion:
    """Draw the measures of lesions: smooth ones are flat and wide, jagged ones are taller."""
    count = len(labels)
    jagged = (labels == 2).reshape(-1, 1, 1)
    width = draw(rng, count, 0.1, 0.19)
    # Taller than wide is a sign of malignancy in ultrasound.
    flat, tall = draw(rng, count, 0.5, 0.95), draw(rng, count, 0.6, 1.2)
    return Lesion(
        depth=draw(rng, count, 0.34, 0.56),
        centre=draw(rng, count, 0.28, 0.72),
        height=width * np.where(jagged, tall, flat),
        width=width,
        jagged=np.where(jagged, draw(rng, count, 0.08, 0.3), draw(rng, count, 0.0, 0.05)),
        contrast=draw(rng, count, 0.04, 0.4),
    )


def _lesion_level(
    rng: np.random.Generator, lesion: Lesion, y: Floats, x: Floats, labels: npt.NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return the change of level by a lesion, and the share of each pixel inside it, 0 to 1.

    It is dark inside, has a bright halo, and casts a shadow or enhances what lies behind it.
    """
    count = len(labels)
    dy, dx = rotate(y - lesion.depth, x - lesion.centre, draw(rng, count, -0.25, 0.25))
    distance = radius(dy, dx, lesion.height, lesion.width)
    border = 1 + _spikes(rng, count, dy / lesion.height, dx / lesion.width) * lesion.jagged
    inside = step(border - distance, 0.25)
    rim = line(distance - border - 0.15, 0.15) * draw(rng, count, 0.0, 0.12)
    behind = step(y - lesion.depth - 0.6 * lesion.height, 0.1) * (1 - inside)
    # Shadow and enhancement are as wide as the lesion, and straight down.
    column = step(0.85 * lesion.width - np.abs(x - lesion.centre), 0.06)
    enhancement, shadow = draw(rng, count, -0.02, 0.12), draw(rng, count, -0.02, 0.2)
    # Jagged lesions cast a shadow, smooth ones can enhance what lies behind.
    trail = np.where((labels == 2).reshape(-1, 1, 1), -shadow, enhancement)
    return -lesion.contrast * inside + rim + trail * behind * column, inside


def _spikes(rng: np.random.Generator, count: int, dy: Floats, dx: Floats) -> Floats:
    """Draw the displacement of the lesion's border as a sum of angular waves, -2.4 to 2.4."""
    angle = np.arctan2(dy, dx)
    waves = np.zeros_like(angle)
    for frequency in (3, 5, 8):
        waves += draw(rng, count, 0.5, 1.0) * np.cos(frequency * angle + draw(rng, count, 0, 6.28))
    return waves * np.float32(0.8)


def _coupling(rng: np.random.Generator, count: int, x: Floats) -> Floats:
    """Draw the lateral loss of signal where the probe's edge leaves the skin."""
    lean = draw(rng, count, -1, 1) * (x - 0.5) * 0.3
    left = step(x - draw(rng, count, -0.06, 0.04), 0.1)
    right = step(1 - x - draw(rng, count, -0.06, 0.04), 0.1)
    return (1 + lean) * (0.5 + 0.5 * left * right)


def _speckle(rng: np.random.Generator, count: int, size: int) -> Floats:
    """Draw Rayleigh speckle after log compression, which makes multiplicative noise additive."""
    waves = rng.standard_normal((2, count, size, size), dtype=np.float32)
    # Two correlated Gaussian parts have a Rayleigh amplitude.
    real, imaginary = blur(waves, (SPECKLE[0] * size, SPECKLE[1] * size), unit_variance=True)
    amplitude = np.sqrt((real**2 + imaginary**2) / 2) + np.float32(0.15)
    return cast(Floats, draw(rng, count, 0.1, 0.16) * np.log(amplitude))
