"""Colours of 8 bits: from several samples, or from palettes (PS3.3, C.7.6.3.1.5 and C.7.9.2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from client.data.dicom.bits import Bits
from client.data.dicom.files import byte_order
from client.data.dicom.groups import attribute
from client.data.dicom.segmented import expanded
from client.data.dicom.tables import Table, believed, described, table_of
from client.data.errors import Unusable

Array = npt.NDArray[Any]
COLOURS = ("Red", "Green", "Blue")
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey: ITU-R 601-2, as in Pillow."""
FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")


@dataclass(frozen=True, eq=False)
class Supplement:
    """Colours that some values of a grey frame stand for (PS3.3, C.8.16.2.1.1.1)."""

    first: int
    """Minimum stored value of a colour; smaller values are grey."""
    grey: Array
    """(N,) float32 in [0, 1]: grey of the colours of this value and the following ones."""

    def __call__(self, values: Array) -> Array:
        """Convert stored values of colours, (*,), to their grey, (*,)."""
        return self.grey[np.clip(values.astype(np.int64) - self.first, 0, len(self.grey) - 1)]


def coloured(words: Array, header: Any, bits: Bits) -> Array:
    """Convert a file's words to red, green and blue.

    Args:
        words: (F, H, W) indices of a palette, or (F, H, W, S) samples.
        header: pydicom's dataset.
        bits: The storage of a sample.
    Returns:
        (F, H, W, 3) uint8.
    Raises:
        Unusable: A palette is damaged, or the samples are not colours.
    """
    if header.get("PhotometricInterpretation") == "PALETTE COLOR":
        return _looked_up(words, bits, palette_of(header, bits))
    # Two samples, or one, have no meaning as a colour in the standard.
    if words.shape[-1] < 3:
        raise Unusable(f"has {words.shape[-1]} samples a pixel; grey or colour are understood")
    return (bits.as_values(words[..., :3]) >> max(0, bits.stored - 8)).astype(np.uint8)


def palette_of(header: Any, bits: Bits) -> list[Table]:
    """Read the three tables of a palette, with one common depth.

    Args:
        header: pydicom's dataset.
        bits: The storage of an index.
    Raises:
        Unusable: A table is missing or damaged.
    """
    order, tables = byte_order(header), []
    for colour in COLOURS:
        descriptor = header.get(f"{colour}PaletteColorLookupTableDescriptor")
        data = header.get(f"{colour}PaletteColorLookupTableData")
        segments = header.get(f"Segmented{colour}PaletteColorLookupTableData")
        # A table may be stored in either way; a plain one has priority.
        if data is None and segments is not None:
            count, first, depth = described(descriptor, bits.range)
            table = Table(first, expanded(segments, count, depth, order), depth)
        else:
            table = table_of(descriptor, data, bits.range, order)
        tables.append(table)
    # The values of one table alone do not show its depth: a palette of blues has hardly any red.
    declared = max(table.depth for table in tables)
    depth = believed(declared, *(table.entries for table in tables))
    return [Table(table.first, table.entries, depth) for table in tables]


def _looked_up(words: Array, bits: Bits, palette: list[Table]) -> Array:
    """Look colours up frame by frame, so that 64-bit indices never exist for the whole file."""
    colours = np.empty((*words.shape, len(palette)), np.uint8)
    for frame, out in zip(words, colours, strict=True):
        values = bits.as_values(frame)
        for i, table in enumerate(palette):
            out[..., i] = table(values) >> (table.depth - 8)
    return colours


def supplement_of(header: Any, frame: int, bits: Bits) -> Supplement | None:
    """Return the colours of a frame whose Pixel Presentation is COLOR; None where it has none.

    Args:
        header: pydicom's dataset.
        frame: Number of the frame, from 0.
        bits: The storage of a sample.
    Raises:
        Unusable: The palette is damaged.
    """
    if "RedPaletteColorLookupTableDescriptor" not in header:
        return None
    stated = [attribute(header, frame, name, "PixelPresentation") for name in FRAME_TYPES]
    if "COLOR" not in stated:
        return None
    palette = palette_of(header, bits)
    grey = sum(
        weight * table.entries.astype(np.float64) / (2.0**table.depth - 1)
        for weight, table in zip(LUMA, palette, strict=True)
    )
    return Supplement(palette[0].first, np.asarray(grey, np.float32))


def as_grey(image: Tensor) -> Tensor:
    """Convert colour to grey by ITU-R 601-2 luma.

    Args:
        image: (3, *spatial) uint8 red, green and blue.
    Returns:
        (1, *spatial) uint8.
    """
    grey = image[0].float() * LUMA[0]
    for part, weight in zip(image[1:], LUMA[1:], strict=True):
        grey += part * weight
    return grey.round().to(torch.uint8)[None]
