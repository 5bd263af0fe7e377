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
"""Transfer syntaxes whose decoded pixels may differ from those that were compressed."""


def is_colour(header: Any) -> bool:
    """Return whether the pixels are colours, or indices of colours.

    Args:
        header: pydicom's dataset.
    """
    palette = header.get("PhotometricInterpretation") == "PALETTE COLOR"
    return palette or int(header.get("SamplesPerPixel") or 1) > 1


def stored(path: Path, header: Any, max_bytes: int, seconds: float) -> Array:
    """Read the words of a file; `bits_of` states where in a word the pixel is.

    Args:
        path: The file.
        header: Its dataset.
        max_bytes: Maximum bytes of the decoded pixels.
        seconds: Processor time for each million pixels.
    Returns:
        (F, H, W), or (F, H, W, S) with several samples a pixel.
    Raises:
        Unusable: It is too large, or no installed decoder reads it.
    """
    # The header's promise is checked first: decoding cannot be interrupted in between.
    if decoded_bytes(header) > max_bytes:
        raise Unusable(too_large("its pixels come", max_bytes))
    syntax = header.file_meta.get("TransferSyntaxUID")
    several = int(header.get("SamplesPerPixel") or 1) > 1
    try:
        if syntax is None or not syntax.is_encapsulated:
            # pydicom's correction assumes High Bit = Bits Stored - 1; `Bits` reads the real one.
            header.pixel_array_options(correct_unused_bits=False, view_only=not several)
            words = header.pixel_array  # YBR becomes RGB
        else:
            # Codecs in C run in another process, which a damaged file may abort.
            words = decoder().decode(path, max_bytes, seconds)
        frames = int(header.get("NumberOfFrames") or 1)
        # A file of one frame comes without the axis of frames.
        words = words.reshape(frames, *words.shape[-3 if several else -2 :])
    except Unusable:
        raise
    except Exception as error:
        raise Unusable(f"its pixels cannot be decoded ({type(error).__name__}: {error})") from error
    return bits_of(header).clipped(words) if syntax in LOSSY and not several else words
