"""Phantoms of blood smears under the microscope: one white cell or platelet among red cells.

Letters as in fields.py. The cells differ as textbooks of haematology describe: in size, in number
of lobes of the nucleus, in how much of the cell it fills, in granules, and in the colour of the
cytoplasm after Giemsa stain.
"""

from typing import NamedTuple, cast

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

Colour = tuple[float, float, float]


class Cell(NamedTuple):
    """The look of one kind of cell; lengths are fractions of the image side."""

    reach: tuple[float, float]
    """Smallest and largest radius."""
    lobes: int
    """Number of lobes of the nucleus; 0 if there is none."""
    nucleus: float
    """Radius of the nucleus, or of one of its lobes, divided by the radius of the cell."""
    notch: float
    """Depth of the dent in the nucleus, divided by its radius."""
    cytoplasm: Colour
    """Colour of the cytoplasm."""
    granules: float
    """Strength of the granules' colour, 0 to 1; negative if they cover the nucleus, too."""
    grain: Colour
    """Colour of the granules."""


CELLS = {
    "basophil": Cell((0.26, 0.33), 2, 0.5, 0.2, (0.74, 0.62, 0.80), -0.9, (0.27, 0.14, 0.42)),
    "eosinophil": Cell((0.3, 0.38), 2, 0.44, 0.1, (0.88, 0.66, 0.66), 0.5, (0.82, 0.44, 0.42)),
    "erythroblast": Cell((0.2, 0.27), 1, 0.6, 0.0, (0.72, 0.66, 0.80), 0.0, (0.5, 0.4, 0.6)),
    "immature granulocyte": Cell(
        (0.33, 0.41), 1, 0.68, 0.35, (0.78, 0.70, 0.86), 0.35, (0.58, 0.36, 0.66)
    ),
    "lymphocyte": Cell((0.22, 0.3), 1, 0.86, 0.1, (0.66, 0.72, 0.90), 0.0, (0.6, 0.5, 0.8)),
    "monocyte": Cell((0.34, 0.42), 1, 0.66, 0.75, (0.72, 0.72, 0.85), 0.15, (0.62, 0.56, 0.78)),
    "neutrophil": Cell((0.3, 0.37), 4, 0.34, 0.1, (0.90, 0.80, 0.86), 0.2, (0.80, 0.60, 0.74)),
    "platelet": Cell((0.08, 0.14), 0, 0.0, 0.0, (0.78, 0.64, 0.82), 0.6, (0.52, 0.32, 0.62)),
}
CLASSES = tuple(CELLS)
RED_CELLS = 7
"""Places around the middle in which a red cell can lie."""
PLASMA: Colour = (0.93, 0.86, 0.82)
RED: Colour = (0.88, 0.68, 0.66)
CHROMATIN: Colour = (0.36, 0.18, 0.52)


def render(rng: np.random.Generator, labels: npt.NDArray[np.int64], size: int) -> Scene:
    """Draw smears, in colour; a label names the whole image, not a place in it.

    Args:
        rng: Source of all draws.
        labels: (B,), positions in `CLASSES`.
        size: S, pixels.
    """
    count = len(labels)
    image: Floats = np.broadcast_to(np.array(PLASMA, np.float32), (count, size, size, 3))
    # Below the white cell, which is drawn over them.
    for number in range(RED_CELLS):
        image = _red_cell(rng, image, number, size)
    kinds = [CELLS[CLASSES[label]] for label in labels]
    y, x = pixel_centres(size)
    down, right = y - 0.5 + draw(rng, count, -0.05, 0.05), x - 0.5 + draw(rng, count, -0.05, 0.05)
    dy, dx = rotate(down, right, draw(rng, count, 0, 2 * np.pi))
    share = draw(rng, count, 0, 1)
    low, high = (_of([k.reach[end] for k in kinds]) for end in (0, 1))
    reach = low + share * (high - low)
    wavy = 1 + 0.05 * smooth_field(rng, count, size, (3, 3))
    cell = step(
        1 - radius(dy, dx, reach * draw(rng, count, 0.85, 1), reach) * wavy, 2 / size / reach
    )
    nucleus = _nucleus(rng, kinds, dy / reach, dx / reach) * cell
    amount = _of([k.granules for k in kinds])
    grains = step(smooth_field(rng, count, size, (16, 16)) - 0.2, 0.8) * np.abs(amount)
    # Granules of basophils hide the nucleus, those of others do not.
    uncovered = np.where(amount < 0, 1.0, 1 - nucleus)
    image = _mix(image, _colours([k.cytoplasm for k in kinds]), cell)
    chromatin = 1 + 0.14 * smooth_field(rng, count, size, (9, 9))[..., None]
    image = _mix(image, np.array(CHROMATIN) * chromatin, nucleus * draw(rng, count, 0.85, 1))
    image = _mix(image, _colours([k.grain for k in kinds]), grains * uncovered * cell)
    # Smears differ in colour, and light is uneven.
    stain = 1 + rng.uniform(-0.08, 0.08, (count, 1, 1, 3)) + draw(rng, count, -0.1, 0.05)[..., None]
    uneven = 1 + 0.03 * smooth_field(rng, count, size, (2, 2))[..., None]
    return Scene(np.clip(image * stain * uneven, 0, 1).astype(np.float32))


