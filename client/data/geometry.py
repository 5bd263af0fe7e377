"""Where slices lie in the patient, and in which order they make a volume.

A place is what a file says of one plane; nothing here knows how files say it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.records import Unusable

Array = npt.NDArray[Any]
UNEVEN = 0.05
"""Part of their distance by which slices may lie off their places."""


@dataclass(frozen=True)
class Place:
    """Where one plane lies; None where nothing says it. Millimetres."""

    position: tuple[float, ...] | None = None
    """(3,) of the centre of the first pixel."""
    orientation: tuple[float, ...] | None = None
    """(6,) direction of a row, then of a column."""
    spacing: tuple[float, float] | None = None
    """Between rows, and between columns."""


def ordered(places: Sequence[Place], what: str) -> tuple[list[int], float]:
    """Order of planes along their normal, and the distance between neighbours.

    Args:
        what: The field's word for a plane of this record: slice, frame.
    Raises:
        Unusable: One does not say where it lies, they are not parallel, two lie at one place, or
            their distances differ.
    """
    return _sorted([_plane(place) for place in places], what)


def along(offsets: Sequence[float], what: str) -> tuple[list[int], float]:
    """As `ordered`, of planes that say no more than their offset along one normal."""
    return _sorted([(np.array([0.0, 0, 1]), float(v)) for v in offsets], what)


def _plane(place: Place) -> tuple[Array, float]:
    """Normal of a plane, and its place along it."""
    if place.position is None or place.orientation is None:
        raise Unusable("does not say where its planes lie: ImagePositionPatient is missing")
    axes = np.array(place.orientation).reshape(2, 3)
    normal = np.cross(*axes)
    if not 0.9 < np.linalg.norm(normal) < 1.1:
        raise Unusable("its image orientation is impossible")
    return normal, float(normal @ np.array(place.position))


def _sorted(planes: Sequence[tuple[Array, float]], what: str) -> tuple[list[int], float]:
    normals = np.stack([normal for normal, _ in planes])
    if np.abs(normals - normals[0]).max() > 1e-2:
        raise Unusable(f"its {what}s are not parallel")
    places = np.array([place for _, place in planes])
    order = np.argsort(places, kind="stable")
    gaps = np.diff(places[order])
    apart = float(np.median(gaps))
    if apart <= 0 or gaps.min() < (1 - UNEVEN) * apart - 1e-3:
        raise Unusable(f"several {what}s lie at one place: one folder or file a volume")
    if gaps.max() > (1 + UNEVEN) * apart + 1e-3:
        raise Unusable(f"{what}s are missing: neighbours are {apart:g} to {gaps.max():g} mm apart")
    return order.tolist(), apart
