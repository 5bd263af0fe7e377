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
    """Return an orthogonal grid for one whose slices, along axis 0, may be sheared, and the shifts.

    Args:
        grid: The grid of the file's affine.
        sides: (D, H, W) voxels.
    Returns:
        The grid; shifts (D, 2) as in `Stack`, or None; remarks for people.
    Raises:
        Unusable: Rows and columns are not at right angles, or the shear is too large.
    """
    rows, columns = (grid.steps[axis] / grid.spacing[axis] for axis in (1, 2))
    # Rows and columns may deviate from right angles by one pixel at the far end of the image.
    if abs(rows @ columns) * max(sides[1:]) > 1:
        angle = np.degrees(np.arccos(np.clip(abs(rows @ columns), 0, 1)))
        raise Unusable(f"its rows and columns meet at {angle:.1f} degrees: resample it upright")
    normal = np.cross(columns, rows)
    # The normal must point along the slices, or the volume would be mirrored.
    normal *= np.sign(normal @ grid.steps[0])
    numbers, step = np.arange(sides[0]), grid.steps[0]
    across = numbers[:, None] * np.array([step @ rows, step @ columns])
    pixel = (float(grid.spacing[1]), float(grid.spacing[2]))
    # An affine is binary, not decimal text: nothing is explained by rounding.
    exact = np.zeros(len(numbers))
    shifts, notes = shifted(across, numbers * (step @ normal), pixel, sides[1:], exact, "slice")
    if shifts is None:
        return grid, None, ()
    origin = grid.origin + across.min(0) @ np.stack([rows, columns])
    steps = np.stack([(step @ normal) * normal, grid.steps[1], grid.steps[2]])
    return Grid(origin, steps), shifts, notes


def in_place(values: Array, shifts: Array, blended: bool = True) -> Array:
    """Move slices within their planes; what no slice covers is 0.

    Args:
        values: (F, H, W).
        shifts: (F, 2) pixels along rows and columns, none negative.
        blended: True to interpolate linearly; False moves each pixel to the nearest place, as a
            mask needs, because a mean of two classes is another class.
    """
    for axis in (1, 2):
        values = _moved(values, shifts[:, axis - 1], axis, blended)
    return values


def _moved(values: Array, shifts: Array, axis: int, blended: bool) -> Array:
    """Move each slice along one axis by its own number of pixels."""
    whole = (np.floor(shifts) if blended else np.rint(shifts)).astype(int)
    rest = shifts - whole if blended else np.zeros(len(shifts))
    # From the exact shifts, not the rounded ones: an image and its mask must grow alike.
    more = int(np.ceil(shifts.max()))
    if more == 0:
        return values
    side, shape = values.shape[axis], list(values.shape)
    shape[axis] += more
    moved = np.zeros(shape, values.dtype)
    for one, target, begin, part in zip(values, moved, whole, rest.astype(np.float32), strict=True):
        line, own = np.moveaxis(target, axis - 1, 0), np.moveaxis(one, axis - 1, 0)
        # A shift by whole pixels copies values exactly.
        if part == 0:
            line[begin : begin + side] = own
            continue
        # Linear interpolation between the two nearest whole shifts.
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
    """Return by how many pixels slices lie off the first pixel of all, and a remark for people.

    Args:
        across: (F, 2) millimetres along rows' and columns' axes.
        places: (F,) millimetres along the normal.
        pixel: Millimetres between rows and between columns.
        sides: H, W pixels.
        slack: (F,) millimetres that rounding explains.
        what: The word for a plane in messages.
    Returns:
        (F, 2) pixels, or None where every slice lies within half a pixel of its place.
    Raises:
        Unusable: Moving the slices would make the volume more than `MAX_GROWTH` times as large.
    """
    # Half a pixel to either side of the middle is what rounding to pixels allows.
    middle = (across.min(0) + across.max(0)) / 2
    off = np.maximum(np.abs(across - middle) - slack[:, None], 0)
    if (off <= 0.5 * np.array(pixel)).all():
        return None, ()
    # A tilted gantry shifts each slice in proportion to its depth: only then is an angle
    # meaningful.
    straight = np.abs(off_line(places, across)) <= slack[:, None] + 0.5 * np.array(pixel)
    regular = bool(straight.all())
    shifts: Array = np.round((across - across.min(0)) / np.array(pixel), 3)
    # A steep tilt would make most of the volume padding, which costs memory and teaches nothing.
    if np.prod((np.array(sides) + shifts.max(0)) / np.array(sides)) > MAX_GROWTH:
        tilt = f"a tilt of {_tilt(across, places):.1f} degrees" if regular else UNTILTED
        most = float((across.max(0) - across.min(0)).max())
        raise Unusable(
            f"its {what}s are shifted within their planes by up to {most:.4g} mm ({tilt}), which "
            "is too much to correct: resample it upright"
        )
    tilt = f"a tilt of {_tilt(across, places):.2g} degrees" if regular else UNTILTED
    return shifts, (
        f"have {what}s that are shifted within their planes ({tilt}): each was moved to its stated "
        "position",
    )


def _tilt(across: Array, places: Array) -> float:
    """Return the degrees by which the line through the slices is tilted against their normal."""
    slopes = np.polynomial.polynomial.polyfit(places, across, 1)[1]
    return float(np.degrees(np.arctan(np.linalg.norm(slopes))))
