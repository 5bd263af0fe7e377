"""Lookup tables: PS3.3, C.11.1.1, C.11.2.1.1 (modality and VOI), C.7.6.3.1.5 (palettes).

The index is made in 64 bits and clipped at both ends, whatever the type of the entries.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.errors import Unusable

Array = npt.NDArray[Any]
SPARE = 2
"""So many highest bits that no entry uses, and the depth that the table declares is not believed:
its brightest entry would be shown at less than a quarter."""


@dataclass(frozen=True, eq=False)
class Table:
    """What each input value becomes: the first entry below the first, the last above the last."""

    first: int
    """Input value of the first entry."""
    entries: Array
    """(N,) uint16."""
    depth: int
    """Bits of an entry: the largest output is 2**depth - 1."""

    def __call__(self, values: Array) -> Array:
        """(*,) inputs, rounded to whole numbers -> (*,) uint16 entries."""
        if values.dtype.kind == "f":
            values = np.rint(np.clip(values, -(2.0**40), 2.0**40))
        index = np.clip(values.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[index]

    def same(self, other: "Table") -> bool:
        """Whether both give the same for every value."""
        return (self.first, self.depth) == (other.first, other.depth) and np.array_equal(
            self.entries, other.entries
        )


def table_of(descriptor: Any, data: Any, inputs: tuple[float, float], order: str) -> Table:
    """A table as a file holds it.

    Args:
        descriptor: Number of entries, first mapped value, bits of an entry.
        data: Its entries: bytes, or numbers.
        inputs: Lowest and highest value that can be looked up.
        order: `<` or `>`, by the file's transfer syntax.
    Raises:
        Unusable: The descriptor is damaged, or there are fewer entries than it says.
    """
    count, first, depth = described(descriptor, inputs)
    entries, bits = _entries(data, count, depth, order)
    return Table(first, entries, believed(bits, entries))


def described(descriptor: Any, inputs: tuple[float, float]) -> tuple[int, int, int]:
    """Number of entries, first mapped value, and declared bits of an entry."""
    try:
        count, word, depth = (int(v) for v in descriptor)
    except (TypeError, ValueError) as error:
        raise Unusable(f"its lookup table has the descriptor {descriptor!r}") from error
    count = (count & 0xFFFF) or 2**16  # 0 stands for 65,536, which 16 bits cannot hold
    if not 1 <= depth <= 16:
        raise Unusable(f"its lookup table has entries of {depth} bits; 8 to 16 are understood")
    return count, _first(word, inputs), max(8, depth)


def _first(word: int, inputs: tuple[float, float]) -> int:
    """The first mapped value, of which files often store the right 16 bits under the wrong sign.

    As a signed number, unless no input is as low and some are as high as the unsigned one.
    """
    unsigned = word & 0xFFFF
    signed = unsigned - 2**16 if unsigned >= 2**15 else unsigned
    return unsigned if signed < inputs[0] and unsigned <= inputs[1] else signed


def _entries(data: Any, count: int, depth: int, order: str) -> tuple[Array, int]:
    """(count,) uint16, and the bits that one has.

    Entries of 8 bits are two in a word, or one in a word of its own (the note in C.7.6.3.1.5).
    """
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
    if length >= 2 * count:
        entries = words[:count]
        # Replicated or left over: the high byte says nothing where the low one is the entry.
        return (entries & 0xFF if depth == 8 and _spare(entries) else entries), depth
    if length in (count, count + 1):  # two in a word, the first in its low byte
        packed = words.astype("<u2").view(np.uint8)
        if len(packed) < count:  # an odd number of bytes, which a file should not have
            packed = np.frombuffer(bytes(data), np.uint8)
        return packed[:count].astype(np.uint16), 8
    raise Unusable(f"its lookup table has {length} bytes for {count} entries of {depth} bits")


def _spare(entries: Array) -> bool:
    """Whether the high bytes repeat the low ones, in entries of 8 bits."""
    return bool(np.array_equal(entries >> 8, entries & 0xFF))


def believed(depth: int, *tables: Array) -> int:
    """The bits of an entry: as declared, unless the entries of all `tables` together say otherwise.

    They do where one needs more bits, or where none needs the highest two.
    """
    needed = max(8, max(int(entries.max(initial=0)) for entries in tables).bit_length())
    return needed if needed > depth or needed + SPARE <= depth else depth
