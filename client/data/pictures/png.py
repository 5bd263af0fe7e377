"""PNG: what Pillow leaves out: 8 of 16 bits where there is colour or alpha, and small depths.

Pillow decodes the file either way; it is only told to keep other bytes. H, W pixels, S samples.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
HEAD = 33
"""Bytes of signature and IHDR, which always comes first (PNG, 11.2.2)."""


def depth(path: Path) -> tuple[int, int]:
    """Bits of a sample, and the colour type."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    return head[24], head[25]


def is_deep(path: Path) -> bool:
    """Whether Pillow would cut 16 bits to 8."""
    bits, kind = depth(path)
    return bits == 16 and kind in (COLOUR, GREY_ALPHA, COLOUR_ALPHA)


def deep(path: Path) -> npt.NDArray[Any]:
    """(H, W, S) uint16 of grey with alpha, or of colour with alpha or without."""
    if depth(path)[1] == GREY_ALPHA:
        return _grey_and_alpha(path)
    high, low = _bytes(path, "16B"), _bytes(path, "16L")
    return high.astype(np.uint16) << 8 | low


def _bytes(path: Path, order: str) -> npt.NDArray[Any]:
    """The upper bytes of the samples, or the lower: those that would be the upper ones if the file
    had the other byte order."""
    with Image.open(path, formats=("PNG",)) as image:
        image.tile = [tile._replace(args=f"{image.mode};{order}") for tile in image.tile]
        image.load()
        return np.asarray(image)


def _grey_and_alpha(path: Path) -> npt.NDArray[Any]:
    """Two samples of 16 bits are filtered as four of 8 are (PNG, 9.2): read as those."""
    data = path.read_bytes()
    head = data[12:24] + bytes((8, COLOUR_ALPHA)) + data[26:29]
    other = data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[HEAD:]
    with Image.open(io.BytesIO(other), formats=("PNG",)) as image:
        image.load()
        values = np.ascontiguousarray(np.asarray(image))
    return values.view(">u2").astype(np.uint16)
