"""PNG files with samples that Pillow shortens: 16 bits of colour or alpha, and small depths.

Pillow decodes the file in any case; it is only asked to keep other bytes. H, W pixels, S samples.
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
    """Return the bits of a sample, and the colour type.

    Args:
        path: A PNG file.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
    return head[24], head[25]


def is_deep(path: Path) -> bool:
    """Return whether Pillow would shorten 16 bits to 8.

    Args:
        path: A PNG file.
    """
    bits, kind = depth(path)
    return bits == 16 and kind in (COLOUR, GREY_ALPHA, COLOUR_ALPHA)


def deep(path: Path) -> npt.NDArray[Any]:
    """Read 16-bit samples of grey with alpha, or of colour with or without alpha.

    Args:
        path: A PNG file for which `is_deep` is true.
    Returns:
        (H, W, S) uint16.
    """
    if depth(path)[1] == GREY_ALPHA:
        return _grey_and_alpha(path)
    high, low = _bytes(path, "16B"), _bytes(path, "16L")
    return high.astype(np.uint16) << 8 | low


def _bytes(path: Path, order: str) -> npt.NDArray[Any]:
    """Return the upper bytes of the samples, or the lower ones.

    The lower bytes are those that Pillow would keep if the file had the other byte order.
    """
    with Image.open(path, formats=("PNG",)) as image:
        # Pillow's raw mode decides which of two bytes is kept.
        image.tile = [tile._replace(args=f"{image.mode};{order}") for tile in image.tile]
        image.load()
        return np.asarray(image)


def _grey_and_alpha(path: Path) -> npt.NDArray[Any]:
    """Read grey with alpha as colour with alpha of 8 bits.

    Two samples of 16 bits are filtered like four of 8 bits (PNG, 9.2), so that the bytes are the
    same.
    """
    data = path.read_bytes()
    head = data[12:24] + bytes((8, COLOUR_ALPHA)) + data[26:29]
    other = data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[HEAD:]
    with Image.open(io.BytesIO(other), formats=("PNG",)) as image:
        image.load()
        values = np.ascontiguousarray(np.asarray(image))
    return values.view(">u2").astype(np.uint16)
