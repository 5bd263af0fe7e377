"""Stored values of a file's frames. F frames, H, W pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.decoding import decoder
from client.data.dicom.files import decoded_bytes, too_large
from client.data.records import Unusable

Array = npt.NDArray[Any]
NATIVE = frozenset({
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
})  # fmt: skip
"""Transfer syntaxes whose pixels are not compressed: only these are read in this process."""


def stored(path: Path, header: Any, largest: int, seconds: float) -> tuple[Array, bool]:
    """(F, H, W) stored values, or (F, H, W, 3) uint8 red, green and blue; and whether in colour."""
    from pydicom.pixels import apply_color_lut

    if decoded_bytes(header) > largest:
        raise Unusable(too_large("its pixels come", largest))
    shown = str(header.get("PhotometricInterpretation", ""))
    syntax = header.file_meta.get("TransferSyntaxUID")
    try:
        if syntax is None or syntax in NATIVE:
            values = header.pixel_array  # YBR becomes RGB
        else:
            values = decoder().decode(path, largest, seconds)
        if shown == "PALETTE COLOR":
            values = apply_color_lut(values, header)
    except Unusable:
        raise
    except Exception as error:
        raise Unusable(f"its pixels cannot be decoded ({type(error).__name__}: {error})") from error
    colour = shown == "PALETTE COLOR" or int(header.SamplesPerPixel) > 1
    frames = int(header.get("NumberOfFrames") or 1)
    values = values.reshape(frames, *values.shape[-3 if colour else -2 :])
    if not colour:
        return values, False
    if values.shape[-1] < 3:
        raise Unusable(f"has {values.shape[-1]} samples a pixel; grey or colour are understood")
    bits = 8 * values.dtype.itemsize if shown == "PALETTE COLOR" else int(header.BitsStored)
    return (values[..., :3] >> max(0, bits - 8)).astype(np.uint8), True
