"""The orientation of an array in the patient, and the turn that makes all volumes lie alike.

Coordinates are DICOM's (PS3.3, C.7.6.2.1.1): millimetres to the patient's left, back and head. The
canonical orientation of a volume (D, H, W) is that of an axial DICOM series: slices run to the
head, rows to the back, columns to the left. An oblique volume is turned by quarters only, to the
nearest axes, because interpolation would blur it.
"""

from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.errors import Unusable

Array = npt.NDArray[Any]

LEFT, BACK, HEAD = np.eye(3)
CANONICAL = np.stack([HEAD, BACK, LEFT])
"""(3, 3) directions of the axes (D, H, W) of a volume."""
SHOWN = {
    "axial": (HEAD, BACK, LEFT),
    "coronal": (BACK, -HEAD, LEFT),
    "sagittal": (LEFT, -HEAD, BACK),
}
"""Plane of a flat image -> directions of its thin axis, its rows and its columns, as DICOM stores
such planes: head up, and the patient's right on the left of the picture."""
TOLERANCE = 0.25
"""Voxels by which two grids may differ and still be one."""
MIN_DETERMINANT = 0.1
"""Minimum volume of the parallelepiped of three unit axes."""
TIE_BREAK = 1e-3
"""Radians by which the patient's axes are turned before axes are matched. Of two axes at 45 degrees
the same one is then taken, whatever order they are stored in."""


@dataclass(frozen=True)
class Grid:
    """Positions of the voxels of an array with three axes."""

    origin: Array
    """(3,) centre of voxel (0, 0, 0), in millimetres to the left, back and head."""
    steps: Array
    """(3, 3): row a is the vector in millimetres from a voxel to its neighbour along axis a."""

    @property
    def spacing(self) -> Array:
        """Distances (3,) between neighbours, in millimetres."""
        return np.linalg.norm(self.steps, axis=1)

    @property
    def directions(self) -> Array:
        """Unit vectors (3, 3) along the axes."""
        unit: Array = self.steps / self.spacing[:, None]
        return unit

    def place(self, index: Array) -> Array:
        """Return the positions of voxels.

        Args:
            index: (..., 3) indices.
        Returns:
            (..., 3) millimetres.
        """
        place: Array = self.origin + index @ self.steps
        return place


def grid_of(origin: Array, steps: Array) -> Grid:
    """Return a grid after checking that it is possible.

    Args:
        origin: (3,) millimetres.
        steps: (3, 3) millimetres; one row an axis.
    Raises:
        Unusable: A number is not finite, an axis has no length, or two axes have the same
            direction.
    """
    if not (np.isfinite(origin).all() and np.isfinite(steps).all()):
        raise Unusable("the affine that states how it lies is not finite")
    spacing = np.linalg.norm(steps, axis=1)
    # A zero column occurs where a converter lost an axis.
    if not (spacing > 0).all():
        raise Unusable(f"its voxels have the impossible size {spacing.tolist()}")
    if abs(np.linalg.det(steps / spacing[:, None])) < MIN_DETERMINANT:
        raise Unusable("two of its axes have the same direction, so that it is not a volume")
    return Grid(np.asarray(origin, np.float64), np.asarray(steps, np.float64))


def turned(values: Array, grid: Grid, axes: Array = CANONICAL) -> tuple[Array, Grid]:
    """Reorder and mirror the axes of an array so that they are nearest to `axes`.

    Args:
        values: (D, H, W, ...).
        grid: Where its voxels lie.
        axes: (3, 3) orthogonal unit vectors.
    Returns:
        A view of the same voxels, and its grid.
    """
    order, signs = _nearest(grid, axes)
    first = np.zeros(3)
    for axis, sign in zip(order, signs, strict=True):
        # The new first voxel is the old last one along each mirrored axis.
        first[axis] = 0 if sign > 0 else values.shape[axis] - 1
    view = values.transpose(*order, *range(3, values.ndim))
    view = view[tuple(slice(None, None, sign) for sign in signs)]
    steps = grid.steps[list(order)] * np.array(signs)[:, None]
    return view, Grid(grid.place(first), steps)


def _nearest(grid: Grid, axes: Array) -> tuple[tuple[int, ...], list[int]]:
    """Return for each of `axes` the nearest axis of the grid, and 1 or -1 for its direction."""
    c, s = np.cos(TIE_BREAK), np.sin(TIE_BREAK)
    about_head = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about_left = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    along = grid.directions @ (axes @ (about_head @ about_left).T).T
    # All axes are matched together: one by one, two of them could claim the same axis of the grid.
    order = max(permutations(range(3)), key=lambda p: float(np.abs(along[list(p), range(3)]).sum()))
    return order, [1 if along[a, i] > 0 else -1 for i, a in enumerate(order)]


def same_way(grid: Grid, other: Grid) -> bool:
    """Return whether corresponding axes of two grids run to the same side of the patient.

    Args:
        grid: The first grid.
        other: The second.
    """
    return bool(((grid.directions * other.directions).sum(1) > np.sqrt(0.5)).all())


def plane_of(grid: Grid) -> str:
    """Return the plane that is nearest to rows and columns: axial, coronal or sagittal.

    Args:
        grid: A grid whose axis 0 is thin.
    """
    normal = np.abs(np.cross(grid.directions[1], grid.directions[2]))
    named = dict(zip(("sagittal", "coronal", "axial"), normal.tolist(), strict=True))
    return max(named, key=lambda name: named[name])


def difference(grid: Grid, other: Grid, sides: tuple[int, ...]) -> str:
    """Describe how `grid` differs from `other`, for a message about a mask and its image.

    Args:
        grid: The first grid.
        other: The second.
        sides: (D, H, W) voxels of both.
    Returns:
        A sentence, or "" where each corner lies within a quarter of a voxel.
    """
    # Both grids are affine, so that the corners bound the error of every voxel.
    corners = np.array(list(product(*((0, side - 1) for side in sides))), np.float64)
    apart = np.linalg.norm(grid.place(corners) - other.place(corners), axis=1)
    if apart.max() <= TOLERANCE * other.spacing.min():
        return ""
    sizes = [" x ".join(f"{v:.4g}" for v in one.spacing) for one in (grid, other)]
    # Sizes are compared first: a resampled mask differs in place and angle as well.
    if not np.allclose(grid.spacing, other.spacing, rtol=1e-3):
        return f"its voxels are {sizes[0]} mm, not {sizes[1]}"
    ways = [one.directions for one in (grid, other)]
    angle = np.degrees(np.arccos(np.clip((ways[0] * ways[1]).sum(1), -1, 1))).max()
    # Below a tenth of a degree a difference is more likely a shift.
    if angle > 0.1:
        return f"it is turned by {angle:.1f} degrees"
    return f"it is shifted by {apart.max():.4g} mm"
