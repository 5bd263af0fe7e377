"""TIFF strips and tiles: from compressed bytes to samples. H, W pixels, S samples.

libtiff, through Pillow, is asked for bytes alone: a strip of any samples is unpacked as if it were
a grey image of as many bytes, because Pillow would convert the samples of a real one.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from client.data.errors import Unusable
from client.data.pictures.tags import (
    BITS,
    BLACK_IS_ZERO,
    COMPRESSION,
    COUNTS,
    DEFLATE,
    LENGTH,
    OFFSETS,
    ROWS,
    SAMPLES,
    SHOWN,
    TILE_COUNTS,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
    Layout,
    all_of,
)  # fmt: skip

Array = npt.NDArray[Any]


def samples_of(file: io.BufferedReader, tags: Any, layout: Layout) -> Array:
    """Read all samples of a page.

    Args:
        file: The open TIFF file.
        tags: The page's directory, as Pillow parses it.
        layout: How the samples are stored.
    Returns:
        (H, W, S) in the type of `layout.dtype`.
    Raises:
        Unusable: A strip or tile is missing or damaged.
    """
    samples = np.empty((layout.height, layout.width, layout.samples), layout.dtype)
    for place, block in _blocks(file, tags, layout):
        samples[place] = block
    return samples


def _blocks(
    file: io.BufferedReader, tags: Any, layout: Layout
) -> Iterator[tuple[tuple[slice, slice, slice], Array]]:
    """Yield each strip or tile with its place in (H, W, S), cut off at the image's edge."""
    tiled = TILE_WIDTH in tags
    offsets = all_of(tags[TILE_OFFSETS if tiled else OFFSETS])
    counts = all_of(tags[TILE_COUNTS if tiled else COUNTS])
    high, wide = layout.tile
    length = file.seek(0, io.SEEK_END)
    each = 1 if layout.planar else layout.samples
    places = _places(layout)
    if not len(places) == len(offsets) == len(counts):
        raise Unusable(f"has {len(offsets)} strips or tiles where {len(places)} are needed")
    for (plane, top, left), offset, count in zip(places, offsets, counts, strict=True):
        # The last strip has fewer rows; a tile is always stored whole.
        rows = high if tiled else min(high, layout.height - top)
        file.seek(int(offset))
        row_bytes = (wide * each * layout.bits + 7) // 8
        # The count is not trusted: it may claim more bytes than the file has.
        stored = file.read(max(0, min(int(count), length - int(offset))))
        data = _unpacked(stored, layout.compression, rows, row_bytes)
        block = _samples(data, rows, wide, each, layout)
        block = block[: layout.height - top, : layout.width - left]
        channel = slice(plane, plane + 1) if layout.planar else slice(None)
        yield (slice(top, top + len(block)), slice(left, left + block.shape[1]), channel), block


def _places(layout: Layout) -> list[tuple[int, int, int]]:
    """Return plane, first row and first column of each strip or tile, as the file lists them."""
    high, wide = layout.tile
    return [
        (plane, top, left)
        for plane in range(layout.samples if layout.planar else 1)
        for top in range(0, layout.height, high)
        for left in range(0, layout.width, wide)
    ]


def _unpacked(data: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
    """Return the bytes of a strip, never more of them than its samples need."""
    size = rows * row_bytes
    if compression == 1:
        found = data[:size]
    elif compression in DEFLATE:
        found = zlib.decompressobj().decompress(data, size)
    else:
        grey = io.BytesIO(_as_grey(data, compression, rows, row_bytes))
        with warnings.catch_warnings():
            # The size of the page has been checked before; Pillow would count bytes as pixels.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(grey, formats=("TIFF",)) as image:
                found = image.tobytes()
    if len(found) != size:
        raise Unusable("ends too early, or is damaged: a strip of it lacks bytes")
    return found


def _as_grey(data: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
    """Wrap one strip as a TIFF file of 8-bit grey, one pixel a byte."""
    entries = (
        (WIDTH, row_bytes), (LENGTH, rows), (BITS, 8), (COMPRESSION, compression),
        (SHOWN, BLACK_IS_ZERO), (OFFSETS, 8 + 2 + 9 * 12 + 4), (SAMPLES, 1), (ROWS, rows),
        (COUNTS, len(data)),
    )  # fmt: skip
    listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + listed + bytes(4) + data


def _samples(data: bytes, rows: int, wide: int, each: int, layout: Layout) -> Array:
    """Return the samples of one strip or tile, (rows, wide, each)."""
    bits, dtype = layout.bits, layout.dtype
    if bits != 8 * dtype.itemsize:
        # Depths such as 1, 4 or 12 bits are packed without gaps; each row begins at a byte.
        lines = np.frombuffer(data, np.uint8).reshape(rows, -1)
        order: Literal["little", "big"] = "little" if layout.reversed else "big"
        flat = np.unpackbits(lines, axis=1, count=wide * each * bits, bitorder=order)
        powers = 1 << np.arange(bits - 1, -1, -1, dtype=np.uint16)
        values = flat.reshape(rows, wide, each, bits) @ powers
        return values.astype(dtype)
    if layout.predictor == 3:
        return _float_sums(data, rows, wide, each, dtype)
    values = np.frombuffer(data, dtype).reshape(rows, wide, each)
    if layout.predictor == 2:
        # Unsigned sums wrap around as the differences did when they were stored.
        whole = values.astype(f"u{dtype.itemsize}")
        return np.cumsum(whole, axis=1, dtype=whole.dtype).astype(dtype)
    return values


def _float_sums(data: bytes, rows: int, wide: int, each: int, dtype: np.dtype[Any]) -> Array:
    """Undo predictor 3: differences between bytes, the highest bytes of a row first.

    Source: Adobe Photoshop TIFF Technical Note 3, 2005.
    """
    lines = np.frombuffer(data, np.uint8).reshape(rows, -1, each)
    summed = np.cumsum(lines, axis=1, dtype=np.uint8).reshape(rows, dtype.itemsize, wide * each)
    big = np.ascontiguousarray(summed.transpose(0, 2, 1))
    return big.view(dtype.newbyteorder(">")).reshape(rows, wide, each).astype(dtype)
