"""TIFF: a page's samples as its tags say they are stored (TIFF 6.0). H, W pixels, S samples.

Pillow hands on less than the tags say: it reads int8 as uint8, keeps 8 bits of deep colour, takes
planes of 16 bits for pixels, and scales grey of 2 and 4 bits. So the tags are read here, and
libtiff (through Pillow) is asked for bytes alone: a strip of any samples is unpacked as if it were
a grey image of as many bytes. JPEG and fax are decoded by Pillow as a whole.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from client.data.errors import Unusable

Array = npt.NDArray[Any]
LARGEST = 2**28
"""Bytes of a page's samples: those of the largest RGB image of 8 bits that Pillow opens."""
MOST_PAGES = 64
WIDTH, LENGTH, BITS, COMPRESSION, SHOWN = 256, 257, 258, 259, 262
FILL, DESCRIPTION, ORIENTATION, SAMPLES, ROWS = 266, 270, 274, 277, 278
PLANAR, PREDICTOR, COLOURS, EXTRA, FORMAT = 284, 317, 320, 338, 339
KIND, OFFSETS, COUNTS, TILE_OFFSETS, TILE_COUNTS, TILE_WIDTH, TILE_LENGTH = (
    254, 273, 279, 324, 325, 322, 323,
)  # fmt: skip
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
WHOLE = frozenset({2, 3, 4, 6, 7})
"""Compressions of images, not of bytes: fax and JPEG."""
DEFLATE = frozenset({8, 32946})
BYTES = frozenset({1, 5, 32773, 34925, 50000}) | DEFLATE
"""Compressions of bytes: none, LZW, PackBits, LZMA, Zstandard, deflate."""
PREDICTED = BYTES - {1, 32773}
"""Those that may follow a predictor; libtiff passes one over beside the others."""
KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
"""SampleFormat -> kind of a numpy type; undefined data are taken for whole numbers."""
NAMES = {
    4: "a transparency mask", 5: "the inks of print (CMYK)", 6: "YCbCr without JPEG",
    8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "a colour filter array", 34892: "LinearRaw",
}  # fmt: skip


@dataclass(frozen=True)
class Page:
    """The one image of a file, and what its tags say of its samples."""

    samples: Array
    """(H, W, S): uint, int or float, in the depth that they are stored in, or the next larger."""
    bits: int
    """Of a sample, as stored."""
    shown: int
    """PhotometricInterpretation, after decoding."""
    extra: tuple[int, ...]
    """ExtraSamples: of each sample beyond grey or colour, 1 and 2 for alpha (1: premultiplied)."""
    palette: Array | None = None
    """(colours, 3) uint8."""
    orientation: int = 1
    """Tag 274: how it is to be turned."""
    exact: bool = True
    """Whether samples are those that are stored; JPEG changes them, fax is turned to black 0."""


def page(path: Path) -> Page:
    """The one image that a file holds; thumbnails of it are passed over.

    Raises:
        Unusable: Several images, or stored in a way that is not understood; with what to do.
    """
    with open(path, "rb") as file:
        try:
            tags = _one(list(_directories(file)))
            layout = _layout(tags)
        except (KeyError, TypeError, ValueError, SyntaxError, struct.error) as error:
            raise Unusable(f"has damaged tags ({type(error).__name__}: {error})") from error
        if layout.compression in WHOLE:
            return _by_pillow(path, layout)
        samples = np.empty((layout.height, layout.width, layout.samples), layout.dtype)
        for place, block in _blocks(file, tags, layout):
            samples[place] = block
    turn = int(tags.get(ORIENTATION, 1))
    return Page(samples, layout.bits, layout.shown, layout.extra, _palette(tags, layout), turn)


@dataclass(frozen=True)
class _Layout:
    """How samples are stored."""

    width: int
    height: int
    samples: int
    bits: int
    dtype: np.dtype[Any]
    """Of a sample in memory; its byte order is that of the file."""
    shown: int
    compression: int
    planar: bool
    predictor: int
    reversed: bool
    """Of each byte, the lowest bit comes first."""
    extra: tuple[int, ...]
    tile: tuple[int, int]
    """Rows and columns of a strip or tile."""


def _directories(file: io.BufferedReader) -> Iterator[Any]:
    head = file.read(8)
    if head[:4] == b"MM\0+":  # which Pillow takes for a small one
        raise Unusable("is a BigTIFF with the highest byte first: store it as TIFF")
    if head[2:3] == b"+":  # BigTIFF
        head += file.read(8)
    tags = ImageFileDirectory_v2(head)
    seen: set[int] = set()
    while tags.next and tags.next not in seen:
        seen.add(tags.next)
        if len(seen) > MOST_PAGES:
            raise Unusable("holds several pages: store one image a file")
        file.seek(tags.next)
        after = ImageFileDirectory_v2(head)
        after.load(file)
        tags = after
        yield tags


