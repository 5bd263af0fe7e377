"""Slices of which each says where it lies -> their order, and the one grid that they make.

Positions and directions are PS3.3, C.7.6.2.1.1, and are compared in three dimensions. They are
written as decimal text, so that they may lie off a regular grid by half a unit of the last decimal.
Nothing here knows how files say it. F slices of H rows and W columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from client.data.errors import Unusable
from client.data.orientation import CANONICAL, Array, Grid, turned

UNEVEN = 0.05
"""Part of their distance by which slices may lie off their places."""
MAX_ROUNDING = 0.2
"""Part of their distance that rounding may explain: at more, a missing slice would look alike."""
ALIKE = 1e-3
"""Part by which sizes of pixels may differ: half a pixel at the far end of 512."""
PARALLEL = 2e-3
"""Radians between slices of one stack: half a pixel at the far end of 256."""
CROOKED = 0.05
"""How far the length of a direction, or the cosine of two at right angles, may be off."""
ROUGH = 1e-2
"""Radians that the rounding of direction cosines may explain."""
UNTILTED = "no regular tilt"
MAX_GROWTH = 2.0
"""Times as many pixels as slices may take once they are shifted into their places."""


@dataclass(frozen=True)
class Place:
    """Where one plane lies; None where nothing says it. Millimetres."""

    position: tuple[float, ...] | None = None
    """(3,) of the centre of the first pixel."""
    orientation: tuple[float, ...] | None = None
    """(6,) direction of a row, then of a column."""
    spacing: tuple[float, float] | None = None
    """Between rows, and between columns."""


@dataclass(frozen=True)
class Stack:
    """How slices make one volume."""

    order: list[int]
    """Which slice comes first, second, ..."""
    spacing: tuple[float, ...] | None
    """Of (D, H, W) in this order, millimetres; None where it is not known."""
    grid: Grid | None = None
    """Orthogonal, of (D, H, W) in this order; sides of a pixel count 1 where nobody says their
    length. None where nothing says how the slices lie."""
    shifts: Array | None = None
    """(F, 2): rows and columns, none negative, by which each slice, in order, lies off the grid's
    first pixel; None where all lie where they should."""
    notes: tuple[str, ...] = ()
    """What was chosen or put right, for people."""


def stacked(
    places: Sequence[Place],
    sides: tuple[int, int],
    what: str = "slice",
    hint: Callable[[], str] = str,
) -> Stack:
    """One grid for slices that lie in parallel and evenly, along the normal of their planes.

    Slices that are shifted within their planes, as a tilted gantry does it, get `shifts`.

    Args:
        sides: H, W.
        what: The field's word for a plane of this record: slice, frame.
        hint: What else tells slices at one place apart.
    Raises:
        Unusable: One does not say where it lies, directions are impossible, slices are not
            parallel, of several sizes, several at one place, missing or uneven; or they are shifted
            by more than `MAX_GROWTH` allows.
    """
    _all_say_where(places, what)
    written = np.array([place.position for place in places], np.float64)
    cosines = np.array([place.orientation for place in places], np.float64)
    if not (np.isfinite(written).all() and np.isfinite(cosines).all()):
        raise Unusable("says where its planes lie in numbers that are not finite")
    rows, columns = _directions(cosines, what)  # where a row and a column run to
    normal = np.cross(rows, columns)
    rounding = _rounding(written) * np.sqrt(3)
    depths = written @ normal
    order = np.argsort(depths, kind="stable")
    apart, first = _evenly(depths[order], rounding, what, hint)
    pixel = _pixel([place.spacing for place in places], what)
    across = written[order] @ np.stack([columns, rows]).T
    slack = _slack(written[order], cosines, depths[order], rounding)
    shifts, notes = _shifted(across, depths[order], pixel or (1.0, 1.0), sides, slack, what)
    corner = np.median(across, axis=0) if shifts is None else across.min(0)
    origin = first * normal + corner[0] * columns + corner[1] * rows
    high, wide = pixel or (1.0, 1.0)
    grid = Grid(origin, np.stack([apart * normal, high * columns, wide * rows]))
    return Stack(order.tolist(), (apart, *pixel) if pixel else None, grid, shifts, notes)


def _all_say_where(places: Sequence[Place], what: str) -> None:
    silent = {
        "ImagePositionPatient": sum(place.position is None for place in places),
        "ImageOrientationPatient": sum(place.orientation is None for place in places),
    }
    if missing := [f"{name} {count}" for name, count in silent.items() if count]:
        raise Unusable(
            f"does not say where its {what}s lie (of {len(places)}, missing or damaged: "
            f"{', '.join(missing)}): export it again, or convert it to NIfTI by what you know of it"
        )


def laid(values: Array, stack: Stack, canonical: bool) -> tuple[Array, tuple[float, ...] | None]:
    """Slices (F, H, W, ...), in order, as a volume in which each lies at its place; its spacing.

    Args:
        canonical: Whether it is turned so that all volumes lie alike in the patient.
    """
    if stack.shifts is not None:
        values = in_place(values, stack.shifts)
    if stack.grid is None or not canonical:
        return values, stack.spacing
    values, grid = turned(values, stack.grid, CANONICAL)
    return values, tuple(grid.spacing.tolist()) if stack.spacing else None


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
    shifts, notes = _shifted(across, numbers * (step @ normal), pixel, sides[1:], exact, "slice")
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


def _directions(cosines: Array, what: str) -> tuple[Array, Array]:
    """Unit vectors, at right angles, along which rows and columns of all slices run."""
    axes = cosines.reshape(-1, 2, 3)
    lengths = np.linalg.norm(axes, axis=2)
    crooked = np.abs((axes[:, 0] * axes[:, 1]).sum(1)).max()
    if np.abs(lengths - 1).max() > CROOKED or crooked > CROOKED:
        raise Unusable("its image orientation is impossible: no two unit vectors at right angles")
    axes = axes / lengths[:, :, None]
    middle = np.median(axes, axis=0)
    usual = axes[np.linalg.norm(axes - middle, axis=(1, 2)).argmin()]
    angles = 2 * np.arcsin(np.clip(np.linalg.norm(axes - usual, axis=2) / 2, 0, 1)).max(1)
    if angles.max() > max(PARALLEL, 2 * _roughness(cosines)):
        raise Unusable(
            f"its {what}s are not parallel: {int((angles > PARALLEL).sum())} of {len(axes)} are "
            f"turned by up to {np.degrees(angles.max()):.1f} degrees. Keep localisers and other "
            "stacks in folders of their own"
        )
    row = middle[0] / np.linalg.norm(middle[0])
    column = middle[1] - (middle[1] @ row) * row
    return row, column / np.linalg.norm(column)


def _evenly(
    places: Array, rounding: float, what: str, hint: Callable[[], str]
) -> tuple[float, float]:
    """Distance between neighbours, and the first one's place, by least squares."""
    gaps = np.diff(places)
    apart = float(np.median(gaps))
    if apart <= 1e-3 or gaps.min() <= max(1e-3, UNEVEN * apart):
        twice = int((gaps <= max(1e-3, UNEVEN * apart)).sum())
        raise Unusable(
            f"several {what}s lie at one place ({twice} of {len(places)} where another one is): "
            f"one acquisition, echo or phase a folder or file{hint()}"
        )
    step, begin = np.polynomial.polynomial.polyfit(np.arange(len(places)), places, 1)[::-1]
    off = np.abs(places - begin - step * np.arange(len(places)))
    if off.max() <= min(MAX_ROUNDING * step, UNEVEN * step + rounding + 1e-3):
        return float(step), float(begin)
    many = np.rint(gaps / apart)
    between = f"{gaps.min():.4g} to {gaps.max():.4g} mm apart"
    if many.max() > 1 and np.abs(gaps - many * apart).max() <= UNEVEN * apart + 2 * rounding + 1e-3:
        raise Unusable(
            f"{what}s are missing: {int((many - 1).sum())} between the {len(places)} that there "
            f"are; neighbours are {between}"
        )
    raise Unusable(
        f"its {what}s lie unevenly: neighbours are {between}. Resample it evenly, or keep stacks "
        "of different distances apart"
    )


