"""Chest radiograph phantoms: frontal projections, clear or with a soft opacity in one lung.

Letters as in fields.py. Body coordinates: the midline is x = 0, mid-chest is y = 0, y points
down and the image side is 1. Image left is the patient's right, as radiographs are hung.
"""

from typing import cast

import numpy as np
import numpy.typing as npt

from medformer.phantoms.fields import (
    Floats,
    Scene,
    draw,
    line,
    pixel_centres,
    radius,
    rotate,
    smooth_field,
    step,
)

CLASSES = ("clear", "opacity")

SIDES = (-1.0, 1.0)
"""Signs of x: the patient's right lung, then the left."""


def render(rng: np.random.Generator, labels: npt.NDArray[np.int64], size: int) -> Scene:
    """Draw chest projections, bone bright.

    The finding is the part of the opacity that lies over clear lung. An opacity behind the heart
    hardly shows, and has no mask.

    Args:
        rng: Source of all draws.
        labels: (B,), positions in `CLASSES`.
        size: S, pixels.
    """
    count = len(labels)
    y, x = _body_coordinates(rng, count, size)
    # The heart hides most of the lung behind it.
    lungs = _lungs(rng, y, x) * (1 - 0.85 * _heart(rng, y, x))
    image = _soft_tissue(rng, y, x)
    image = image - draw(rng, count, 0.34, 0.46) * lungs
    image = image + lungs * _lung_markings(rng, y, x)
    image = image + _spine(rng, y, x) + _ribs(rng, y, x) * (0.3 + 0.7 * lungs)
    # Drawn for every image and used in some, so that draws do not depend on labels.
    opaque = (labels == 1).reshape(-1, 1, 1)
    density, extent = _opacity(rng, y, x)
    finding = density * lungs
    image = image + finding * opaque
    return Scene(np.clip(image, 0, 1).astype(np.float32), opaque & (extent * lungs > 0.5))


def _body_coordinates(rng: np.random.Generator, count: int, size: int) -> tuple[Floats, Floats]:
    """Return the body coordinates of each pixel; patients differ in size, position and tilt."""
    y, x = pixel_centres(size)
    y = (y - 0.5 - draw(rng, count, -0.04, 0.04)) / draw(rng, count, 0.92, 1.08)
    x = (x - 0.5 - draw(rng, count, -0.04, 0.04)) / draw(rng, count, 0.9, 1.1)
    return rotate(y, x, draw(rng, count, -0.09, 0.09))


def _lungs(rng: np.random.Generator, y: Floats, x: Floats) -> Floats:
    """Return the share of each pixel that is aerated lung, 0 to 1."""
    count = len(y)
    lungs = np.zeros_like(y)
    for side in SIDES:
        dy, dx = rotate(y + 0.03, x - side * draw(rng, count, 0.19, 0.215), side * 0.13)
        edge = radius(dy, dx, draw(rng, count, 0.36, 0.41), draw(rng, count, 0.16, 0.18))
        # The left diaphragm lies lower, beside the heart instead of above the liver.
        dome = draw(rng, count, 0.22, 0.29) + (0.025 if side > 0 else 0.0)
        floor = dome + draw(rng, count, 1.5, 3.0) * (x - side * 0.17) ** 2
        lungs = np.maximum(lungs, step(1 - edge, 0.22) * step(floor - y, 0.04))
    return lungs


def _soft_tissue(rng: np.random.Generator, y: Floats, x: Floats) -> Floats:
    """Draw the body against black air, with a denser abdomen, armpits and a narrow neck."""
    count = len(y)
    # The trunk is wider below than at the armpits.
    half_width = draw(rng, count, 0.44, 0.52) + 0.05 * y
    shoulder = -0.42 + draw(rng, count, 0.5, 0.9) * np.abs(x) ** 1.6
    body = step(y - shoulder, 0.08) * step(half_width - np.abs(x), 0.06)
    neck = step(0.11 - np.abs(x), 0.05)
    mottle = 0.02 * smooth_field(rng, count, y.shape[1], (3, 3))
    # The abdomen is denser than the chest.
    density = 0.52 + 0.16 * step(y - 0.25, 0.25) + mottle
    outline: Floats = np.maximum(body, neck * 0.9)
    return outline * density


