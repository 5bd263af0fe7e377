"""Histology phantoms: stained colon tissue, told apart by how its nuclei are arranged.

Letters as in fields.py, plus K nuclei that an image can hold and P pixels, the side of the window
around a nucleus. Colours follow Beer-Lambert: stain amounts add up, and light falls as
exp(-amount * absorbance).
"""

from dataclasses import dataclass, fields, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from medformer.phantoms.fields import (
    Floats,
    Scene,
    draw,
    pixel_centres,
    radius,
    rotate,
    smooth_field,
    step,
)

CLASSES = ("sparse round nuclei", "dense round nuclei", "spindle nuclei", "gland rings")

HAEMATOXYLIN = np.array([0.5626, 0.7201, 0.4062], dtype=np.float32)
EOSIN = np.array([0.2159, 0.8012, 0.5581], dtype=np.float32)
"""Red, green and blue absorbances per unit of stain (reference stains of Macenko et al. 2009)."""

SLOTS_PER_SIDE = 9
"""Side of the jittered square lattice on which nuclei lie, so that few overlap."""

RING = 26
"""Largest number of nuclei around a gland."""

MAX_LENGTH = 0.1
"""Half-length of the longest nucleus, as a fraction of the image side."""


@dataclass(frozen=True)
class Nuclei:
    """Ellipses, one for each slot: arrays are (B, K), lengths fractions of the image side."""

    y: Floats
    x: Floats
    length: Floats
    width: Floats
    angle: Floats
    """Direction of the long axis, radians from x."""
    stain: Floats
    """Amount of haematoxylin; 0 leaves the slot empty."""


@dataclass(frozen=True)
class Gland:
    """One gland for each image; every array is (B, 1, 1)."""

    y: Floats
    x: Floats
    height: Floats
    width: Floats
    opening: Floats
    """Emptiness of the lumen: 0 is collapsed, 1 is bare glass."""
    completeness: Floats
    """Share of the ring's nuclei that lie in the cut."""


def render(rng: np.random.Generator, labels: npt.NDArray[np.int64], size: int) -> Scene:
    """Draw stained tissue, in colour; a label names the whole image, not a place in it.

    Args:
        rng: Source of all draws.
        labels: (B,), positions in `CLASSES`.
        size: S, pixels.
    """
    count = len(labels)
    has_gland = labels == 3
    direction = draw(rng, count, 0, np.pi)
    glands = _draw_glands(rng, count)
    scattered = _scattered(rng, labels, direction)
    eosin = _stroma(rng, labels, size, direction)
    rings = []
    for gland in glands:
        eosin = eosin * np.where(has_gland[:, None, None], _gland_density(gland, size), 1)
        scattered = _clear(scattered, gland, has_gland)
        rings.append(_ring(rng, gland, has_gland))
    nuclei = _paint(_pack(scattered, *rings), size)
    grain = 1 + 0.15 * smooth_field(rng, count, size, (20, 20))
    # A little haematoxylin stains everything; amounts vary from slide to slide.
    haematoxylin = (0.06 * eosin + nuclei * grain) * draw(rng, count, 0.7, 1.3)
    eosin = eosin * draw(rng, count, 0.7, 1.3)
    # Beer-Lambert: amounts add up.
    amount = haematoxylin[..., None] * HAEMATOXYLIN + eosin[..., None] * EOSIN
    return Scene(np.exp(-amount).astype(np.float32))


def _draw_glands(rng: np.random.Generator, count: int) -> tuple[Gland, Gland]:
    """Draw a gland near the middle and a neighbour opposite it, partly outside the image."""
    towards = draw(rng, count, 0, 2 * np.pi)
    glands = []
    for nearest, farthest, sign in ((0.05, 0.2, 1), (0.4, 0.6, -1)):
        away = sign * draw(rng, count, nearest, farthest)
        height = draw(rng, count, 0.17, 0.28)
        glands.append(
            Gland(
                y=0.5 + away * np.sin(towards),
                x=0.5 + away * np.cos(towards),
                height=height,
                width=height * draw(rng, count, 0.75, 1.3),
                opening=draw(rng, count, 0.2, 1.0),
                completeness=draw(rng, count, 0.5, 1.0),
            )
        )
    return glands[0], glands[1]


