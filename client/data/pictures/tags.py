"""TIFF tags: how a page's samples are stored (TIFF 6.0), and refusals of what is ambiguous.

A reader that guesses shows an image other than the one that was stored, and nobody notices in
training. Whatever the tags do not state beyond doubt is therefore refused, with a remedy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from client.data.errors import Unusable

MAX_BYTES = 2**28
"""Bytes of a page's samples: those of the largest RGB image of 8 bits that Pillow opens."""
WIDTH, LENGTH, BITS, COMPRESSION, SHOWN = 256, 257, 258, 259, 262
FILL, DESCRIPTION, ORIENTATION, SAMPLES, ROWS = 266, 270, 274, 277, 278
PLANAR, PREDICTOR, COLOURS, EXTRA, FORMAT = 284, 317, 320, 338, 339
KIND, OFFSETS, COUNTS, TILE_OFFSETS, TILE_COUNTS, TILE_WIDTH, TILE_LENGTH = (
    254, 273, 279, 324, 325, 322, 323,
)  # fmt: skip
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
WHOLE = frozenset({2, 3, 4, 6, 7})
"""Compressions of whole images rather than of bytes: fax and JPEG."""
DEFLATE = frozenset({8, 32946})
BYTES = frozenset({1, 5, 32773, 34925, 50000}) | DEFLATE
"""Compressions of bytes: none, LZW, PackBits, LZMA, Zstandard, deflate."""
PREDICTED = BYTES - {1, 32773}
"""Compressions that a predictor may precede; libtiff ignores a predictor beside any other."""
KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
"""SampleFormat -> kind of a numpy type; undefined data are read as unsigned integers."""
NAMES = {
    4: "a transparency mask", 5: "the inks of print (CMYK)", 6: "YCbCr without JPEG",
    8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "a colour filter array", 34892: "LinearRaw",
}  # fmt: skip
"""PhotometricInterpretation that is refused -> its name."""


@dataclass(frozen=True)
class Layout:
    """The way in which a page's samples are stored."""

    width: int
    height: int
    samples: int
    """Samples of a pixel."""
    bits: int
    """Bits of a sample."""
    dtype: np.dtype[Any]
    """Type of a sample in memory; its byte order is that of the file."""
    shown: int
    """PhotometricInterpretation."""
    compression: int
    planar: bool
    """True where each colour has a plane of its own."""
    predictor: int
    reversed: bool
    """True where the lowest bit of each byte comes first (FillOrder 2)."""
    extra: tuple[int, ...]
    """ExtraSamples."""
    tile: tuple[int, int]
    """Rows and columns of a strip or tile."""


