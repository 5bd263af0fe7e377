"""Palettes that are stored as segments: PS3.3, C.7.9.2."""

from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.errors import Unusable

Array = npt.NDArray[Any]
DISCRETE, LINEAR, INDIRECT = 0, 1, 2
"""Kinds of segments; a segment begins with its kind and its length."""


def expanded(data: Any, count: int, depth: int, order: str) -> Array:
    """Expand the segments of a table.

    Args:
        data: Bytes, of entries of 8 or 16 bits.
        count: Number of entries.
        depth: Bits of an entry.
        order: `<` or `>`, the file's byte order.
    Returns:
        (count,) uint16.
    Raises:
        Unusable: The segments are damaged, or give another number of entries.
    """
    try:
        words = np.frombuffer(bytes(data)[: len(data) & ~1], f"{order}u2")
        units = words.astype("<u2").view(np.uint8) if depth <= 8 else words
        found = _Segments([int(v) for v in units], 1 if depth <= 8 else 2, count).run()
    except (IndexError, TypeError, ValueError) as error:
        raise Unusable("its segmented palette is damaged") from error
    # A shortened table would show the missing colours as the last one.
    if len(found) < count:
        raise Unusable(f"its segmented palette has {len(found)} of {count} entries")
    return np.array(found[:count], np.uint16)


class _Segments:
    """An expansion of segments into a table of at most `count` entries."""

    def __init__(self, units: list[int], size: int, count: int) -> None:
        self._units = units
        self._size = size
        """Bytes of a unit: offsets in indirect segments are in bytes."""
        self._count = count
        self._table: list[int] = []

    def run(self) -> list[int]:
        """Return the entries. It stops at `count`, because indirect segments could repeat without
        end.
        """
        place = 0
        while len(self._table) < self._count and place + 1 < len(self._units):
            place = self._segment(place, nested=False)
        return self._table

    def _segment(self, place: int, nested: bool) -> int:
        """Append one segment's entries, and return the place of the next."""
        kind, length = self._units[place : place + 2]
        place += 2
        if kind == DISCRETE:
            # A slice would silently be shorter at the end of the data.
            if place + length > len(self._units):
                raise ValueError("too short")
            self._table += self._units[place : place + length]
            return place + length
        if kind == LINEAR:
            begin, end = self._table[-1], self._units[place]
            steps = np.arange(1, length + 1)
            self._table += np.rint(begin + (end - begin) * steps / length).astype(int).tolist()
            return place + 1
        if kind != INDIRECT or nested:  # the standard forbids one inside another
            raise ValueError("no such segment")
        # The offset of the first segment to repeat: four bytes, the lower half first.
        parts = self._units[place : place + 4 // self._size]
        offset = sum(part << (8 * self._size * i) for i, part in enumerate(parts))
        # Entries of 16 bits begin at even bytes.
        if offset % self._size:
            raise ValueError("between two entries")
        other = offset // self._size
        for _ in range(length):
            if len(self._table) >= self._count:
                break
            other = self._segment(other, nested=True)
        return place + len(parts)