def _stroma(
    rng: np.random.Generator, labels: npt.NDArray[np.int64], size: int, direction: Floats
) -> Floats:
    """Return the amount of eosin, (B, S, S): mottled, in some images with fibres."""
    count = len(labels)
    y, x = pixel_centres(size)
    across, _ = rotate(y - 0.5, x - 0.5, direction)
    wander = 0.04 * smooth_field(rng, count, size, (3, 3))
    fibres = np.sin(2 * np.pi * (across + wander) * draw(rng, count, 6, 10))
    spindle = (labels == 2)[:, None, None]
    strength = draw(rng, count, 0.0, 0.12) + draw(rng, count, 0.0, 0.06) * spindle
    coarse, fine = (smooth_field(rng, count, size, (cells, cells)) for cells in (4, 16))
    mottle = 0.1 * coarse + 0.05 * fine
    # Cracks of the section, where glass shows.
    clefts = np.maximum(smooth_field(rng, count, size, (5, 5)) - 1.2, 0)
    amount = 0.5 * (1 + strength * fibres + mottle) - 0.35 * clefts
    return cast(Floats, np.maximum(amount, 0.03))


def _gland_density(gland: Gland, size: int) -> Floats:
    """Return the factor by which pale cytoplasm and empty lumen reduce eosin, (B, S, S)."""
    y, x = pixel_centres(size)
    distance = radius(y - gland.y, x - gland.x, gland.height, gland.width)
    cytoplasm, lumen = step(1.1 - distance, 0.3), step(0.5 - distance, 0.3)
    return (1 - 0.3 * cytoplasm) * (1 - 0.95 * gland.opening * lumen)


def _scattered(
    rng: np.random.Generator, labels: npt.NDArray[np.int64], direction: Floats
) -> Nuclei:
    """Draw nuclei over the whole image; their number and length depend on the class."""
    count, k = len(labels), SLOTS_PER_SIDE**2
    low = np.array([8, 20, 16, 10])[labels][:, None]
    high = np.array([32, 64, 44, 40])[labels][:, None]
    wanted = low + (high - low) * rng.random((count, 1))
    # A random subset of the slots, so that nuclei do not crowd in a corner.
    order = rng.random((count, k)).argsort(axis=1)
    row, column = np.divmod(np.arange(k), SLOTS_PER_SIDE)
    jitter = rng.uniform(-0.35, 0.35, (2, count, k))
    spindle = (labels == 2)[:, None]
    # Spindle nuclei are long and share a direction; others are round.
    stretch = np.where(spindle, rng.uniform(1.15, 2.8, (count, 1)), rng.uniform(1, 1.4, (count, k)))
    size = rng.uniform(0.028, 0.038, (count, 1)) * rng.uniform(0.85, 1.15, (count, k))
    turn = np.where(spindle, rng.normal(0, 0.4, (count, k)), rng.uniform(0, np.pi, (count, k)))
    stain = rng.uniform(0.75, 1.2, (count, k)) * (order < wanted)
    return Nuclei(
        y=_float32((row + 0.5 + jitter[0]) / SLOTS_PER_SIDE),
        x=_float32((column + 0.5 + jitter[1]) / SLOTS_PER_SIDE),
        length=_float32(np.minimum(size * stretch**0.7, MAX_LENGTH)),
        width=_float32(size * stretch**-0.3),
        angle=_float32(direction[:, 0] + turn),
        stain=_float32(stain),
    )


