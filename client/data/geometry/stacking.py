"""Slices, each with its position, are put in order on one regular grid.

Positions and directions are Image Position and Image Orientation (Patient) of PS3.3, C.7.6.2.1.1,
compared in three dimensions: a sort by one coordinate alone would fail for oblique series. This
module does not know how a file states them. F slices of H rows and W columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from client.data.errors import Unusable
from client.data.geometry.orientation import CANONICAL, Array, Grid, turned
from client.data.geometry.rounding import half_unit, roughness, slack
from client.data.geometry.shifts import in_place, shifted

MAX_UNEVENNESS = 0.05
"""Share of their distance by which slices may lie off a regular grid."""
MAX_ROUNDING = 0.2
"""Share of their distance that rounding may explain; with more, a missing slice would go unseen."""
SIZE_TOLERANCE = 1e-3
"""Share by which sizes of pixels may differ: half a pixel at the far end of 512."""
MAX_ANGLE = 2e-3
"""Radians between slices of one stack: half a pixel at the far end of 256."""
MAX_SKEW = 0.05
"""Tolerance of the length of a direction, and of the cosine of two at right angles."""


@dataclass(frozen=True)
class Place:
    """Position of one plane in the patient, in millimetres; None where a file does not state it."""

    position: tuple[float, ...] | None = None
    """(3,) centre of the first pixel."""
    orientation: tuple[float, ...] | None = None
    """(6,) direction of a row, then of a column."""
    spacing: tuple[float, float] | None = None
    """Distances between rows and between columns."""


@dataclass(frozen=True)
class Stack:
    """The order of slices in one volume, and its grid."""

    order: list[int]
    """Index of the first slice, of the second, and so on."""
    spacing: tuple[float, ...] | None
    """Distances along (D, H, W) in this order, in millimetres; None where unknown."""
    grid: Grid | None = None
    """Orthogonal grid of (D, H, W) in this order; a pixel of unknown size counts as 1 mm. None
    where the file does not state how the slices lie."""
    shifts: Array | None = None
    """(F, 2) pixels along rows and columns, none negative, by which each slice, in order, lies off
    the grid's first pixel; None where all slices are aligned."""
    notes: tuple[str, ...] = ()
    """Remarks for people about what was chosen or corrected."""


def stacked(
    places: Sequence[Place],
    sides: tuple[int, int],
    what: str = "slice",
    hint: Callable[[], str] = str,
) -> Stack:
    """Find one grid for slices that are parallel and evenly spaced along the normal of their
    planes.

    Slices that are shifted within their planes, as under a tilted gantry, get `shifts`.

    Args:
        places: Position of each slice, in any order.
        sides: H, W pixels.
        what: The word for a plane of this record in messages: slice or frame.
        hint: Returns what else distinguishes slices at one place, for a message.
    Raises:
        Unusable: A slice lacks its position, directions are impossible, slices are not parallel,
            differ in size, coincide, are missing or uneven, or are shifted by more than
            `MAX_GROWTH` allows.
    """
    written, cosines = _stated(places, what)
    rows, columns = _directions(cosines, what)
    normal = np.cross(rows, columns)
    # Each of three coordinates may be rounded: the length of the error grows by sqrt(3).
    rounding = half_unit(written) * np.sqrt(3)
    # The distance along the normal orders the slices, whichever way the patient lies.
    depths = written @ normal
    order = np.argsort(depths, kind="stable")
    apart, first = _evenly(depths[order], rounding, what, hint)
    pixel = _pixel([place.spacing for place in places], what)
    across = written[order] @ np.stack([columns, rows]).T
    tolerance = slack(written[order], cosines, depths[order], rounding)
    shifts, notes = shifted(across, depths[order], pixel or (1.0, 1.0), sides, tolerance, what)
    # Where slices are moved, the grid begins at the outermost one; else rounding is averaged out.
    corner = np.median(across, axis=0) if shifts is None else across.min(0)
    origin = first * normal + corner[0] * columns + corner[1] * rows
    high, wide = pixel or (1.0, 1.0)
    grid = Grid(origin, np.stack([apart * normal, high * columns, wide * rows]))
    return Stack(order.tolist(), (apart, *pixel) if pixel else None, grid, shifts, notes)


def laid(values: Array, stack: Stack, canonical: bool) -> tuple[Array, tuple[float, ...] | None]:
    """Move each slice to its place in the volume, and turn the volume.

    Args:
        values: Slices (F, H, W, ...), in order.
        stack: Their grid and shifts.
        canonical: True to turn the axes so that all volumes lie alike in the patient.
    Returns:
        The volume and its spacing in millimetres, None where unknown.
    """
    if stack.shifts is not None:
        values = in_place(values, stack.shifts)
    # Without a grid the direction in the patient is unknown, and a turn would be a guess.
    if stack.grid is None or not canonical:
        return values, stack.spacing
    values, grid = turned(values, stack.grid, CANONICAL)
    return values, tuple(grid.spacing.tolist()) if stack.spacing else None


