"""Values of a modality -> grey, black 0 and white 1: windows and tables of PS3.3, C.11.2."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.dicom.groups import holders
from client.data.dicom.tables import Table, table_of
from client.data.errors import Unusable

Array = npt.NDArray[Any]
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
"""Functions of a window: PS3.3, C.11.2.1.2 and C.11.2.1.3."""


@dataclass(frozen=True)
class Curve:
    """A window that the file states by its centre and width."""

    centre: float
    width: float
    function: str

    def __call__(self, values: Array) -> Array:
        """Convert values (*,) float64 to grey (*,) between 0 and 1."""
        if self.function == "SIGMOID":
            return 1 / (1 + np.exp(-4 * (values - self.centre) / self.width))
        if self.function == "LINEAR_EXACT":
            return between(values, self.centre - self.width / 2, self.centre + self.width / 2)
        # The standard's LINEAR: the centre lies between two whole numbers, and both ends count.
        half, centre = (self.width - 1) / 2, self.centre - 0.5
        return between(values, centre - half, centre + half)


@dataclass(frozen=True)
class Shades:
    """A table of the file."""

    table: Table

    def __call__(self, values: Array) -> Array:
        """Convert values (*,) float64 to grey (*,) between 0 and 1."""
        return self.table(values) / (2.0**self.table.depth - 1)


@dataclass(frozen=True)
class Range:
    """A window of two numbers: values up to the first are black, values from the second on are
    white.
    """

    low: float
    high: float

    def __call__(self, values: Array) -> Array:
        """Convert values (*,) float64 to grey (*,) between 0 and 1."""
        return between(values, self.low, self.high)


Voi = Curve | Shades | Range


def same(one: Voi, other: Voi) -> bool:
    """Return whether two windows map every value to the same grey.

    Args:
        one: A window or table.
        other: Another one.
    """
    if isinstance(one, Shades) and isinstance(other, Shades):
        return one.table.same(other.table)
    return type(one) is type(other) and not isinstance(one, Shades) and one == other


def between(values: Array, low: float, high: float) -> Array:
    """Map `low` and below to 0, `high` and above to 1; where both are one value, a step.

    Args:
        values: (*,) float64.
        low: Value shown black.
        high: Value shown white.
    Raises:
        Unusable: The range is infinite.
    """
    span = high - low
    if not math.isfinite(span):
        raise Unusable(f"its values range from {low:g} to {high:g}")
    # A window without width is a threshold; dividing by zero would give NaN.
    return np.clip((values - low) / max(span, 1e-12), 0.0, 1.0)


def voi_of(header: Any, frame: int, inputs: tuple[float, float], order: str) -> Voi | None:
    """Return the first table or window that a file has for a frame, or None.

    The frame's own group comes first, then the shared one, then the top level; in each, a table
    comes before a window (PS3.3, C.11.2).

    Args:
        header: pydicom's dataset.
        frame: Number of the frame, from 0.
        inputs: Minimum and maximum value that the modality transform can give.
        order: `<` or `>`, the file's byte order.
    Raises:
        Unusable: A table is damaged, or a window shows nothing.
    """
    for holder in holders(header, frame, "FrameVOILUTSequence"):
        if tables := holder.get("VOILUTSequence"):
            item = tables[0]
            return Shades(table_of(item.get("LUTDescriptor"), item.get("LUTData"), inputs, order))
        centre, width = _first(holder, "WindowCenter"), _first(holder, "WindowWidth")
        # A centre without a width, which occurs, defines no window.
        if centre is not None and width is not None:
            # LINEAR is the default of the standard where the function is missing.
            function = str(holder.get("VOILUTFunction", "") or "LINEAR").strip().upper()
            return _curve(centre, width, function)
    return None


def _curve(centre: float, width: float, function: str) -> Curve:
    """Make a window, and refuse one that shows nothing."""
    # LINEAR divides by width - 1, so that its width is at least 1 (PS3.3, C.11.2.1.2).
    possible = width >= 1 if function == "LINEAR" else width > 0
    if function not in FUNCTIONS or not possible or not math.isfinite(centre + width):
        raise Unusable(
            f"its window is impossible: {function} {centre:g} +- {width:g}. Set data.window to "
            "full, or to two numbers"
        )
    return Curve(centre, width, function)


def _first(holder: Any, name: str) -> float | None:
    """Return the first of several windows: the standard leaves the choice to the reader."""
    value = holder.get(name)
    if value is None or value == "":
        return None
    # Several values are alternatives of the device, such as lung and bone.
    if hasattr(value, "__len__") and not isinstance(value, str):
        if not len(value):
            return None
        value = value[0]
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise Unusable(f"its {name} is {value!r}, which is not a number") from error