def _pixel(spacings: Sequence[tuple[float, float] | None], what: str) -> tuple[float, float] | None:
    known = np.array([spacing for spacing in spacings if spacing is not None])
    if not len(known):
        return None
    low, high = known.min(0), known.max(0)
    if len(known) < len(spacings) or (high - low > ALIKE * high).any():
        raise Unusable(
            f"its {what}s differ in rows, columns or pixel spacing: pixels of {low.tolist()} to "
            f"{high.tolist()} mm, {len(spacings) - len(known)} of unknown size"
        )
    rows, columns = np.median(known, axis=0).tolist()
    return rows, columns


def _shifted(
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
    straight = np.abs(_off_line(places, across)) <= slack[:, None] + 0.5 * np.array(pixel)
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


def _slack(written: Array, cosines: Array, depths: Array, rounding: float) -> Array:
    """(F,) millimetres within its plane by which rounding may have moved each slice."""
    # Positions that lie on one line were not rounded off it, however few decimals they have.
    off_line = np.abs(_off_line(np.arange(len(written)), written)).max()
    slack: Array = min(rounding, 2 * off_line) + _roughness(cosines) * np.abs(
        depths - depths.mean()
    )
    return slack


def _off_line(x: Array, y: Array) -> Array:
    """(F, ...): what is left of y, (F, ...), beside a straight line over x, (F,)."""
    begin, slope = np.polynomial.polynomial.polyfit(x, y, 1)
    left: Array = y - begin - x[:, None] * slope
    return left


def _rounding(written: Array) -> float:
    """Half a unit of the last decimal that any number is written with."""
    return float(0.5 * 10.0 ** -max(map(_decimals, written.ravel().tolist())))


def _roughness(cosines: Array) -> float:
    """Radians by which rounded direction cosines may miss; whole numbers are exact."""
    numbers = [value for value in cosines.ravel().tolist() if value % 1]
    if not numbers:
        return 0.0
    return float(min(ROUGH, np.sqrt(3) * 0.5 * 10.0 ** -max(map(_decimals, numbers))))


def _decimals(value: float) -> int:
    """Decimals of a number as a file may have written it: trailing zeros are not known."""
    exponent = Decimal(str(value)).normalize().as_tuple().exponent
    return max(0, -int(exponent))
