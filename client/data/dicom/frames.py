"""One object a frame: where it lies, and how its stored values become grey.

All of it is found before anything is sorted, so that no frame is shown by another's attributes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from client.data.dicom.groups import holders
from client.data.dicom.places import place_of
from client.data.geometry import Place

T = TypeVar("T")


@dataclass(frozen=True)
class Frame:
    """A frame of a file, as its header describes it; its pixels are elsewhere."""

    header: Any
    """Of its file."""
    number: int
    """Of the frame within its file, from 0."""
    place: Place
    rescale: tuple[float, float] | None
    """Slope and intercept; None where the file has a table or nothing."""
    inverted: bool
    """Whether low values are shown bright."""


def frames_of(header: Any) -> list[Frame]:
    """Every frame of a file, in the order in which they are stored."""
    count = int(header.get("NumberOfFrames") or 1)
    inverted = str(header.get("PhotometricInterpretation", "")) == "MONOCHROME1"
    return [
        Frame(header, i, place_of(header, i), _rescale(header, i), inverted) for i in range(count)
    ]


def _rescale(header: Any, frame: int) -> tuple[float, float] | None:
    """From the first holder that has either: the other is then 1 or 0."""
    for holder in holders(header, frame, "PixelValueTransformationSequence"):
        slope, intercept = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
        if slope is not None or intercept is not None:
            return (
                1.0 if slope is None else float(slope),
                0.0 if intercept is None else float(intercept),
            )
    return None


def in_order(items: Sequence[T], order: Sequence[int]) -> list[T]:
    """The items, as `order` counts them."""
    return [items[i] for i in order]
