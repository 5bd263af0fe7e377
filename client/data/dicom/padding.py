"""Pixels outside of the image: Pixel Padding Value and Range Limit (PS3.3, C.7.5.1.1.2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.dicom.bits import Bits

Array = npt.NDArray[Any]
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
"""SOP class of segmentations whose padding is the number of the background. If it were left out of
the range, the lowest label would be shown like it."""


@dataclass(frozen=True)
class Padding:
    """A range of stored values, both ends included, before any transform."""

    low: int
    high: int
    whole: bool = False
    """True if they are compared with whole words, because the stored bits cannot hold them."""

    def of(self, words: Array, values: Array) -> Array:
        """Return which pixels are padding, (*,) bool.

        Args:
            words: (*,) as they are stored.
            values: (*,) the values of their stored bits.
        """
        found = words if self.whole else values
        # A single comparison is twice as fast, and one value is the usual case.
        if self.low == self.high:
            return np.asarray(found == self.low)
        return np.asarray((found >= self.low) & (found <= self.high))


def padding_of(header: Any, bits: Bits) -> Padding | None:
    """Return the padding that a file declares; None where it declares none that a pixel can have.

    Args:
        header: pydicom's dataset.
        bits: The storage of a sample.
    """
    if str(header.get("SOPClassUID", "")) == LABEL_MAP:
        return None
    ends = [_end(header.get(n), bits) for n in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:  # a Range Limit without a Padding Value defines no range
        return None
    first, last = ends[0], ends[0] if ends[1] is None else ends[1]
    low, high = min(first, last), max(first, last)  # MONOCHROME1 has the higher one first
    minimum, maximum = bits.range
    if minimum <= low and high <= maximum:
        return Padding(low, high)
    if low == high:
        # Some scanners pad with a word beyond the stored bits, -2000 in 12 bits without a sign.
        return Padding(low, low, whole=True)
    if low > maximum or high < minimum:
        return None
    return Padding(max(low, minimum), min(high, maximum))


def _end(value: Any, bits: Bits) -> int | None:
    """Return an end of the range as a stored value, whichever sign the file used for it."""
    try:
        word = int(value) & ((1 << bits.allocated) - 1)
    except (TypeError, ValueError):
        return None
    # The attribute's type (US or SS) may differ from that of the pixels.
    for width in (bits.allocated, bits.stored) if bits.signed else ():
        if 1 << (width - 1) <= word < 1 << width:
            return word - (1 << width)
    return word
