"""Stored values -> grey: rescaling (PS3.3, C.11.1, C.7.6.16.2.9), windows (C.11.2), inverted grey
(C.7.6.3.1.2). H, W pixels of a frame."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.dicom.frames import Frame
from client.data.dicom.groups import holders
from client.data.records import Unusable
from client.data.sources import Window

Array = npt.NDArray[Any]
BLOCK = 2**20
"""Pixels that are rescaled at once."""


def shown(stored: Sequence[Array], frames: Sequence[Frame], window: Window) -> Array:
    """(H, W) stored values of every frame as one array of float32 in [0, 1], white 1.

    Block by block, so that float64 never exists of the whole.
    """
    low, high = np.inf, -np.inf
    for _, values in _rescaled(stored, frames):
        if not np.isfinite(values).all():
            raise Unusable("its rescaled values are not finite")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    grey = np.empty((len(stored), *stored[0].shape), np.float32)
    for (number, rows), values in _rescaled(stored, frames):
        seen: Array | None = None
        if isinstance(window, tuple):
            seen = _between(values, *window)
        elif window == "file":
            seen = _windowed(values, frames[0])
        if seen is None:
            seen = _between(values, low, high)
        if not np.isfinite(seen).all():
            raise Unusable("its window gives values that are not finite")
        grey[number, rows] = 1 - seen if frames[number].inverted else seen
    return grey


def _rescaled(
    stored: Sequence[Array], frames: Sequence[Frame]
) -> Iterator[tuple[tuple[int, slice], Array]]:
    """Number and rows of a frame, and their values, (h, W) float64 in the units of the modality."""
    from pydicom.pixels import apply_modality_lut

    for number, (pixels, frame) in enumerate(zip(stored, frames, strict=True)):
        height = max(1, BLOCK // max(1, pixels.shape[1]))
        for top in range(0, len(pixels), height):
            rows = slice(top, top + height)
            if frame.rescale is None or frame.header.get("ModalityLUTSequence"):
                values = np.asarray(apply_modality_lut(pixels[rows], frame.header), np.float64)
            else:
                slope, intercept = frame.rescale
                values = pixels[rows] * np.float64(slope) + intercept
            yield (number, rows), values


def _between(values: Array, low: float, high: float) -> Array:
    span = high - low
    if not np.isfinite(span):
        raise Unusable(f"its values range from {low:g} to {high:g}")
    return np.clip((values - low) / max(span, 1e-12), 0.0, 1.0)


def _windowed(values: Array, frame: Frame) -> Array | None:
    """By the frame's first window or table; None if it has none."""
    from pydicom.pixels import apply_voi

    header = frame.header
    if header.get("VOILUTSequence"):
        table = header.VOILUTSequence[0].LUTDescriptor
        seen = apply_voi(np.rint(values).astype(np.int64), header, index=0)
        return np.asarray(seen, dtype=np.float64) / (2.0 ** int(table[2]) - 1)
    for holder in holders(header, frame.number, "FrameVOILUTSequence"):
        if holder.get("WindowCenter") is not None and holder.get("WindowWidth") is not None:
            break
    else:
        return None
    centre, width = _first(holder.WindowCenter), _first(holder.WindowWidth)
    kind = str(holder.get("VOILUTFunction", "") or "LINEAR").upper()
    if kind == "SIGMOID" and width > 0:
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if kind == "LINEAR_EXACT" and width > 0:
        return _between(values, centre - width / 2, centre + width / 2)
    if kind == "LINEAR" and width >= 1:
        return _between(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
    raise Unusable(f"its window is impossible: {kind} {centre:g} +- {width:g}")


def _first(value: Any) -> float:
    """Of several windows, the first."""
    try:
        return float(value)
    except TypeError:
        return float(value[0])
