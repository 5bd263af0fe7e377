"""The places of DICOM frames in the patient: PS3.3, C.7.6.2, C.7.6.16.2.3, C.8.8.3.2 and
C.8.4.15."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from client.data.dicom.groups import attribute
from client.data.errors import Unusable
from client.data.geometry.stacking import Place, Stack, stacked

UNKNOWN = (
    "do not state how their frames lie in the patient and are read as they are stored. Check that "
    "all files of the site lie in the same way"
)
REFERENCES = (
    "have slices with different FrameOfReferenceUIDs, which are treated as one, because some "
    "programs replace them file by file. Check that the patient was not moved between them"
)
TWO_D, CENTIMETRES = 1, 3
"""Codes of ultrasound regions: a two-dimensional image, and centimetres as the unit of its axes
(PS3.3, C.8.5.5.1)."""
DISTINGUISHING = (
    "StackID", "AcquisitionNumber", "FrameAcquisitionNumber", "EchoTime", "EffectiveEchoTime",
    "TemporalPositionIdentifier", "TemporalPositionIndex", "DiffusionBValue", "TriggerTime",
    "ImageType", "FrameType", "ConvolutionKernel", "ReferencedSegmentNumber", "InversionTime",
    "InversionTimes", "FlipAngle", "KVP", "ContrastBolusAgent", "NominalCardiacTriggerDelayTime",
    "NominalPercentageOfCardiacPhase",
)  # fmt: skip
"""Attributes that may distinguish slices at one place, for messages."""
TIMES = ("AcquisitionTime", "AcquisitionDateTime", "FrameAcquisitionDateTime")
"""Attributes that are named only if no other differs: time often differs between neighbours,
too."""


def place_of(header: Any, frame: int) -> Place:
    """Read the place of one frame.

    Args:
        header: pydicom's dataset.
        frame: Number of the frame, from 0.
    Returns:
        The place; None in its fields where the file does not state it.
    """
    # At the top level of a file of several frames, the position is that of the first frame only.
    alone = int(header.get("NumberOfFrames") or 1) == 1
    position = attribute(header, frame, "PlanePositionSequence", "ImagePositionPatient", top=alone)
    turn = attribute(header, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
    return Place(_numbers(position, 3), _numbers(turn, 6), _spacing(header, frame))


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Parse that many numbers; None where the value is another, since a 2D image needs no place."""
    try:
        found = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        return None
    return found if len(found) == count else None


def _spacing(header: Any, frame: int) -> tuple[float, float] | None:
    """Return millimetres between rows and between columns.

    Pixel Spacing in the patient comes first; then Imager Pixel Spacing at the detector, where
    shadows are larger but alike along both axes; then that of a film that was scanned (PS3.3,
    10.7.1).
    """
    return _first_positive(
        attribute(header, frame, "PixelMeasuresSequence", "PixelSpacing"),
        header.get("ImagerPixelSpacing"),
        header.get("NominalScannedPixelSpacing"),
    )


def flat_spacing(header: Any) -> tuple[float, float] | None:
    """Return the distances between rows and between columns of a 2D image, of which the ratio
    counts.

    Where there are no millimetres, ultrasound regions or the PixelAspectRatio are used.

    Args:
        header: pydicom's dataset.
    """
    regions = header.get("SequenceOfUltrasoundRegions") or []
    steps = {_region(region) for region in regions if region.get("RegionSpatialFormat") == TWO_D}
    # Several scales in one image leave no single ratio.
    shared = steps.pop() if len(steps) == 1 else None
    return _spacing(header, 0) or shared or _first_positive(header.get("PixelAspectRatio"))


def _region(region: Any) -> tuple[float, float] | None:
    """Return the millimetres of a pixel of an ultrasound region."""
    # Other regions have time or velocity along an axis, as in M-mode and Doppler.
    if {region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")} != {
        CENTIMETRES
    }:
        return None
    # The sign states the direction in which physical values grow, not a distance.
    steps = _numbers([region.get("PhysicalDeltaY"), region.get("PhysicalDeltaX")], 2)
    return _first_positive([10 * abs(v) for v in steps] if steps else None)


def _first_positive(*values: Any) -> tuple[float, float] | None:
    """Return the first pair of positive numbers."""
    for value in values:
        found = _numbers(value, 2)
        if found and min(found) > 0 and np.isfinite(found).all():
            return found[0], found[1]
    return None


def stack_of(header: Any, places: Sequence[Place], sides: tuple[int, int]) -> Stack:
    """Order the frames of one file along their normal, or as stored where their places are unknown.

    Args:
        header: pydicom's dataset.
        places: One place a frame.
        sides: H, W pixels.
    Raises:
        Unusable: They are not slices of a volume, or as in `stacked`.
    """
    _are_slices(header)
    if all(p.position is not None and p.orientation is not None for p in places):
        return stacked(places, sides, "frame", lambda: differing(_per_frame(header, len(places))))
    first, offsets = _dose(header, places) or _nuclear(header, places) or (places[0], None)
    if offsets is None:
        apart = _number(header.get("SpacingBetweenSlices"))
        pixel = places[0].spacing
        spacing = (abs(apart), *pixel) if apart and pixel else None
        return Stack(list(range(len(places))), spacing, notes=(UNKNOWN,))
    known = first.position is not None and first.orientation is not None
    # Offsets without a first plane still give the distances; only the orientation is unknown.
    if not known:
        first = replace(first, position=(0.0, 0, 0), orientation=(1.0, 0, 0, 0, 1, 0))
    across = np.array(first.orientation).reshape(2, 3)
    normal = np.cross(across[0], across[1])
    begin = np.array(first.position)
    made = [replace(first, position=tuple((begin + v * normal).tolist())) for v in offsets]
    stack = stacked(made, sides, "frame")
    return stack if known else replace(stack, grid=None, notes=(UNKNOWN,))


