"""Picture files -> images of declared channels. Every function sees one file alone.

Pillow decodes; tags and headers that it ignores are read in `tiff.py` and `png.py`. H, W pixels.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.Image import Resampling, Transpose

from client.data.errors import Unusable
from client.data.pictures import png, tiff

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".bmp", ".dib", ".tif", ".tiff"}
)
"""Suffixes of files that are read as pictures; every other file in class folders is passed over."""
ORIENTATION = 274
"""Tag of TIFF and Exif that states how a picture is turned."""
TURNED = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}  # fmt: skip
MASK = "a mask must be grey or have a palette"
REMEDY = "store one number a pixel, that of its class"
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey: ITU-R 601-2, as in Pillow."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Picture:
    """A decoded picture: with 8 bits one image of mode L or RGB; with more, images of mode F, one
    for grey and three for colour.
    """

    planes: tuple[Image.Image, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.planes[0].size


def picture(path: Path, channels: int) -> Picture:
    """Read a file as grey (1 channel) or colour (3), upright.

    Values are as stored, white the highest. Colour becomes grey by ITU-R 601-2 luma. Deeper grey
    stays one plane; a caller that wants three channels repeats it. Transparency is dropped: the
    colours stored under transparent pixels are kept.

    Args:
        path: A picture file.
        channels: 1 or 3.
    Raises:
        Unusable: It is not a readable picture, has several pages, or is stored in a way that is
            ambiguous.
    """
    with _opened(path) as image:
        return _picture(path, image, channels)


def mask(path: Path) -> Image.Image:
    """Read the class of each pixel of a mask, upright, mode I: stored values, or numbers in a
    palette.

    Args:
        path: A picture file.
    Raises:
        Unusable: As in `picture`; or the mask has colours or transparency, is a JPEG, which changes
            values, or holds values that are not small whole numbers.
    """
    with _opened(path) as image:
        return _mask(path, image)


def reduced(
    image: Image.Image, sides: tuple[int, ...], resampling: Resampling = Resampling.BOX
) -> Image.Image:
    """Resize a picture to these (H, W) pixels.

    Args:
        image: The picture.
        sides: (H, W).
        resampling: With BOX every new pixel is the mean of the area that it covers, so that no
            value leaves the picture's range.
    """
    size = (sides[1], sides[0])
    return image if image.size == size else image.resize(size, resampling)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image | None]:
    """Open a file without decoding it; yields None for a TIFF, whose tags Pillow does not
    interpret.
    """
    if not path.is_file():
        raise Unusable("no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pillow only warns up to twice its limit; here the limit itself counts.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if _is_tiff(path):
                yield None
                return
            with Image.open(path, formats=FORMATS) as image:
                # Which frame of an animation is the record would be a guess.
                if image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
                    raise Unusable("is an animation of several pictures: store one image a file")
                yield image
    except UnidentifiedImageError as error:
        raise Unusable(_unknown(path)) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Unusable(
            f"has more than {Image.MAX_IMAGE_PIXELS} pixels (a decompression bomb?): store it "
            "smaller"
        ) from error
    except MemoryError as error:
        raise Unusable("has impossible lengths, or is too large for this machine") from error
    except OSError as error:
        if error.errno is not None:  # the disk failed, not the picture
            raise
        raise Unusable(
            f"is damaged, or of a kind that is not read ({error}): store it as PNG"
        ) from error


def _is_tiff(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _unknown(path: Path) -> str:
    with open(path, "rb") as file:
        begins = file.read(2)
    # The bytes that every JPEG begins with.
    if begins == b"\xff\xd8":
        return "is a JPEG of a kind that is not read (12 bits, lossless): store it as PNG or TIFF"
    return "is not a PNG, JPEG, BMP or TIFF image"


def _picture(path: Path, image: Image.Image | None, channels: int) -> Picture:
    """Decode a picture by the way that keeps all its bits."""
    if image is None:
        page = tiff.page(path)
        return _planes(*_shown(page), page.orientation, channels)
    turn = _turn(image)
    if image.format == "PNG" and png.is_deep(path):
        values = png.deep(path)
        return _planes(values[..., : 1 if values.shape[-1] == 2 else 3], False, turn, channels)
    # Inks become colours only with the profile of a printer.
    if image.mode in ("CMYK", "YCCK", "LAB"):
        raise Unusable("is stored in the inks of print (CMYK): store it as grey or RGB")
    image.load()
    # More than 8 bits: convert("L") would clip at 255.
    if image.mode == "F" or image.mode.startswith("I"):
        return _planes(np.asarray(image).astype(np.float32)[..., None], False, turn, channels)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA").convert("RGB")  # not at once: Pillow warns of transparency
    return Picture((_upright(image.convert("L" if channels == 1 else "RGB"), turn),))


def _shown(page: tiff.Page) -> tuple[Array, bool]:
    """Return a page as it is to be seen, (H, W, 1 or 3) with white the highest, and if it has 8
    bits.
    """
    values, white = page.samples, 2**page.bits - 1
    if page.palette is not None:
        if values.dtype.kind != "u":
            raise Unusable("has a palette, and numbers that may be negative: store it as RGB")
        return page.palette[values[..., 0]], True
    colours = 3 if page.shown in (tiff.RGB, tiff.YCBCR) else 1
    # Premultiplied colours (ExtraSamples 1) are darker than the picture.
    if page.extra[:1] == (1,):
        values = _unmultiplied(values, colours, white)
    values = values[..., :colours]
    if page.shown == tiff.WHITE_IS_ZERO:
        if values.dtype.kind != "u":
            raise Unusable(
                "says that 0 is white, and has numbers without a maximum: store it with black 0"
            )
        values = white - values
    # Shallow grey is scaled to 8 bits, as viewers show it.
    if values.dtype.kind == "u" and page.bits < 8:
        return (values.astype(np.uint16) * 255 // white).astype(np.uint8), True
    return values, values.dtype == np.uint8


def _unmultiplied(values: Array, colours: int, white: int) -> Array:
    """Divide colours that were multiplied by their alpha before they were stored."""
    alpha = values[..., colours : colours + 1]
    if values.dtype.kind != "u":
        # Floating point has no defined opaque value other than 1.
        if (alpha != 1).any():
            raise Unusable("has transparency, multiplied into its numbers: store it without")
        return values
    if (alpha == white).all():
        return values
    whole = values.astype(np.float64)
    divided = np.rint(whole * white / np.maximum(whole[..., colours : colours + 1], 1))
    return np.clip(divided, 0, white).astype(values.dtype)


def _planes(values: Array, eight: bool, turn: int, channels: int) -> Picture:
    """Make a picture of (H, W, 1 or 3) values, turned upright."""
    if eight:
        flat = values[..., 0] if values.shape[-1] == 1 else values
        image = Image.fromarray(np.ascontiguousarray(flat))
        return Picture((_upright(image.convert("L" if channels == 1 else "RGB"), turn),))
    # 16-bit integers are exact in float32.
    deep = values.astype(np.float32)
    if deep.shape[-1] == 3 and channels == 1:
        deep = (values.astype(np.float64) @ np.array(LUMA)).astype(np.float32)[..., None]
    planes = (np.ascontiguousarray(deep[..., i]) for i in range(deep.shape[-1]))
    return Picture(tuple(_upright(Image.fromarray(plane), turn) for plane in planes))


def _turn(image: Image.Image) -> int:
    """Return the orientation that Exif states; 1, which is upright, where none can be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except (SyntaxError, TypeError, ValueError, struct.error):
        return 1


