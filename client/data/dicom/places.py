"""Where the frames of DICOM files lie: PS3.3, C.7.6.2 and C.7.6.16.2.3."""

from collections.abc import Sequence
from typing import Any

from client.data.dicom.groups import attribute
from client.data.geometry import Place, along, ordered


def place_of(header: Any, frame: int) -> Place:
    """What a file says of one of its frames."""
    # The one position at the top level of a file of several frames is its first frame's alone.
    alone = int(header.get("NumberOfFrames") or 1) == 1
    position = attribute(header, frame, "PlanePositionSequence", "ImagePositionPatient", top=alone)
    turn = attribute(header, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
    return Place(_numbers(position, 3), _numbers(turn, 6), _spacing(header, frame))


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """So many numbers; None where they are others, since a 2D image needs no place."""
    try:
        found = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        return None
    return found if len(found) == count else None


def _spacing(header: Any, frame: int) -> tuple[float, float] | None:
    """Millimetres between rows and between columns."""
    pixels = attribute(header, frame, "PixelMeasuresSequence", "PixelSpacing")
    for value in (pixels, header.get("ImagerPixelSpacing")):
        if value:
            rows, columns = (float(v) for v in value)
            if rows > 0 and columns > 0:
                return rows, columns
    return None


def frame_order(header: Any, places: Sequence[Place]) -> tuple[list[int], float | None]:
    """Of the frames of one file: along their normal where they say it, else as they are stored."""
    count = len(places)
    if all(p.position is not None and p.orientation is not None for p in places):
        return ordered(places, "frame")
    offsets = header.get("GridFrameOffsetVector")  # of a dose
    if offsets is not None and len(offsets) == count:
        return along([float(v) for v in offsets], "frame")
    apart = header.get("SpacingBetweenSlices") or header.get("SliceThickness")
    return list(range(count)), float(apart) if apart else None
