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
"""Of a window: C.11.2.1.2 and C.11.2.1.3."""


@dataclass(frozen=True)
class Curve:
    """A window that the file states by its centre and width."""

    centre: float
    width: float
    function: str

    def __call__(self, values: Array) -> Array:
        """(*,) float64 -> (*,) between 0 and 1."""
        if self.function == "SIGMOID":
            return 1 / (1 + np.exp(-4 * (values - self.centre) / self.width))
        if self.function == "LINEAR_EXACT":
            return between(values, self.centre - self.width / 2, self.centre + self.width / 2)
        half, centre = (self.width - 1) / 2, self.centre - 0.5
        return between(values, centre - half, centre + half)


@dataclass(frozen=True)
class Shades:
    """A table of the file."""

    table: Table

    def __call__(self, values: Array) -> Array:
        """(*,) float64 -> (*,) between 0 and 1."""
        return self.table(values) / (2.0**self.table.depth - 1)


@dataclass(frozen=True)
class Range:
    """A window of two numbers: black and what is below it, white and what is above it."""

    low: float
    high: float

    def __call__(self, values: Array) -> Array:
        """(*,) float64 -> (*,) between 0 and 1."""
        return between(values, self.low, self.high)


Voi = Curve | Shades | Range


def same(one: Voi, other: Voi) -> bool:
    """Whether two do the same to every value."""
    if isinstance(one, Shades) and isinstance(other, Shades):
        return one.table.same(other.table)
    return type(one) is type(other) and not isinstance(one, Shades) and one == other


def between(values: Array, low: float, high: float) -> Array:
    """0 at `low` and below, 1 at `high` and above; a step where both are one value."""
    span = high - low
    if not math.isfinite(span):
        raise Unusable(f"its values range from {low:g} to {high:g}")
    return np.clip((values - low) / max(span, 1e-12), 0.0, 1.0)


def voi_of(header: Any, frame: int, inputs: tuple[float, float], order: str) -> Voi | None:
    """The first table or window that a frame's file has for it: its own group's, the shared one's
    or the top level's; of these, a table before a window. None: there is none.

    Args:
        inputs: Lowest and highest value that the modality transform can give.
        order: `<` or `>`, by the file's transfer syntax.
    Raises:
        Unusable: A damaged table, or a window that shows nothing.
    """
    for holder in holders(header, frame, "FrameVOILUTSequence"):
        if tables := holder.get("VOILUTSequence"):
            item = tables[0]
            return Shades(table_of(item.get("LUTDescriptor"), item.get("LUTData"), inputs, order))
        centre, width = _first(holder, "WindowCenter"), _first(holder, "WindowWidth")
        if centre is not None and width is not None:
            function = str(holder.get("VOILUTFunction", "") or "LINEAR").strip().upper()
            return _curve(centre, width, function)
    return None


def _curve(centre: float, width: float, function: str) -> Curve:
    least = 1 if function == "LINEAR" else 0
    possible = width >= least if least else width > 0
    if function not in FUNCTIONS or not possible or not math.isfinite(centre + width):
        raise Unusable(
            f"its window is impossible: {function} {centre:g} +- {width:g}. Set data.window to "
            "full, or to two numbers"
        )
    return Curve(centre, width, function)


def _first(holder: Any, name: str) -> float | None:
    """Of several windows, the first."""
    value = holder.get(name)
    if value is None or value == "":
        return None
    if hasattr(value, "__len__") and not isinstance(value, str):
        if not len(value):
            return None
        value = value[0]
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise Unusable(f"its {name} is {value!r}, which is no number") from error