def _dose(header: Any, places: Sequence[Place]) -> tuple[Place, list[float]] | None:
    """Return the first plane and the offsets along its normal of a dose grid (PS3.3, C.8.8.3.2).

    Offsets count from the first plane or, in old files, are the planes' z of an axial dose.
    """
    count = len(places)
    offsets = _numbers(header.get("GridFrameOffsetVector"), count)
    if offsets is None:
        return None
    first = replace(places[0], position=_numbers(header.get("ImagePositionPatient"), 3))
    turn = first.orientation
    # z can replace the offset only where the normal points to the head.
    upright = turn is None or np.cross(turn[:3], turn[3:])[2] > 0
    if offsets[0] != 0 and not upright:
        raise Unusable(
            "its GridFrameOffsetVector does not begin with 0, though its planes are not axial: "
            "the order of the planes is unknown"
        )
    return first, [v - offsets[0] for v in offsets]


def _nuclear(header: Any, places: Sequence[Place]) -> tuple[Place, list[float]] | None:
    """Return the first plane and the offsets along its normal of reconstructed slices (PS3.3,
    C.8.4.15).
    """
    detectors = header.get("DetectorInformationSequence")
    apart = _number(header.get("SpacingBetweenSlices"))
    if not detectors or not apart:
        return None
    first = replace(
        places[0],
        position=_numbers(detectors[0].get("ImagePositionPatient"), 3),
        orientation=_numbers(detectors[0].get("ImageOrientationPatient"), 6),
    )
    # SliceVector numbers the slices from 1.
    numbers = _numbers(header.get("SliceVector"), len(places)) or tuple(range(1, len(places) + 1))
    # A negative SpacingBetweenSlices stacks the slices against the normal.
    return first, [apart * (number - 1) for number in numbers]


def _are_slices(header: Any) -> None:
    """Refuse frames that are tiles of a slide or views of a scintigraphy."""
    # Whole-slide images (PS3.3, C.8.12.4) are frames of one plane.
    if header.get("TotalPixelMatrixColumns") or header.get("TotalPixelMatrixRows"):
        raise Unusable("its frames are tiles of one slide, not slices of a volume")
    kind = header.get("ImageType")
    views = kind is not None and len(kind) > 2 and not str(kind[2]).startswith("RECON")
    # Planar, dynamic and gated scintigraphy share the modality NM with tomography.
    if views and str(header.get("Modality", "")) == "NM":
        raise Unusable(f"its frames are views of type {kind[2]}, not slices of a volume")


def no_mosaic(headers: Sequence[Any]) -> None:
    """Refuse a volume's slices side by side in one image, as Siemens scanners store series of
    volumes.

    Args:
        headers: One header a file.
    Raises:
        Unusable: ImageType names a mosaic.
    """
    if any("MOSAIC" in _words(header.get("ImageType")) for header in headers):
        raise Unusable(
            "is a mosaic of slices side by side (ImageType MOSAIC): convert it to NIfTI, of which "
            "one volume can be named"
        )


def _words(value: Any) -> list[str]:
    several = value is not None and not isinstance(value, str)
    return [str(word).strip().upper() for word in (value if several else [value])]


def references(headers: Sequence[Any]) -> tuple[str, ...]:
    """Return a remark if slices name different origins of their coordinates, else nothing.

    Args:
        headers: One header a slice.
    """
    named = {str(header.get("FrameOfReferenceUID", "") or "") for header in headers} - {""}
    return (REFERENCES,) if len(named) > 1 else ()


def differing(headers: Sequence[Any]) -> str:
    """Return the end of a message: the attributes that distinguish slices of one place, or the
    copies.

    Args:
        headers: One header, or dictionary of a frame's attributes, for each slice.
    """
    instances = [str(h.get("SOPInstanceUID", "") or number) for number, h in enumerate(headers)]
    if copies := len(instances) - len(set(instances)):
        return f"; {copies} files are copies of others, with one SOPInstanceUID: remove them"
    for known in (DISTINGUISHING, TIMES):
        names = [name for name in known if len({str(h.get(name, "")) for h in headers}) > 1]
        if names:
            break
    return f"; they differ in {', '.join(names)}" if names else ""


def _per_frame(header: Any, count: int) -> list[dict[str, Any]]:
    """Return the attributes in each frame's functional groups, by keyword."""
    groups = (header.get("PerFrameFunctionalGroupsSequence") or [])[:count]
    return [dict(_leaves(group)) for group in groups]


def _leaves(group: Any) -> Iterator[tuple[str, Any]]:
    for macro in group:
        for element in macro.value[0] if macro.VR == "SQ" and macro.value else ():
            yield element.keyword, element.value


def _number(value: Any) -> float | None:
    found = _numbers([value], 1)
    return found[0] if found and np.isfinite(found[0]) else None