def _upright(image: Image.Image, turn: int) -> Image.Image:
    """Turn a picture as the camera or scanner meant it."""
    return image.transpose(TURNED[turn]) if turn in TURNED else image


def _mask(path: Path, image: Image.Image | None) -> Image.Image:
    """Read the stored classes of a mask, and refuse files that may have changed them."""
    if image is None:
        page = tiff.page(path)
        # Compression changes values near edges, and so the classes there.
        if not page.exact:
            raise Unusable("is JPEG or fax in a TIFF: store the mask as PNG, or as TIFF with LZW")
        if page.shown == tiff.WHITE_IS_ZERO:
            raise Unusable(
                "says that 0 is white, so that its classes may be the stored or the shown values: "
                "store the mask with black 0"
            )
        if page.samples.shape[-1] != 1 or page.shown == tiff.RGB:
            raise Unusable(f"{MASK}, got several samples a pixel: {REMEDY}")
        return _upright(_classes(page.samples[..., 0]), page.orientation)
    if image.format in ("JPEG", "MPO"):  # an MPO is a JPEG with others behind it
        raise Unusable("is a JPEG, which changes values: store the mask as PNG")
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise Unusable(f"{MASK}, got mode {image.mode}: {REMEDY}")
    turn = _turn(image)
    image.load()
    values = np.asarray(image)
    if image.format == "PNG" and image.mode == "L":
        # Pillow scales 1, 2 and 4 bits to 0..255, and class 1 of a 1-bit mask to 255.
        values = values // (255 // (2 ** png.depth(path)[0] - 1))
    return _upright(_classes(values), turn)


def _classes(values: Array) -> Image.Image:
    """Return stored numbers as an image of mode I."""
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        raise Unusable("a mask must hold whole numbers")
    if values.dtype.kind != "b" and not -(2**31) <= values.min() <= values.max() < 2**31:
        raise Unusable("a mask must hold small whole numbers")
    return Image.fromarray(values.astype(np.int32))