def _stated(places: Sequence[Place], what: str) -> tuple[Array, Array]:
    """Return positions (F, 3) and direction cosines (F, 6); every slice must state both."""
    silent = {
        "ImagePositionPatient": sum(place.position is None for place in places),
        "ImageOrientationPatient": sum(place.orientation is None for place in places),
    }
    if missing := [f"{name} {count}" for name, count in silent.items() if count]:
        raise Unusable(
            f"does not state where its {what}s lie (of {len(places)}, missing or damaged: "
            f"{', '.join(missing)}): export it again, or convert it to NIfTI if you know how they "
            "lie"
        )
    written = np.array([place.position for place in places], np.float64)
    cosines = np.array([place.orientation for place in places], np.float64)
    if not (np.isfinite(written).all() and np.isfinite(cosines).all()):
        raise Unusable("states where its planes lie in numbers that are not finite")
    return written, cosines


def _directions(cosines: Array, what: str) -> tuple[Array, Array]:
    """Return unit vectors, at right angles, along which rows and columns of all slices run."""
    axes = cosines.reshape(-1, 2, 3)
    lengths = np.linalg.norm(axes, axis=2)
    crooked = np.abs((axes[:, 0] * axes[:, 1]).sum(1)).max()
    # Direction cosines of zeros occur where a program has cleared the header.
    if np.abs(lengths - 1).max() > MAX_SKEW or crooked > MAX_SKEW:
        raise Unusable("its image orientation is impossible: not two unit vectors at right angles")
    axes = axes / lengths[:, :, None]
    middle = np.median(axes, axis=0)
    # Angles are measured from a real slice: a localiser among the slices would tilt their mean.
    usual = axes[np.linalg.norm(axes - middle, axis=(1, 2)).argmin()]
    angles = 2 * np.arcsin(np.clip(np.linalg.norm(axes - usual, axis=2) / 2, 0, 1)).max(1)
    if angles.max() > max(MAX_ANGLE, 2 * roughness(cosines)):
        raise Unusable(
            f"its {what}s are not parallel: {int((angles > MAX_ANGLE).sum())} of {len(axes)} are "
            f"turned by up to {np.degrees(angles.max()):.1f} degrees. Keep localisers and other "
            "stacks in folders of their own"
        )
    # The median of rounded directions is not exactly orthogonal (Gram-Schmidt).
    row = middle[0] / np.linalg.norm(middle[0])
    column = middle[1] - (middle[1] @ row) * row
    return row, column / np.linalg.norm(column)


def _evenly(
    places: Array, rounding: float, what: str, hint: Callable[[], str]
) -> tuple[float, float]:
    """Return the distance between neighbours and the first one's position, by least squares."""
    gaps = np.diff(places)
    apart = float(np.median(gaps))
    # Repeated places mean several echoes, phases or stacks, which are not one volume.
    if apart <= 1e-3 or gaps.min() <= max(1e-3, MAX_UNEVENNESS * apart):
        twice = int((gaps <= max(1e-3, MAX_UNEVENNESS * apart)).sum())
        raise Unusable(
            f"several {what}s lie at one place ({twice} of {len(places)} where another one is): "
            f"one acquisition, echo or phase a folder or file{hint()}"
        )
    # A fit over all slices averages rounding out; the first gap alone would not.
    step, begin = np.polynomial.polynomial.polyfit(np.arange(len(places)), places, 1)[::-1]
    off = np.abs(places - begin - step * np.arange(len(places)))
    if off.max() <= min(MAX_ROUNDING * step, MAX_UNEVENNESS * step + rounding + 1e-3):
        return float(step), float(begin)
    # Distinguish missing slices from two mixed series: only the former have gaps of whole steps.
    many = np.rint(gaps / apart)
    between = f"{gaps.min():.4g} to {gaps.max():.4g} mm apart"
    if (
        many.max() > 1
        and np.abs(gaps - many * apart).max() <= MAX_UNEVENNESS * apart + 2 * rounding + 1e-3
    ):
        raise Unusable(
            f"{what}s are missing: {int((many - 1).sum())} between the {len(places)} that there "
            f"are; neighbours are {between}"
        )
    raise Unusable(
        f"its {what}s lie unevenly: neighbours are {between}. Resample it evenly, or keep stacks "
        "of different distances apart"
    )


def _pixel(spacings: Sequence[tuple[float, float] | None], what: str) -> tuple[float, float] | None:
    """Return the size of a pixel, in millimetres between rows and columns; None where unknown."""
    known = np.array([spacing for spacing in spacings if spacing is not None])
    if not len(known):
        return None
    low, high = known.min(0), known.max(0)
    # Slices of other pixel sizes would be stretched when they are stacked.
    if len(known) < len(spacings) or (high - low > SIZE_TOLERANCE * high).any():
        raise Unusable(
            f"its {what}s differ in rows, columns or pixel spacing: pixels of {low.tolist()} to "
            f"{high.tolist()} mm, {len(spacings) - len(known)} of unknown size"
        )
    rows, columns = np.median(known, axis=0).tolist()
    return rows, columns
