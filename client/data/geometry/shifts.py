"""Slices that are shifted within their planes, as by a tilted gantry, are moved to their places.

F slices of H rows and W columns.
"""

import numpy as np

from client.data.errors import Unusable
from client.data.geometry.orientation import Array, Grid
from client.data.geometry.rounding import off_line

UNTILTED = "no regular tilt"
MAX_GROWTH = 2.0
"""Factor by which the pixels of slices may grow once they are shifted into their places."""


def straightened(grid: Grid, sides: tuple[int, ...]) -> tuple[Grid, Array | None, tuple[str, ...]]:
    """An orthogonal grid for one whose slices, along axis 0, may be sheared; shifts as `Stack`.

    Args:
        sides: (D, H, W).
    Raises:
        Unusable: Rows and columns are not at right angles, or the shear is too large.
    """
    rows, columns = (grid.steps[axis] / grid.spacing[axis] for axis in (1, 2))
    if abs(rows @ columns) * max(sides[1:]) > 1:  # a pixel at the far end
        angle = np.degrees(np.arccos(np.clip(abs(rows @ columns), 0, 1)))
        raise Unusable(f"its rows and columns meet at {angle:.1f} degrees: resample it upright")
    normal = np.cross(columns, rows)
    normal *= np.sign(normal @ grid.steps[0])
    numbers, step = np.arange(sides[0]), grid.steps[0]
    across = numbers[:, None] * np.array([step @ rows, step @ columns])
    pixel = (float(grid.spacing[1]), float(grid.spacing[2]))
    exact = np.zeros(len(numbers))
    shifts, notes = shifted(across, numbers * (step @ normal), pixel, sides[1:], exact, "slice")
    if shifts is None:
        return grid, None, ()
    origin = grid.origin + across.min(0) @ np.stack([rows, columns])
    steps = np.stack([(step @ normal) * normal, grid.steps[1], grid.steps[2]])
    return Grid(origin, steps), shifts, notes


def in_place(values: Array, shifts: Array, blended: bool = True) -> Array:
    """Slices (F, H, W) moved by `shifts` within their planes; what no slice covers is 0.

    Args:
        blended: Whether pixels are interpolated linearly; those of a mask go to the nearest place.
    """
    for axis in (1, 2):
        values = _moved(values, shifts[:, axis - 1], axis, blended)
    return values


def _moved(values: Array, shifts: Array, axis: int, blended: bool) -> Array:
    whole = (np.floor(shifts) if blended else np.rint(shifts)).astype(int)
    rest = shifts - whole if blended else np.zeros(len(shifts))
    more = int(np.ceil(shifts.max()))  # alike for an image and its mask
    if more == 0:
        return values
    side, shape = values.shape[axis], list(values.shape)
    shape[axis] += more
    moved = np.zeros(shape, values.dtype)
    for one, target, begin, part in zip(values, moved, whole, rest.astype(np.float32), strict=True):
        line, own = np.moveaxis(target, axis - 1, 0), np.moveaxis(one, axis - 1, 0)
        if part == 0:
            line[begin : begin + side] = own
            continue
        both = np.zeros((side + 1, *own.shape[1:]), np.float32)
        both[:side] += own * (1 - part)
        both[1:] += own * part
        line[begin : begin + side + 1] = both if values.dtype.kind == "f" else np.rint(both)
    return moved


def shifted(
    across: Array,
    places: Array,
    pixel: tuple[float, float],
    sides: tuple[int, ...],
    slack: Array,
    what: str,
) -> tuple[Array | None, tuple[str, ...]]:
    """(F, 2) pixels by which slices lie off the first pixel of all, and what to say of it.

    Args:
        across: (F, 2) millimetres along rows' and columns' axes.
        slack: (F,) millimetres that rounding explains.
    """
    middle = (across.min(0) + across.max(0)) / 2
    off = np.maximum(np.abs(across - middle) - slack[:, None], 0)
    if (off <= 0.5 * np.array(pixel)).all():
        return None, ()
    straight = np.abs(off_line(places, across)) <= slack[:, None] + 0.5 * np.array(pixel)
    slopes = np.polynomial.polynomial.polyfit(places, across, 1)[1]
    angle = float(np.degrees(np.arctan(np.linalg.norm(slopes))))
    most = float((across.max(0) - across.min(0)).max())
    regular = bool(straight.all())
    shifts: Array = np.round((across - across.min(0)) / np.array(pixel), 3)
    if np.prod((np.array(sides) + shifts.max(0)) / np.array(sides)) > MAX_GROWTH:
        tilt = f"a tilt of {angle:.1f} degrees" if regular else UNTILTED
        raise Unusable(
            f"its {what}s are shifted within their planes by up to {most:.4g} mm ({tilt}), which "
            "is too much to put right: resample it upright"
        )
    tilt = f"a tilt of {angle:.2g} degrees" if regular else UNTILTED
    return shifts, (
        f"have {what}s that are shifted within their planes ({tilt}): each was moved to where its "
        "position says",
    )