def _lung_markings(rng: np.random.Generator, y: Floats, x: Floats) -> Floats:
    """Draw hila, vessels that fade towards the edge, and uneven aeration."""
    count, size = y.shape[:2]
    hilum = line(radius(y + 0.02, np.abs(x) - 0.1, 0.1, 0.05), 1.0)
    vessels: Floats = np.abs(smooth_field(rng, count, size, (9, 9)))
    # Vessels are thickest at the hilum.
    vessels = vessels * line(np.abs(x) - 0.1, 0.12)
    uneven = smooth_field(rng, count, size, (3, 3))
    tilt = draw(rng, count, -0.12, 0.12) * x * 2
    return 0.1 * hilum + 0.06 * vessels + 0.035 * uneven + tilt


def _heart(rng: np.random.Generator, y: Floats, x: Floats) -> Floats:
    """Return the share of each pixel in which heart or great vessels cover the lung, 0 to 1."""
    count = len(y)
    dy, dx = rotate(y - 0.15, x - draw(rng, count, 0.03, 0.07), 0.7)
    long, short = draw(rng, count, 0.16, 0.22), draw(rng, count, 0.11, 0.15)
    heart = step(1 - radius(dy, dx, short, long), 0.25)
    knob = step(1 - radius(y + 0.12, x - 0.045, 0.07, 0.06), 0.5)
    root = step(draw(rng, count, 0.06, 0.08) - np.abs(x), 0.05)
    return cast(Floats, np.maximum(np.maximum(heart, 0.8 * knob), root))


def _spine(rng: np.random.Generator, y: Floats, x: Floats) -> Floats:
    """Draw spine and mediastinum with vertebrae and the dark windpipe."""
    column = step(draw(rng, len(y), 0.05, 0.07) - np.abs(x), 0.06) * step(y + 0.45, 0.1)
    # Vertebral bodies repeat along the spine.
    vertebrae: Floats = 0.03 * np.cos(2 * np.pi * y / 0.07) * line(x, 0.03)
    windpipe = line(x, 0.018) * step(-0.12 - y, 0.1)
    return 0.17 * column + vertebrae - 0.12 * windpipe


def _ribs(rng: np.random.Generator, y: Floats, x: Floats) -> Floats:
    """Draw ribs as bands that slope down from the spine, and two collar bones."""
    count = len(y)
    out = np.abs(x)
    spacing = draw(rng, count, 0.085, 0.105)
    # Ribs arch and slope down from the spine.
    course = y + 1.6 * (out - 0.16) ** 2 - draw(rng, count, 0.1, 0.3) * out
    bands = step(np.cos(2 * np.pi * (course / spacing + draw(rng, count, 0, 1))) - 0.1, 1.2)
    cage = step(out - 0.07, 0.04) * step(0.39 - out, 0.06) * step(y + 0.4, 0.06)
    ribs = draw(rng, count, 0.06, 0.11) * bands * cage * step(0.3 - y, 0.1)
    collar = y + 0.31 + draw(rng, count, 0.15, 0.35) * (out - 0.05)
    collars = 0.17 * line(collar, 0.018) * step(out - 0.04, 0.03) * step(0.33 - out, 0.05)
    return ribs + collars


def _opacity(rng: np.random.Generator, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Draw a soft patchy opacity in one lung, from faint to dense, and its shape, 0 to 1."""
    count, size = y.shape[:2]
    side = np.where(draw(rng, count, 0, 1) < 0.5, *SIDES).astype(np.float32)
    dy, dx = rotate(
        y - draw(rng, count, -0.22, 0.2),
        x - side * draw(rng, count, 0.15, 0.27),
        draw(rng, count, 0, np.pi),
    )
    extent = draw(rng, count, 0.055, 0.1)
    # A soft edge: infiltrates have no border.
    core = line(radius(dy, dx, extent, extent * draw(rng, count, 0.6, 1.0)), 1.0)
    patchy = 1 + 0.3 * smooth_field(rng, count, size, (8, 8))
    return draw(rng, count, 0.1, 0.48) * core * patchy, core
