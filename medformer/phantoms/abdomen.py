"""CT phantoms of the trunk: one organ in the middle of an axial slice, as a radiologist crops it.

Letters as in fields.py. Grey is the soft-tissue window, 0 air to 1 bone; left and right are the
patient's, so the right side of an image shows the left side of the body. A left organ is the mirror
image of a right one: images must not be flipped.
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

CLASSES = (
    "bladder", "femur, left", "femur, right", "heart", "kidney, left", "kidney, right", "liver",
    "lung, left", "lung, right", "pancreas", "spleen",
)  # fmt: skip
MIRRORED = frozenset({"femur, right", "kidney, right", "lung, right", "liver"})
"""Organs that are drawn on the left side of the body and then mirrored."""
AIR, FAT, WATER, MUSCLE, ORGAN, VESSEL, BONE = 0.01, 0.25, 0.45, 0.55, 0.7, 0.88, 0.99


def render(rng: np.random.Generator, labels: npt.NDArray[np.int64], size: int) -> Scene:
    """Draw axial slices; a label names the whole image, not a place in it.

    Args:
        rng: Source of all draws.
        labels: (B,), positions in `CLASSES`.
        size: S, pixels.
    """
    count = len(labels)
    y, x = pixel_centres(size)
    # Right organs are mirrored left ones: mirroring images would swap classes.
    mirrored = np.array([CLASSES[label] in MIRRORED for label in labels]).reshape(-1, 1, 1)
    x = np.where(mirrored, 1 - x, x).astype(np.float32)
    # The organ lies near the middle, as in a crop.
    dy, dx = y - 0.5 + draw(rng, count, -0.05, 0.05), x - 0.5 + draw(rng, count, -0.05, 0.05)
    wavy = smooth_field(rng, count, size, (3, 3))
    image = _surroundings(rng, count, size)
    kinds = np.array([CLASSES[label].split(",")[0] for label in labels])
    for kind, drawing in _DRAWINGS.items():
        rows = np.flatnonzero(kinds == kind)
        if len(rows):
            own = np.broadcast_to(dy, wavy.shape)[rows], np.broadcast_to(dx, wavy.shape)[rows]
            image[rows] = drawing(rng, *own, image[rows], wavy[rows])
    # Quantum noise of CT.
    grain = draw(rng, count, 0.02, 0.08) * smooth_field(rng, count, size, (14, 14))
    return Scene(np.clip(image + grain, 0, 1).astype(np.float32))


def _surroundings(rng: np.random.Generator, count: int, size: int) -> Floats:
    """Draw fat with muscle in it, gas, and bone or bowel full of contrast medium."""
    # Random tissue around the organ, so that the background does not tell the class.
    islands = step(smooth_field(rng, count, size, (4, 4)) - draw(rng, count, -0.4, 0.4), 0.5)
    gas = step(smooth_field(rng, count, size, (5, 5)) - 2.2, 0.3)
    image = FAT + (MUSCLE - FAT) * islands
    bright = step(smooth_field(rng, count, size, (4, 4)) - 1.7, 0.3)
    image = image + (draw(rng, count, VESSEL, BONE) - image) * bright
    return cast(Floats, image + (AIR - image) * gas)


def _bladder(rng: np.random.Generator, y: Floats, x: Floats, image: Floats, wavy: Floats) -> Floats:
    """Draw water in a wide oval, with hip bones at both sides."""
    n = len(y)
    for side in (-1, 1):
        image = _put(image, BONE, radius(y + 0.05, x - side * 0.48, 0.3, draw(rng, n, 0.05, 0.1)))
    inside = radius(y, x, draw(rng, n, 0.24, 0.34), draw(rng, n, 0.3, 0.4)) + 0.05 * wavy
    image = _put(image, MUSCLE, inside / 1.12)
    return _put(image, WATER, inside)


def _femur(rng: np.random.Generator, y: Floats, x: Floats, image: Floats, wavy: Floats) -> Floats:
    """Draw a ring of bone in muscle, with the pelvis on its inner side."""
    n = len(y)
    image = _put(image, MUSCLE, radius(y, x, 0.48, 0.48) + 0.1 * wavy)
    reach = draw(rng, n, 0.26, 0.42)
    image = _put(image, 0.9 * BONE, radius(y, x + reach + 0.2, 0.45, draw(rng, n, 0.08, 0.14)))
    neck = radius(y - 0.1, x - reach, 0.1, draw(rng, n, 0.1, 0.25))
    image = _put(image, 0.85 * BONE, neck)
    head = radius(y, x, reach, reach) + 0.03 * wavy
    image = _put(image, BONE, head)
    return _put(image, draw(rng, n, 0.65, 0.97), head / draw(rng, n, 0.6, 0.85))


def _heart(rng: np.random.Generator, y: Floats, x: Floats, image: Floats, wavy: Floats) -> Floats:
    """Draw a large oval with bright chambers, with lungs at both sides."""
    n = len(y)
    image = 0.3 * image + 0.7 * AIR
    image = _put(image, MUSCLE, radius(y - 0.5, x + 0.1, 0.2, 0.35))
    dy, dx = rotate(y, x, draw(rng, n, 0.3, 0.9))
    image = _put(image, MUSCLE, radius(dy, dx, draw(rng, n, 0.32, 0.42), 0.46) + 0.05 * wavy)
    for at in (-0.18, 0.16):
        chamber = radius(dy + 0.05, dx - at, draw(rng, n, 0.13, 0.2), draw(rng, n, 0.1, 0.17))
        image = _put(image, draw(rng, n, ORGAN, VESSEL), chamber)
    return image


def _kidney(rng: np.random.Generator, y: Floats, x: Floats, image: Floats, wavy: Floats) -> Floats:
    """Draw a bean in fat, its sinus towards the spine."""
    n = len(y)
    image = 0.3 * image + 0.7 * FAT
    image = _put(image, MUSCLE, radius(y - 0.2, x + 0.5, 0.35, draw(rng, n, 0.12, 0.2)))
    image = _put(image, MUSCLE, radius(y - 0.52, x, 0.12, 0.5))
    dy, dx = rotate(y, x, draw(rng, n, -0.5, 0.2))
    bean = radius(dy, dx, draw(rng, n, 0.34, 0.44), draw(rng, n, 0.24, 0.34)) + 0.05 * wavy
    image = _put(image, draw(rng, n, ORGAN, VESSEL), bean)
    sinus = radius(dy, dx + 0.14, draw(rng, n, 0.08, 0.14), draw(rng, n, 0.1, 0.16))
    return _put(image, FAT, sinus)


def _liver(rng: np.random.Generator, y: Floats, x: Floats, image: Floats, wavy: Floats) -> Floats:
    """Draw a large smooth organ with vessels, against the ribs."""
    n = len(y)
    image = _ribs(rng, y, x, image)
    wide = radius(y, x - 0.12, draw(rng, n, 0.36, 0.46), draw(rng, n, 0.38, 0.48)) + 0.08 * wavy
    image = _put(image, ORGAN, wide)
    return _vessels(rng, y, x, image, wide, ORGAN + 0.08)


def _lung(rng: np.random.Generator, y: Floats, x: Floats, image: Floats, wavy: Floats) -> Floats:
    """Draw air with bright vessels inside the chest wall, with the heart on the inner side."""
    n = len(y)
    image = _ribs(rng, y, x, 0.4 * image + 0.6 * MUSCLE)
    field = radius(y, x, draw(rng, n, 0.4, 0.47), draw(rng, n, 0.3, 0.4)) + 0.06 * wavy
    image = _put(image, AIR + 0.05, field)
    image = _vessels(rng, y, x, image, field, 0.45)
    return _put(image, MUSCLE, radius(y + 0.1, x + 0.42, 0.25, draw(rng, n, 0.1, 0.2)))


def _pancreas(
    rng: np.random.Generator, y: Floats, x: Floats, image: Floats, wavy: Floats
) -> Floats:
    """Draw a lobed band in fat, along a bright vein."""
    n = len(y)
    image = 0.5 * image + 0.5 * FAT
    bend = draw(rng, n, -0.6, 0.6) * x**2 + draw(rng, n, -0.5, 0.3) * x
    band = radius(y - bend, x, draw(rng, n, 0.09, 0.14), draw(rng, n, 0.36, 0.44))
    lobed = smooth_field(rng, n, y.shape[1], (9, 9))
    image = _put(image, MUSCLE, band + 0.25 * lobed)
    vein = line(y - bend - draw(rng, n, 0.12, 0.17), 0.035) * (np.abs(x) < 0.35)
    image = image + (VESSEL - image) * vein
    return _put(image, VESSEL, radius(y - 0.3, x + 0.05, 0.08, 0.08))


def _spleen(rng: np.random.Generator, y: Floats, x: Floats, image: Floats, wavy: Floats) -> Floats:
    """Draw a crescent against the ribs, with the stomach on its inner side."""
    n = len(y)
    image = _ribs(rng, y, x, image)
    outer = radius(y, x - 0.08, draw(rng, n, 0.36, 0.44), draw(rng, n, 0.28, 0.36)) + 0.05 * wavy
    image = _put(image, ORGAN + 0.03, outer)
    hollow = radius(y + 0.05, x + 0.2, draw(rng, n, 0.26, 0.34), draw(rng, n, 0.2, 0.28))
    return _put(image, draw(rng, n, FAT, WATER), hollow + 0.08 * wavy)


_DRAWINGS = {
    "bladder": _bladder,
    "femur": _femur,
    "heart": _heart,
    "kidney": _kidney,
    "liver": _liver,
    "lung": _lung,
    "pancreas": _pancreas,
    "spleen": _spleen,
}


def _ribs(rng: np.random.Generator, y: Floats, x: Floats, image: Floats) -> Floats:
    """Draw the chest wall on the outer side: muscle with ribs in it."""
    n = len(y)
    wall = radius(y, x + 0.1, 0.56, 0.58)
    image = image + (MUSCLE - image) * step(wall - 0.95, 0.1)
    for _ in range(3):
        angle = draw(rng, n, -1.1, 1.1)
        rib = radius(y - 0.54 * np.sin(angle), x + 0.1 - 0.56 * np.cos(angle), 0.06, 0.04)
        image = _put(image, BONE, rib)
    return image


def _vessels(
    rng: np.random.Generator, y: Floats, x: Floats, image: Floats, inside: Floats, level: float
) -> Floats:
    """Draw bright spots where `inside` is below 1."""
    n = len(y)
    for _ in range(5):
        away, angle = draw(rng, n, 0, 0.28), draw(rng, n, -np.pi, np.pi)
        reach = draw(rng, n, 0.02, 0.06)
        spot = radius(y - away * np.sin(angle), x - away * np.cos(angle), reach, reach * 1.5)
        image = image + (level - image) * step(1 - spot, 0.6) * step(0.95 - inside, 0.1)
    return image


def _put(image: Floats, level: Floats | float, distance: Floats) -> Floats:
    """Set an image to `level` where the distance is below 1."""
    return cast(Floats, image + (level - image) * step(1 - distance, 0.15))
