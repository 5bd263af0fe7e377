"""Which bits of a word are the pixel (PS3.5, 8.1.1): the others may hold anything, overlays too.

Decoders return whole words. What is taken from them is taken here, for native and compressed pixels
alike.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.dicom.decoding.codestream import precision
from client.data.errors import Unusable

Array = npt.NDArray[Any]
RLE = "1.2.840.10008.1.2.5"
"""A compression of whole words."""


@dataclass(frozen=True)
class Bits:
    """How a file stores one sample of a pixel."""

    allocated: int
    stored: int
    high: int
    """Where the highest stored bit lies, counted from 0."""
    signed: bool

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest value that the stored bits can hold."""
        if self.signed:
            return -(1 << (self.stored - 1)), (1 << (self.stored - 1)) - 1
        return 0, (1 << self.stored) - 1

    def as_values(self, words: Array) -> Array:
        """The pixels of integer words of any size, of which the other bits are dropped and the sign
        is extended. Words that hold values already are returned with the same values."""
        width = 8 * words.dtype.itemsize
        kind = np.dtype(f"{'i' if self.signed else 'u'}{words.dtype.itemsize}")
        words = words.astype(words.dtype.newbyteorder("="), copy=False).view(kind)
        if self.stored >= width:
            return words
        moved = np.left_shift(words, kind.type(max(0, width - 1 - self.high)))
        return np.right_shift(moved, kind.type(width - self.stored), out=moved)

    def clipped(self, values: Array) -> Array:
        """What a lossy decoder returned, in the range of the stored bits: it may overshoot, and a
        value that wrapped around would be black where it should be white."""
        low, high = int(values.min()), int(values.max())
        if self.signed and low >= 0 and self.range[1] < high < 1 << self.stored:
            return self.as_values(values)  # the code stream knows no sign, as in JPEG-LS
        least, most = self.range
        return values if least <= low and high <= most else np.clip(values, least, most)


def bits_of(header: Any) -> Bits:
    """What a header says; a file that leaves Bits Stored or High Bit out uses all bits below them.

    Raises:
        Unusable: Numbers of bits that no file can have.
    """
    allocated = int(header.BitsAllocated)
    stored = int(header.get("BitsStored") or allocated)
    if not 1 <= stored <= allocated:
        raise Unusable(f"its header names {stored} stored of {allocated} allocated bits")
    high = header.get("HighBit")
    # Many programs write a High Bit that cannot be: 0, or one beyond the word.
    if high is None or not stored - 1 <= int(high) < allocated:
        high = stored - 1
    syntax = header.file_meta.get("TransferSyntaxUID")
    if int(high) > stored - 1 and syntax is not None and syntax.is_encapsulated and syntax != RLE:
        # A code stream of no more bits than are stored has them at the lowest places.
        high = int(high) if precision(header) > stored else stored - 1
    return Bits(allocated, stored, int(high), bool(header.get("PixelRepresentation")))