def _ring(rng: np.random.Generator, gland: Gland, present: npt.NDArray[np.bool_]) -> Nuclei:
    """Draw nuclei around a gland, pointing at its lumen; none where `present` (B,) is False."""
    count = len(present)
    # Some rings are sparse.
    number = rng.integers(RING // 2, RING + 1, (count, 1))
    slot = np.arange(RING)
    bearing = 2 * np.pi * (slot + rng.uniform(-0.25, 0.25, (count, RING))) / number
    reach = rng.uniform(0.88, 1.05, (count, RING))
    size = rng.uniform(0.022, 0.032, (count, 1)) * rng.uniform(0.85, 1.15, (count, RING))
    shown = (slot < number) & (rng.random((count, RING)) < gland.completeness[:, 0])
    stain = rng.uniform(0.75, 1.2, (count, RING)) * (shown & present[:, None])
    return Nuclei(
        y=_float32(gland.y[:, 0] + reach * gland.height[:, 0] * np.sin(bearing)),
        x=_float32(gland.x[:, 0] + reach * gland.width[:, 0] * np.cos(bearing)),
        length=_float32(1.6 * size),
        width=_float32(size),
        angle=_float32(bearing),
        stain=_float32(stain),
    )


def _clear(nuclei: Nuclei, gland: Gland, present: npt.NDArray[np.bool_]) -> Nuclei:
    """Remove the nuclei inside a gland."""
    dy, dx = nuclei.y - gland.y[:, 0], nuclei.x - gland.x[:, 0]
    # A margin, so that no nucleus touches the ring.
    inside = radius(dy, dx, gland.height[:, 0], gland.width[:, 0]) < 1.2
    return replace(nuclei, stain=nuclei.stain * ~(inside & present[:, None]))


def _pack(*groups: Nuclei) -> Nuclei:
    """Join groups, filled slots first, and drop slots that are empty in every image."""
    stain = np.concatenate([group.stain for group in groups], axis=1)
    order = np.argsort(stain == 0, axis=1, kind="stable")[:, : (stain > 0).sum(axis=1).max()]
    joined = {
        field.name: np.concatenate([getattr(group, field.name) for group in groups], axis=1)
        for field in fields(Nuclei)
    }
    return Nuclei(**{name: np.take_along_axis(slots, order, 1) for name, slots in joined.items()})


def _paint(nuclei: Nuclei, size: int) -> Floats:
    """Return the amount of haematoxylin, (B, S, S); where nuclei overlap, that of the darker one.

    Only a P x P window around each nucleus is computed, one slot of every image at a time.
    """
    half = int(np.ceil(MAX_LENGTH * size)) + 1
    # Windows may reach beyond the image; the margin is cut off at the end.
    pad = 2 * half
    offsets = np.arange(-half, half + 1)
    image = np.arange(len(nuclei.y))[:, None, None]
    side = size + 2 * pad + 1
    canvas: Floats = np.zeros((len(nuclei.y), side, side), dtype=np.float32)
    for slot in range(nuclei.stain.shape[1]):
        y, x = nuclei.y[:, slot, None, None], nuclei.x[:, slot, None, None]
        rows = _window_centre(y, size, half) + offsets[:, None]
        columns = _window_centre(x, size, half) + offsets
        down, right = _float32((rows + 0.5) / size) - y, _float32((columns + 0.5) / size) - x
        dy, dx = rotate(down, right, nuclei.angle[:, slot, None, None])
        width = nuclei.width[:, slot, None, None]
        distance = radius(dy, dx, width, nuclei.length[:, slot, None, None])
        # At least a pixel wide, or small nuclei would flicker with the size.
        softness = np.maximum(0.3, 0.9 / (size * width))
        stain = nuclei.stain[:, slot, None, None] * np.clip((1 - distance) / softness + 0.5, 0, 1)
        place = (image, rows + pad, columns + pad)
        canvas[place] = np.maximum(canvas[place], stain)
    return canvas[:, pad : pad + size, pad : pad + size]


def _window_centre(position: Floats, size: int, half: int) -> npt.NDArray[np.int64]:
    """Return the pixel on which a nucleus lies, at most `half` pixels outside the image."""
    return np.clip(np.floor(position * size).astype(np.int64), -half, size + half)


def _float32(values: Floats) -> Floats:
    """Convert values to single precision."""
    return values.astype(np.float32)
