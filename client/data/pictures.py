"""Picture files -> images of declared channels, by Pillow. Every function sees one file alone."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import Resampling

from client.data.records import Unusable
from medformer.images import SIDES

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".bmp", ".dib", ".tif", ".tiff"}
)
"""Names of files that are taken for pictures; every other file in class folders is passed over."""


def picture(path: Path, channels: int) -> Image.Image:
    """A file as grey (1 channel: mode L, or F where it has more than 8 bits) or colour (RGB).

    Colour becomes grey by Pillow's L (ITU-R 601-2 luma). Deeper grey stays grey, mode F: whoever
    wants three channels repeats it. Transparency is dropped.

    Raises:
        Unusable: No readable picture, or one of several pages.
    """
    image = _opened(path)
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(np.asarray(image).astype(np.float32))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA").convert("RGB")  # not at once: Pillow warns of transparency
    return image.convert("L" if channels == 1 else "RGB")


def mask(path: Path) -> Image.Image:
    """A mask's class of each pixel, mode I: stored values, or numbers in a palette.

    Raises:
        Unusable: As `picture`, or a mask in colours.
    """
    image = _opened(path)
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise Unusable(f"a mask must be grey or have a palette, got mode {image.mode}")
    return Image.fromarray(np.asarray(image).astype(np.int32))


def fitted(
    image: Image.Image, max_side: int, multiple: int, resampling: Resampling = Resampling.BOX
) -> Image.Image:
    """The picture with its longer side at most `max_side` and sides a multiple of `multiple`.

    Reduced keeping its aspect, then cut around its centre. With BOX every new pixel is the mean of
    the area that it covers, so that no value leaves the picture's own range.

    Raises:
        Unusable: Less is left than the model can read.
    """
    size = image.size
    if max(size) > max_side:
        image = image.resize(_reduced(size, max_side), resampling)
    width, height = (n - n % multiple for n in image.size)
    least = SIDES[2][0]
    if min(width, height) < least:
        raise Unusable(
            f"{size[0]} x {size[1]} pixels come to {width} x {height}, fewer than {least} a side"
        )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def stretch(size: tuple[int, int], max_side: int) -> tuple[float, float]:
    """How much farther apart pixels lie along H and W once `fitted` has reduced (W, H) sides."""
    width, height = _reduced(size, max_side)
    return (size[1] / height, size[0] / width)


def _reduced(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    factor = min(1.0, max_side / max(size))
    return (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))


def _opened(path: Path) -> Image.Image:
    """The decoded file, upright as a camera meant it."""
    if not path.is_file():
        raise Unusable("no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
                    raise Unusable("holds several pages: store one image a file")
                image.load()
                return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise Unusable("is no PNG, JPEG, BMP or TIFF image") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Unusable(
            f"has more than {Image.MAX_IMAGE_PIXELS} pixels (a decompression bomb?): store it "
            "smaller"
        ) from error
