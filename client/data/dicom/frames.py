"""One object for each frame: its place, and the transform from its stored values to grey.

All of it is read before anything is sorted, so that no frame is shown with another's attributes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from client.data.dicom.bits import Bits, bits_of
from client.data.dicom.colour import Supplement, supplement_of
from client.data.dicom.files import byte_order
from client.data.dicom.modality import Modality, modality_of
from client.data.dicom.padding import Padding, padding_of
from client.data.dicom.places import place_of
from client.data.dicom.windows import Voi, voi_of
from client.data.errors import Unusable
from client.data.geometry.stacking import Place

T = TypeVar("T")
PETS = ("1.2.840.10008.5.1.4.1.1.128.1", "1.2.840.10008.5.1.4.1.1.130")
"""SOP classes of PET files with several frames: converted from slices (Legacy Converted Enhanced
PET), or made as such (Enhanced PET)."""


@dataclass(frozen=True)
class Frame:
    """A grey frame, as the header of its file describes it, without its pixels."""

    place: Place
    bits: Bits
    padding: Padding | None
    modality: Modality
    voi: Voi | None
    """Window or table that the file has for it."""
    inverted: bool
    """True where low values are shown bright: MONOCHROME1 (PS3.3, C.7.6.3.1.2)."""
    supplement: Supplement | None
    """Colours among its grey values."""


def frames_of(header: Any) -> list[Frame]:
    """Read every frame of a file of grey images, in the order in which they are stored.

    Args:
        header: pydicom's dataset.
    Raises:
        Unusable: An attribute that states how to show a frame is damaged.
    """
    try:
        return _frames(header)
    # pydicom returns attributes unparsed where their text breaks the standard.
    except (TypeError, ValueError, AttributeError, LookupError, OverflowError) as error:
        raise Unusable(f"its header is damaged ({type(error).__name__}: {error})") from error


def _frames(header: Any) -> list[Frame]:
    bits, order = bits_of(header), byte_order(header)
    padding = padding_of(header, bits)
    inverted = str(header.get("PhotometricInterpretation", "")) == "MONOCHROME1"
    count = int(header.get("NumberOfFrames") or 1)
    # Without per-frame groups all frames share the same tables, which may be large.
    ways = count if header.get("PerFrameFunctionalGroupsSequence") else 1
    frames = []
    for number in range(count):
        if number < ways:
            modality = modality_of(header, number, bits, order)
            voi = voi_of(header, number, modality.range, order)
            colours = supplement_of(header, number, bits)
        place = place_of(header, number)
        frames.append(Frame(place, bits, padding, modality, voi, inverted, colours))
    rescaled = any(frame.modality.transform for frame in frames)
    if count > 1 and not rescaled and str(header.get("SOPClassUID", "")) in PETS:
        # Scanners scale each slice by its own maximum; some converters lose these factors.
        raise Unusable(
            "its PET frames do not state how their stored values are rescaled, and each frame has "
            "its own scale: convert it again, or use the slices that it was made of"
        )
    return frames


def in_order(items: Sequence[T], order: Sequence[int]) -> list[T]:
    """Return the items in the given order.

    Args:
        items: One a frame.
        order: Index of the first item, of the second, and so on.
    """
    return [items[i] for i in order]
