"""Lookup tables: PS3.3, C.11.1.1 and C.11.2.1.1 (modality and VOI), C.7.6.3.1.5 (palettes).

The index is computed in 64 bits and clipped at both ends, whatever the type of the entries.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.errors import Unusable

Array = npt.NDArray[Any]
MIN_UNUSED_BITS = 2
"""Number of highest bits that no entry uses, from which on the declared depth is not believed: with
it the brightest entry would be shown at less than a quarter."""


@dataclass(frozen=True, eq=False)
class Table:
    """A lookup table. Inputs below the first get the first entry, inputs above the last get the
    last.
    """

    first: int
    """Input value of the first entry."""
    entries: Array
    """(N,) uint16."""
    depth: int
    """Bits of an entry: the maximum output is 2**depth - 1."""

    def __call__(self, values: Array) -> Array:
        """Look up inputs (*,), rounded to whole numbers, and return their uint16 entries (*,)."""
        if values.dtype.kind == "f":
            # Clipped first: infinity, or a float beyond int64, has no integer.
            values = np.rint(np.clip(values, -(2.0**40), 2.0**40))
        index = np.clip(values.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[index]

    def same(self, other: "Table") -> bool:
        """Return whether both tables give the same output for every value.

        Args:
            other: The other table.
        """
        return (self.first, self.depth) == (other.first, other.depth) and np.array_equal(
            self.entries, other.entries
        )


def table_of(descriptor: Any, data: Any, inputs: tuple[float, float], order: str) -> Table:
    """Read a table as a file holds it.

    Args:
        descriptor: Number of entries, first mapped value, bits of an entry.
        data: Its entries: bytes, or numbers.
        inputs: Minimum and maximum value that can be looked up.
        order: `<` or `>`, the file's byte order.
    Raises:
        Unusable: The descriptor is damaged, or there are fewer entries than it states.
    """
    count, first, depth = described(descriptor, inputs)
    entries, bits = _entries(data, count, depth, order)
    return Table(first, entries, believed(bits, entries))


def described(descriptor: Any, inputs: tuple[float, float]) -> tuple[int, int, int]:
    """Return the number of entries, the first mapped value, and the declared bits of an entry.

    Args:
        descriptor: The three numbers of a LUT Descriptor.
        inputs: Minimum and maximum value that can be looked up.
    """
    try:
        count, word, depth = (int(v) for v in descriptor)
    except (TypeError, ValueError) as error:
        raise Unusable(f"its lookup table has the descriptor {descriptor!r}") from error
    count = (count & 0xFFFF) or 2**16  # 0 stands for 65,536, which 16 bits cannot hold
    # The standard allows 8 to 16; smaller depths occur and are read as 8.
    if not 1 <= depth <= 16:
        raise Unusable(f"its lookup table has entries of {depth} bits; 8 to 16 are understood")
    return count, _first(word, inputs), max(8, depth)


def _first(word: int, inputs: tuple[float, float]) -> int:
    """Return the first mapped value, which files often store as the right 16 bits with the wrong
    sign.

    It is read as a signed number, unless no input is that low and some inputs reach the unsigned
    one.
    """
    unsigned = word & 0xFFFF
    signed = unsigned - 2**16 if unsigned >= 2**15 else unsigned
    # The descriptor's type follows Pixel Representation, but many files leave it unsigned.
    return unsigned if signed < inputs[0] and unsigned <= inputs[1] else signed


def _entries(data: Any, count: int, depth: int, order: str) -> tuple[Array, int]:
    """Return (count,) uint16 entries, and the bits of an entry."""
    # pydicom gives bytes where the element is OW or UN, numbers where it is US.
    if isinstance(data, (bytes, bytearray)):
        length, words = len(data), np.frombuffer(data[: len(data) & ~1], f"{order}u2")
        words = words.astype(np.uint16)
    else:
        numbers = data if isinstance(data, (list, tuple)) or hasattr(data, "__len__") else [data]
        try:
            words = np.array([int(v) & 0xFFFF for v in numbers], np.uint16)
        except (TypeError, ValueError) as error:
            raise Unusable(f"its lookup table holds no numbers ({error})") from error
        length = 2 * len(words)
    # Entries of 8 bits are stored two in a word, or one in a word (the note in C.7.6.3.1.5).
    if length >= 2 * count:
        entries = words[:count]
        # The high byte repeats the low one, or is left over, where the low byte is the entry.
        return (entries & 0xFF if depth == 8 and _spare(entries) else entries), depth
    if length in (count, count + 1):  # two in a word, the first in its low byte
        packed = words.astype("<u2").view(np.uint8)
        if len(packed) < count:  # an odd number of bytes, which a file should not have
            packed = np.frombuffer(bytes(data), np.uint8)
        return packed[:count].astype(np.uint16), 8
    raise Unusable(f"its lookup table has {length} bytes for {count} entries of {depth} bits")


def _spare(entries: Array) -> bool:
    """Return whether the high bytes repeat the low ones, in entries of 8 bits."""
    return bool(np.array_equal(entries >> 8, entries & 0xFF))


def believed(depth: int, *tables: Array) -> int:
    """Return the bits of an entry: as declared, unless the entries of all `tables` together
    contradict.

    They contradict where one needs more bits, or where none needs the highest two.

    Args:
        depth: Declared bits.
        tables: Entries, (N,) each.
    """
    needed = max(8, max(int(entries.max(initial=0)) for entries in tables).bit_length())
    return needed if needed > depth or needed + MIN_UNUSED_BITS <= depth else depth
