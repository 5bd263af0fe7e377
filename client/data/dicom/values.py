"""Stored values -> grey, each frame with its own transforms. H, W pixels of a frame.

The steps are those of the standard's grey pipeline (PS3.4, N.2): stored bits, padding, modality
transform, window or table, inversion.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.dicom.frames import Frame
from client.data.dicom.modality import Linear, of_one_kind
from client.data.dicom.windows import Range, Voi, same
from client.data.errors import Unusable
from client.data.sources import Window

Array = npt.NDArray[Any]
BLOCK = 2**18
"""Pixels that are converted at once."""

NOTES = {
    "windows": "have slices with different windows: that of the middle slice is used for all",
    "none": "state no window: their whole range is shown",
    "mapped": "hold a Real World Value Mapping, which is not applied: data.window is in the units "
    "after rescaling",
    "blank": "are one shade of grey throughout: check that data.window suits them",
    "colours": "hold colours among their grey values (Pixel Presentation): their grey is shown",
    "padding": "hold padding (Pixel Padding Value): it is black and not counted in ranges",
}
"""Choice -> a remark for the data card."""
NOTHING = "all of its pixels are padding (Pixel Padding Value): there is no image"


@dataclass(frozen=True)
class Block:
    """Some rows of one frame."""

    number: int
    """Number of the frame."""
    rows: slice
    values: Array
    """(h, W) float64, in the units of the modality."""
    padding: Array | None
    """(h, W) bool; None where there is none."""
    coloured: Array | None
    """(h, W) bool: values that stand for colours; None where none does."""
    colours: Array | None
    """Grey of these colours, in the order of the pixels."""

    @property
    def grey(self) -> Array:
        """Values (N,) that the grey pipeline applies to, or all as (h, W)."""
        aside = [mask for mask in (self.padding, self.coloured) if mask is not None]
        return self.values[~np.logical_or.reduce(aside)] if aside else self.values


def shown(
    words: Sequence[Array], frames: Sequence[Frame], window: Window
) -> tuple[Array, tuple[str, ...]]:
    """Convert the words of every frame to grey.

    Padding is 0 whatever the window, and also where low values are shown bright: it is background.
    The work is done block by block, so that float64 never exists for the whole.

    Args:
        words: (H, W) of each frame, in order.
        frames: Their transforms.
        window: The window as declared.
    Returns:
        (F, H, W) float32 in [0, 1], white 1; and remarks about what was chosen.
    Raises:
        Unusable: The values of frames cannot be compared, or all pixels are padding.
    """
    of_one_kind([frame.modality for frame in frames], "slice")
    for pixels, frame in zip(words, frames, strict=True):
        _check_slope(pixels, frame)
    voi, notes = chosen(frames, window)
    # One range for all frames keeps slices of a volume comparable.
    voi = voi or _whole_range(words, frames)
    grey = np.empty((len(words), *words[0].shape), np.float32)
    image = padded = coloured = False
    for block in _blocks(words, frames):
        seen = voi(block.values)
        # MONOCHROME1 inverts after the window, so that its centre keeps its meaning (PS3.4, N.2).
        if frames[block.number].inverted:
            np.subtract(1, seen, out=seen)
        if block.coloured is not None:
            seen[block.coloured] = block.colours
            coloured = True
        if block.padding is not None:
            seen[block.padding] = 0
            padded = True
        image = image or block.padding is None or not block.padding.all()
        grey[block.number, block.rows] = seen
    if not image:
        raise Unusable(NOTHING)
    blank = bool(grey.min() == grey.max())
    found = (("colours", coloured), ("padding", padded), ("blank", blank))
    notes += [NOTES[what] for what, is_so in found if is_so]
    return grey, tuple(notes)


def chosen(frames: Sequence[Frame], window: Window) -> tuple[Voi | None, list[str]]:
    """Choose one window for all frames; None for their whole range.

    Slices of one volume must be comparable. Where they state several windows, that of the middle
    slice is used, which shows the object of the scan; the first slice often shows air.

    Args:
        frames: The transforms, in order.
        window: The window as declared.
    Returns:
        The window, and remarks about the choice.
    """
    # The site's two numbers are explicit and replace whatever files state.
    if isinstance(window, tuple):
        mapped = any(frame.modality.mapped for frame in frames)
        return Range(*window), [NOTES["mapped"]] if mapped else []
    if window == "full":
        return None, []
    middle = len(frames) // 2
    # If the middle slice states none, the nearest slice that does.
    nearest = sorted(range(len(frames)), key=lambda i: abs(i - middle))
    found = [voi for i in nearest if (voi := frames[i].voi) is not None]
    if not found:
        return None, [NOTES["none"]]
    alike = len(found) == len(frames) and all(same(voi, found[0]) for voi in found)
    return found[0], [] if alike else [NOTES["windows"]]


def _whole_range(words: Sequence[Array], frames: Sequence[Frame]) -> Range:
    """Return the range from the minimum to the maximum of all frames, padding left out."""
    low, high = np.inf, -np.inf
    for block in _blocks(words, frames):
        if (values := block.grey).size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return Range(low, high) if low <= high else Range(0, 1)  # padding or colours alone


def _check_slope(words: Array, frame: Frame) -> None:
    """Refuse a frame that a slope of 0 would reduce to one value.

    A frame that has only one value already, such as an empty slice of a PET series, loses nothing.
    """
    transform = frame.modality.transform
    if isinstance(transform, Linear) and transform.slope == 0:
        values = frame.bits.as_values(words)
        if values.min() != values.max():
            raise Unusable("its RescaleSlope is 0, which makes all of its values one")


def _blocks(words: Sequence[Array], frames: Sequence[Frame]) -> Iterator[Block]:
    """Yield the frames in blocks of rows, with their padding and colours."""
    for number, (pixels, frame) in enumerate(zip(words, frames, strict=True)):
        height = max(1, BLOCK // max(1, pixels.shape[1]))
        for top in range(0, len(pixels), height):
            rows = slice(top, top + height)
            values = frame.bits.as_values(pixels[rows])
            padding = frame.padding.of(pixels[rows], values) if frame.padding else None
            # Most blocks have none: the masks below would be copies for nothing.
            if padding is not None and not padding.any():
                padding = None
            coloured = colours = None
            if frame.supplement and (above := values >= frame.supplement.first).any():
                coloured, colours = above, frame.supplement(values[above])
            yield Block(number, rows, frame.modality(values), padding, coloured, colours)