def layout_of(tags: Any) -> Layout:
    """Read how the samples of a page are stored.

    Args:
        tags: The page's directory, as Pillow parses it.
    Raises:
        Unusable: The page is stored in a way that is not understood, or is too large.
        KeyError, TypeError, ValueError: The tags are damaged.
    """
    width, height = int(tags[WIDTH]), int(tags[LENGTH])
    samples, shown = int(tags.get(SAMPLES, 1)), int(tags.get(SHOWN, BLACK_IS_ZERO))
    compression, predictor = int(tags.get(COMPRESSION, 1)), int(tags.get(PREDICTOR, 1))
    bits = _same(tags.get(BITS, (1,)), "bits")
    form = _same(tags.get(FORMAT, (1,)), "formats")
    _check_size(width, height, samples, bits)
    if form not in KINDS or not _possible(KINDS[form], bits):
        raise Unusable(f"has samples of {bits} bits in format {form}: store it with 8 or 16 bits")
    _check_kind(shown, compression)
    extra = tuple(int(v) for v in all_of(tags.get(EXTRA, ())))
    _check_samples(samples, 3 if shown in (RGB, YCBCR) else 1, extra)
    _check_predictor(predictor, form, compression, bits)
    reverse = int(tags.get(FILL, 1)) == 2
    if reverse and compression not in WHOLE and (bits != 1 or compression != 1):
        raise Unusable("has its bits in reverse order (FillOrder 2): store it with FillOrder 1")
    order = ">" if tags.prefix == b"MM" else "<"
    container = next(n for n in (8, 16, 32, 64) if n >= bits)
    return Layout(
        width=width,
        height=height,
        samples=samples,
        bits=bits,
        dtype=np.dtype(f"{order}{KINDS[form]}{container // 8}"),
        shown=shown,
        compression=compression,
        planar=int(tags.get(PLANAR, 1)) == 2 and samples > 1,
        predictor=predictor,
        reversed=reverse,
        extra=extra,
        tile=_tile(tags, width, height, samples * ((bits + 7) // 8)),
    )


def all_of(values: Any) -> tuple[Any, ...]:
    """Return a tag's values as a tuple; Pillow gives a single value bare.

    Args:
        values: One value, or several.
    """
    return tuple(values) if isinstance(values, tuple | list | bytes) else (values,)


def _check_size(width: int, height: int, samples: int, bits: int) -> None:
    """Refuse a page without pixels, or one that would not fit into memory."""
    if min(width, height, samples) < 1:
        raise Unusable(f"has {width} x {height} pixels of {samples} samples")
    if width * height * samples * ((bits + 7) // 8) > MAX_BYTES:
        raise Unusable(
            f"has {width} x {height} pixels of {samples} samples, more than {MAX_BYTES >> 20} MiB "
            "(a decompression bomb?): store it smaller"
        )


def _check_kind(shown: int, compression: int) -> None:
    """Refuse what is neither grey, RGB nor a palette, and compressions that nothing here undoes."""
    # JPEG is the one compression that turns YCbCr into RGB while it decodes.
    if shown in NAMES and not (shown == YCBCR and compression in WHOLE):
        raise Unusable(f"is stored as {NAMES[shown]}: store it as grey or RGB")
    if shown not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR):
        raise Unusable(f"has the photometric interpretation {shown}: store it as grey or RGB")
    if compression not in BYTES | WHOLE:
        raise Unusable(f"has the compression {compression}: store it with LZW, deflate or none")


def _check_samples(samples: int, colours: int, extra: tuple[int, ...]) -> None:
    """Refuse samples whose meaning nobody can know; grey with one alpha channel is clear."""
    if samples < colours or (samples > colours and colours == 1 and extra not in ((1,), (2,))):
        raise Unusable(
            f"has {samples} samples a pixel, and its tags do not say what they are: store one "
            "for grey or three for colour"
        )


def _check_predictor(predictor: int, form: int, compression: int, bits: int) -> None:
    """Refuse differences between pixels (TIFF 6.0, section 14) that programs undo differently."""
    if predictor not in (1, 2, 3) or (predictor == 3) != (predictor > 1 and form == 3):
        raise Unusable(f"has the predictor {predictor} on format {form}: store it without")
    if predictor > 1 and compression not in PREDICTED:
        raise Unusable(
            f"has the predictor {predictor} without a compression that knows it, so that programs "
            "do not agree on its pixels: store it without"
        )
    if predictor == 2 and bits not in (8, 16, 32, 64):
        raise Unusable(f"has a predictor on samples of {bits} bits: store it without")


def _tile(tags: Any, width: int, height: int, pixel_bytes: int) -> tuple[int, int]:
    """Return the rows and columns of a strip or tile."""
    if TILE_WIDTH not in tags:
        return min(height, int(tags.get(ROWS, height)) or height), width
    tile = int(tags[TILE_LENGTH]), int(tags[TILE_WIDTH])
    # A tile can be larger than its page, so that the page's size does not bound it.
    if not 0 < tile[0] * tile[1] * pixel_bytes <= MAX_BYTES:
        raise Unusable(f"has tiles of {tile[1]} x {tile[0]} pixels: store it in strips")
    return tile


def _same(values: Any, what: str) -> int:
    found = {int(v) for v in all_of(values)}
    if len(found) != 1:
        raise Unusable(f"has samples of different {what}: store them alike")
    return found.pop()


def _possible(kind: str, bits: int) -> bool:
    if kind == "f":
        return bits in (16, 32, 64)
    return 1 <= bits <= 16 or bits in (32, 64) if kind == "u" else bits in (8, 16, 32, 64)