def _one(pages: list[Any]) -> Any:
    """Of several, the only one that is no smaller copy of another (NewSubfileType, bit 0)."""
    full = [tags for tags in pages if not int(tags.get(KIND, 0)) & 1] or pages
    if not full:
        raise Unusable("holds no image")
    several = str(full[0].get(DESCRIPTION, "")).partition("\nimages=")[2]  # as ImageJ has it
    if len(full) > 1 or (several and several.split("\n")[0] != "1"):
        raise Unusable("holds several pages: store one image a file")
    return full[0]


def _layout(tags: Any) -> _Layout:
    """Raises Unusable for whatever is not understood."""
    width, height = int(tags[WIDTH]), int(tags[LENGTH])
    samples, shown = int(tags.get(SAMPLES, 1)), int(tags.get(SHOWN, BLACK_IS_ZERO))
    compression, predictor = int(tags.get(COMPRESSION, 1)), int(tags.get(PREDICTOR, 1))
    bits = _same(tags.get(BITS, (1,)), "bits")
    form = _same(tags.get(FORMAT, (1,)), "formats")
    planar = int(tags.get(PLANAR, 1)) == 2 and samples > 1
    if min(width, height, samples) < 1:
        raise Unusable(f"has {width} x {height} pixels of {samples} samples")
    if width * height * samples * ((bits + 7) // 8) > LARGEST:
        raise Unusable(
            f"has {width} x {height} pixels of {samples} samples, more than {LARGEST >> 20} MiB (a "
            "decompression bomb?): store it smaller"
        )
    if form not in KINDS or not _possible(KINDS[form], bits):
        raise Unusable(f"has samples of {bits} bits in format {form}: store it with 8 or 16 bits")
    if shown in NAMES and not (shown == YCBCR and compression in WHOLE):
        raise Unusable(f"is stored as {NAMES[shown]}: store it as grey or RGB")
    if shown not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR):
        raise Unusable(f"has the photometric interpretation {shown}: store it as grey or RGB")
    if compression not in BYTES | WHOLE:
        raise Unusable(f"has the compression {compression}: store it with LZW, deflate or none")
    colours = 3 if shown in (RGB, YCBCR) else 1
    extra = tuple(int(v) for v in _all(tags.get(EXTRA, ())))
    if samples < colours or (samples > colours and colours == 1 and extra not in ((1,), (2,))):
        raise Unusable(
            f"has {samples} samples a pixel, of which its tags do not say what they are: store one "
            "for grey or three for colour"
        )
    if predictor not in (1, 2, 3) or (predictor == 3) != (predictor > 1 and form == 3):
        raise Unusable(f"has the predictor {predictor} on format {form}: store it without")
    if predictor > 1 and compression not in PREDICTED:
        raise Unusable(
            f"has the predictor {predictor} without a compression that knows it, so that programs "
            "do not agree on its pixels: store it without"
        )
    if predictor == 2 and bits not in (8, 16, 32, 64):
        raise Unusable(f"has a predictor on samples of {bits} bits: store it without")
    reverse = int(tags.get(FILL, 1)) == 2
    if reverse and compression not in WHOLE and (bits != 1 or compression != 1):
        raise Unusable("has its bits in reverse order (FillOrder 2): store it with FillOrder 1")
    rows = min(height, int(tags.get(ROWS, height)) or height)
    tile = (rows, width)
    if TILE_WIDTH in tags:
        tile = (int(tags[TILE_LENGTH]), int(tags[TILE_WIDTH]))
        if not 0 < tile[0] * tile[1] * samples * ((bits + 7) // 8) <= LARGEST:
            raise Unusable(f"has tiles of {tile[1]} x {tile[0]} pixels: store it in strips")
    order = ">" if tags.prefix == b"MM" else "<"
    whole = next(n for n in (8, 16, 32, 64) if n >= bits)
    return _Layout(
        width, height, samples, bits, np.dtype(f"{order}{KINDS[form]}{whole // 8}"), shown,
        compression, planar, predictor, reverse, extra, tile,
    )  # fmt: skip


def _same(values: Any, what: str) -> int:
    found = {int(v) for v in _all(values)}
    if len(found) != 1:
        raise Unusable(f"has samples of different {what}: store them alike")
    return found.pop()


def _all(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, tuple | list | bytes) else (values,)


def _possible(kind: str, bits: int) -> bool:
    if kind == "f":
        return bits in (16, 32, 64)
    return 1 <= bits <= 16 or bits in (32, 64) if kind == "u" else bits in (8, 16, 32, 64)


def _blocks(
    file: io.BufferedReader, tags: Any, layout: _Layout
) -> Iterator[tuple[tuple[slice, slice, slice], Array]]:
    """Each strip or tile, and where in (H, W, S) it lies; what reaches over the edge is cut."""
    tiled = TILE_WIDTH in tags
    offsets = _all(tags[TILE_OFFSETS if tiled else OFFSETS])
    counts = _all(tags[TILE_COUNTS if tiled else COUNTS])
    high, wide = layout.tile
    length = file.seek(0, io.SEEK_END)
    planes = layout.samples if layout.planar else 1
    each = 1 if layout.planar else layout.samples
    needed = planes * -(-layout.height // high) * -(-layout.width // wide)
    if not needed == len(offsets) == len(counts):
        raise Unusable(f"has {len(offsets)} strips or tiles where {needed} are needed")
    places = [
        (plane, top, left)
        for plane in range(planes)
        for top in range(0, layout.height, high)
        for left in range(0, layout.width, wide)
    ]
    for (plane, top, left), offset, count in zip(places, offsets, counts, strict=True):
        rows = high if tiled else min(high, layout.height - top)
        file.seek(int(offset))
        row_bytes = (wide * each * layout.bits + 7) // 8
        stored = file.read(max(0, min(int(count), length - int(offset))))  # it may claim anything
        data = _unpacked(stored, layout.compression, rows, row_bytes)
        block = _samples(data, rows, wide, each, layout)
        block = block[: layout.height - top, : layout.width - left]
        channel = slice(plane, plane + 1) if layout.planar else slice(None)
        yield (slice(top, top + len(block)), slice(left, left + block.shape[1]), channel), block


def _unpacked(data: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
    """The bytes of a strip, no more of them than it has samples for."""
    size = rows * row_bytes
    if compression == 1:
        found = data[:size]
    elif compression in DEFLATE:
        found = zlib.decompressobj().decompress(data, size)
    else:
        grey = io.BytesIO(_as_grey(data, compression, rows, row_bytes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # counted before
            with Image.open(grey, formats=("TIFF",)) as image:
                found = image.tobytes()
    if len(found) != size:
        raise Unusable("ends too early, or is damaged: a strip of it lacks bytes")
    return found


def _as_grey(data: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
    """A TIFF file of 8-bit grey with this one strip."""
    entries = (
        (WIDTH, row_bytes), (LENGTH, rows), (BITS, 8), (COMPRESSION, compression),
        (SHOWN, BLACK_IS_ZERO), (OFFSETS, 8 + 2 + 9 * 12 + 4), (SAMPLES, 1), (ROWS, rows),
        (COUNTS, len(data)),
    )  # fmt: skip
    listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + listed + bytes(4) + data


def _samples(data: bytes, rows: int, wide: int, each: int, layout: _Layout) -> Array:
    """(rows, wide, each) of one strip or tile."""
    bits, dtype = layout.bits, layout.dtype
    if bits != 8 * dtype.itemsize:
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
        whole = values.astype(f"u{dtype.itemsize}")
        return np.cumsum(whole, axis=1, dtype=whole.dtype).astype(dtype)
    return values


def _float_sums(data: bytes, rows: int, wide: int, each: int, dtype: np.dtype[Any]) -> Array:
    """Predictor 3 (Adobe's Technical Note 3): differences of bytes, the highest bytes first."""
    lines = np.frombuffer(data, np.uint8).reshape(rows, -1, each)
    summed = np.cumsum(lines, axis=1, dtype=np.uint8).reshape(rows, dtype.itemsize, wide * each)
    big = np.ascontiguousarray(summed.transpose(0, 2, 1))
    return big.view(dtype.newbyteorder(">")).reshape(rows, wide, each).astype(dtype)


def _palette(tags: Any, layout: _Layout) -> Array | None:
    """8 of the 16 bits of a colour; all of them where a writer has stored 8."""
    if layout.shown != PALETTE:
        return None
    values = np.array(_all(tags.get(COLOURS, ())), dtype=np.int64)
    if len(values) != 3 * 2**layout.bits:
        raise Unusable(f"has a palette of {len(values)} numbers for {layout.bits} bits")
    deep = values.max() > 255
    return (values >> (8 if deep else 0)).astype(np.uint8).reshape(3, -1).T


def _by_pillow(path: Path, layout: _Layout) -> Page:
    """JPEG and fax, of which Pillow makes 8-bit grey or colour, or 1 bit, upright."""
    with Image.open(path, formats=("TIFF",)) as image:
        if image.mode not in ("1", "L", "RGB"):
            raise Unusable(f"is {image.mode} in a JPEG or fax: store it with LZW, deflate or none")
        kind = image.mode
        image.load()
        values = np.asarray(image)
    values = values.astype(np.uint8).reshape(*values.shape[:2], -1)
    shown = RGB if kind == "RGB" else BLACK_IS_ZERO
    return Page(values, 1 if kind == "1" else 8, shown, (), exact=False)
