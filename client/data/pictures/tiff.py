"""TIFF: the one page of a file, its samples as the tags say that they are stored (TIFF 6.0).

Pillow returns less than the tags say: it reads int8 as uint8, keeps 8 bits of deep colour, takes
planes of 16 bits for pixels, and scales grey of 2 and 4 bits. The tags are therefore read here
(`tags.py`) and the strips unpacked in `strips.py`. Only JPEG and fax are decoded by Pillow whole.
H, W pixels, S samples.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from client.data.errors import Unusable
from client.data.pictures.strips import samples_of
from client.data.pictures.tags import (
    BLACK_IS_ZERO,
    COLOURS,
    DESCRIPTION,
    KIND,
    ORIENTATION,
    PALETTE,
    RGB,
    WHITE_IS_ZERO,
    WHOLE,
    YCBCR,
    Layout,
    all_of,
    layout_of,
)  # fmt: skip

__all__ = ["RGB", "WHITE_IS_ZERO", "YCBCR", "Page", "page"]
Array = npt.NDArray[Any]
MAX_PAGES = 64


@dataclass(frozen=True)
class Page:
    """The one image of a file, and what its tags say about its samples."""

    samples: Array
    """(H, W, S): uint, int or float, in the depth that they are stored in, or the next larger."""
    bits: int
    """Bits of a sample, as stored."""
    shown: int
    """PhotometricInterpretation, after decoding."""
    extra: tuple[int, ...]
    """ExtraSamples: for each sample beyond grey or colour, 1 or 2 if it is alpha (1:
    premultiplied)."""
    palette: Array | None = None
    """(colours, 3) uint8."""
    orientation: int = 1
    """Tag 274: the side of the scene at which rows and columns begin; 1 is upright."""
    exact: bool = True
    """False where samples are not those that were stored: JPEG changes them, and fax is turned so
    that 0 is black."""


def page(path: Path) -> Page:
    """Read the one image that a file holds; its thumbnails are ignored.

    Args:
        path: A file that begins as TIFF or BigTIFF.
    Raises:
        Unusable: The file holds several images, or is damaged, or is stored in a way that is not
            understood; the text says what to do.
    """
    with open(path, "rb") as file:
        try:
            tags = _one(list(_directories(file)))
            layout = layout_of(tags)
        except (KeyError, TypeError, ValueError, SyntaxError, struct.error) as error:
            raise Unusable(f"has damaged tags ({type(error).__name__}: {error})") from error
        if layout.compression in WHOLE:
            return _by_pillow(path)
        samples = samples_of(file, tags, layout)
    turn = int(tags.get(ORIENTATION, 1))
    return Page(samples, layout.bits, layout.shown, layout.extra, _palette(tags, layout), turn)


def _directories(file: io.BufferedReader) -> Iterator[Any]:
    """Yield the tags of each page."""
    head = file.read(8)
    if head[:4] == b"MM\0+":  # Pillow mistakes it for a small TIFF
        raise Unusable("is a BigTIFF with the highest byte first: store it as TIFF")
    if head[2:3] == b"+":  # BigTIFF has a header of 16 bytes
        head += file.read(8)
    tags = ImageFileDirectory_v2(head)
    seen: set[int] = set()
    # A damaged file may list its pages in a circle.
    while tags.next and tags.next not in seen:
        seen.add(tags.next)
        if len(seen) > MAX_PAGES:
            raise Unusable("holds several pages: store one image a file")
        file.seek(tags.next)
        after = ImageFileDirectory_v2(head)
        after.load(file)
        tags = after
        yield tags


def _one(pages: list[Any]) -> Any:
    """Return the only page that is not a smaller copy of another (NewSubfileType, bit 0)."""
    full = [tags for tags in pages if not int(tags.get(KIND, 0)) & 1] or pages
    if not full:
        raise Unusable("holds no image")
    # ImageJ writes one page for a stack of several, and their number into the description.
    several = str(full[0].get(DESCRIPTION, "")).partition("\nimages=")[2]
    if len(full) > 1 or (several and several.split("\n")[0] != "1"):
        raise Unusable("holds several pages: store one image a file")
    return full[0]


def _palette(tags: Any, layout: Layout) -> Array | None:
    """Return the colours of a palette, (colours, 3) uint8; None where there is none."""
    if layout.shown != PALETTE:
        return None
    values = np.array(all_of(tags.get(COLOURS, ())), dtype=np.int64)
    if len(values) != 3 * 2**layout.bits:
        raise Unusable(f"has a palette of {len(values)} numbers for {layout.bits} bits")
    # TIFF 6.0 asks for 16 bits a colour, but some programs write 8.
    deep = values.max() > 255
    return (values >> (8 if deep else 0)).astype(np.uint8).reshape(3, -1).T


def _by_pillow(path: Path) -> Page:
    """Read JPEG and fax, which Pillow decodes to 8-bit grey or colour, or to 1 bit, upright."""
    with Image.open(path, formats=("TIFF",)) as image:
        if image.mode not in ("1", "L", "RGB"):
            raise Unusable(f"is {image.mode} in a JPEG or fax: store it with LZW, deflate or none")
        kind = image.mode
        image.load()
        values = np.asarray(image)
    values = values.astype(np.uint8).reshape(*values.shape[:2], -1)
    shown = RGB if kind == "RGB" else BLACK_IS_ZERO
    return Page(values, 1 if kind == "1" else 8, shown, (), exact=False)
