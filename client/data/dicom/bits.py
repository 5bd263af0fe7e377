"""The bits of a word that hold the pixel (PS3.5, 8.1.1); the others can hold anything, even
overlays.

Decoders return whole words. The pixel bits are extracted here, for native and compressed pixels
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
"""Transfer syntax that compresses whole words."""


@dataclass(frozen=True)
class Bits:
    """The storage of one sample of a pixel."""

    allocated: int
    """Bits of a word (Bits Allocated)."""
    stored: int
    """Bits of the pixel (Bits Stored)."""
    high: int
    """Position of the highest stored bit, counted from 0 (High Bit)."""
    signed: bool
    """True for two's complement (Pixel Representation 1)."""

    @property
    def range(self) -> tuple[int, int]:
        """Minimum and maximum value that the stored bits can hold."""
        if self.signed:
            return -(1 << (self.stored - 1)), (1 << (self.stored - 1)) - 1
        return 0, (1 << self.stored) - 1

    def as_values(self, words: Array) -> Array:
        """Extract the pixels of integer words of any size: other bits are dropped, the sign is
        extended.

        Args:
            words: (*,) words. Words that hold values already are returned with the same values.
        Returns:
            (*,) integers of the size of the words.
        """
        # A decoder may return larger words than Bits Allocated: the pixel's place is counted from
        # bit 0.
        width = 8 * words.dtype.itemsize
        kind = np.dtype(f"{'i' if self.signed else 'u'}{words.dtype.itemsize}")
        words = words.astype(words.dtype.newbyteorder("="), copy=False).view(kind)
        # All bits are the pixel: there is nothing to drop.
        if self.stored >= width:
            return words
        # Shifting up and back down drops the bits above, and an arithmetic shift extends the sign.
        moved = np.left_shift(words, kind.type(max(0, width - 1 - self.high)))
        return np.right_shift(moved, kind.type(width - self.stored), out=moved)

    def clipped(self, values: Array) -> Array:
        """Clip the output of a lossy decoder to the range of the stored bits.

        A decoder may overshoot, and a value that wrapped around would be black instead of white.

        Args:
            values: (*,) integers from the decoder.
        """
        low, high = int(values.min()), int(values.max())
        # JPEG-LS gives the bit pattern of negative values as large positive ones.
        if self.signed and low >= 0 and self.range[1] < high < 1 << self.stored:
            return self.as_values(values)  # the code stream has no sign, as in JPEG-LS
        minimum, maximum = self.range
        return values if minimum <= low and high <= maximum else np.clip(values, minimum, maximum)


def bits_of(header: Any) -> Bits:
    """Read the storage of a sample from a header.

    A file that omits Bits Stored or High Bit uses all bits below them.

    Args:
        header: pydicom's dataset.
    Raises:
        Unusable: The numbers of bits are impossible.
    """
    allocated = int(header.BitsAllocated)
    stored = int(header.get("BitsStored") or allocated)
    if not 1 <= stored <= allocated:
        raise Unusable(f"its header names {stored} stored of {allocated} allocated bits")
    high = header.get("HighBit")
    # PS3.5, 8.1.1 asks for High Bit = Bits Stored - 1; programs write 0, or one beyond the word.
    if high is None or not stored - 1 <= int(high) < allocated:
        high = stored - 1
    syntax = header.file_meta.get("TransferSyntaxUID")
    if int(high) > stored - 1 and syntax is not None and syntax.is_encapsulated and syntax != RLE:
        # Codecs number bits from 0: a code stream of no more bits than are stored has them lowest.
        high = int(high) if precision(header) > stored else stored - 1
    return Bits(allocated, stored, int(high), bool(header.get("PixelRepresentation")))