def _red_cell(rng: np.random.Generator, image: Floats, number: int, size: int) -> Floats:
    """Add a red cell around the middle, pale inside; some places stay empty."""
    count = len(image)
    y, x = pixel_centres(size)
    bearing = 2 * np.pi * (number / RED_CELLS + draw(rng, count, -0.06, 0.06))
    away = draw(rng, count, 0.42, 0.6)
    dy, dx = y - 0.5 - away * np.sin(bearing), x - 0.5 - away * np.cos(bearing)
    reach = draw(rng, count, 0.15, 0.2)
    distance = radius(dy, dx, reach * draw(rng, count, 0.85, 1), reach)
    covered = step(1 - distance, 2 / size / reach) * (draw(rng, count, 0, 1) < 0.7)
    # Red cells are thin in the middle.
    pale = 0.55 * step(0.45 - distance, 0.5)
    return _mix(image, np.array(RED), covered * (1 - pale))


def _nucleus(rng: np.random.Generator, kinds: list[Cell], y: Floats, x: Floats) -> Floats:
    """Return the share of each pixel that the nucleus covers, (B, S, S).

    Here y and x are in units of the cell's radius.
    """
    count = len(kinds)
    size, notch, lobes = (
        _of([getattr(k, f) for k in kinds]) for f in ("nucleus", "notch", "lobes")
    )
    size = np.maximum(size, 0.05)  # where there is none, nothing below is shown
    aside = 0.5 * (1 - size) * (lobes == 1)
    round_one = radius(y - aside, x, size * draw(rng, count, 0.88, 1.05), size)
    dent = radius(
        y - aside - size, x, size * np.maximum(notch, 0.1), size * np.maximum(notch, 0.1) * 0.8
    )
    covered = step(1 - round_one, 0.15) * (lobes == 1)
    covered = covered * (1 - step(1 - dent, 0.3) * (notch > 0.15))
    for number in range(5):
        # Lobes lie along an arc through the cell, three to five of them where there are many.
        there = number < np.where(lobes > 2, lobes + np.rint(draw(rng, count, -1, 1)), lobes)
        bearing = np.pi * (number - 1) * np.where(lobes > 2, 0.42, 0.9) + draw(
            rng, count, -0.2, 0.2
        )
        away = np.where(lobes > 2, 0.48, 0.4)
        lobe = radius(y - away * np.sin(bearing), x - away * np.cos(bearing), size, size * 0.9)
        covered = np.maximum(covered, step(1 - lobe, 0.25) * there * (lobes > 1))
    return cast(Floats, covered)


def _mix(image: Floats, colour: Floats, share: Floats) -> Floats:
    """Blend a colour into an image, by a share for each pixel."""
    return cast(Floats, image + share[..., None] * (colour - image))


def _of(values: list[float]) -> Floats:
    """Return a value for each image, ready to broadcast, (B, 1, 1)."""
    return np.array(values, np.float32).reshape(-1, 1, 1)


def _colours(colours: list[Colour]) -> Floats:
    """Return a colour for each image, ready to broadcast, (B, 1, 1, 3)."""
    return np.array(colours, np.float32).reshape(-1, 1, 1, 3)
