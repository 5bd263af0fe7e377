"""The pixels of a file as its decoder returns them. F frames, H, W pixels, S samples."""

from pathlib import Path
from typing import Any

import numpy.typing as npt

from client.data.dicom.bits import bits_of
from client.data.dicom.decoding.process import decoder
from client.data.dicom.files import decoded_bytes, too_large
from client.data.errors import Unusable

Array = npt.NDArray[Any]
LOSSY = frozenset({
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.93", "1.2.840.10008.1.2.4.203",
})  # fmt: skip
"""Transfer syntaxes whose pixels may be others than those that were compressed."""


def is_colour(header: Any) -> bool:
    """Whether its pixels are colours, or stand for colours."""
    palette = header.get("PhotometricInterpretation") == "PALETTE COLOR"
    return palette or int(header.get("SamplesPerPixel") or 1) > 1


def stored(path: Path, header: Any, largest: int, seconds: float) -> Array:
    """(F, H, W) or (F, H, W, S) words, of which `bits_of` says where the pixels are.

    Raises:
        Unusable: Too large, or no installed decoder reads it.
    """
    if decoded_bytes(header) > largest:
        raise Unusable(too_large("its pixels come", largest))
    syntax = header.file_meta.get("TransferSyntaxUID")
    several = int(header.get("SamplesPerPixel") or 1) > 1
    try:
        if syntax is None or not syntax.is_encapsulated:
            # pydicom's own correction takes High Bit to be Bits Stored - 1; copies cost time.
            header.pixel_array_options(correct_unused_bits=False, view_only=not several)
            words = header.pixel_array  # YBR becomes RGB
        else:
            words = decoder().decode(path, largest, seconds)
        frames = int(header.get("NumberOfFrames") or 1)
        words = words.reshape(frames, *words.shape[-3 if several else -2 :])
    except Unusable:
        raise
    except Exception as error:
        raise Unusable(f"its pixels cannot be decoded ({type(error).__name__}: {error})") from error
    return bits_of(header).clipped(words) if syntax in LOSSY and not several else words
