"""Pixels that are no image: Pixel Padding Value and Range Limit (PS3.3, C.7.5.1.1.2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.dicom.bits import Bits

Array = npt.NDArray[Any]
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
"""Segmentations whose padding is the number of the background: were it left out of the range, the
lowest label would be shown like it."""


@dataclass(frozen=True)
class Padding:
    """Stored values, both ends included, before any transform."""

    low: int
    high: int
    whole: bool = False
    """Whether they are compared with whole words, because the stored bits cannot hold them."""

    def of(self, words: Array, values: Array) -> Array:
        """(*,) bool: which pixels are padding.

        Args:
            words: As they are stored.
            values: What their stored bits hold.
        """
        found = words if self.whole else values
        if self.low == self.high:
            return np.asarray(found == self.low)
        return np.asarray((found >= self.low) & (found <= self.high))


def padding_of(header: Any, bits: Bits) -> Padding | None:
    """What a file says; None where it says nothing, or nothing that a pixel can be."""
    if str(header.get("SOPClassUID", "")) == LABEL_MAP:
        return None
    ends = [_end(header.get(n), bits) for n in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:  # a limit alone is the end of no range
        return None
    first, last = ends[0], ends[0] if ends[1] is None else ends[1]
    low, high = min(first, last), max(first, last)  # MONOCHROME1 has the higher one first
    least, most = bits.range
    if least <= low and high <= most:
        return Padding(low, high)
    if low == high:
        # Some scanners pad with a word beyond the stored bits, -2000 in 12 bits without a sign.
        return Padding(low, low, whole=True)
    return Padding(max(low, least), min(high, most)) if low <= most and high >= least else None


def _end(value: Any, bits: Bits) -> int | None:
    """As a stored value, under whichever sign the file has written it."""
    try:
        word = int(value) & ((1 << bits.allocated) - 1)
    except (TypeError, ValueError):
        return None
    for width in (bits.allocated, bits.stored) if bits.signed else ():
        if 1 << (width - 1) <= word < 1 << width:
            return word - (1 << width)
    return word
