"""Stored values -> values in the units of the modality: PS3.3, C.11.1 and C.7.6.16.2.9.

Real World Value Mappings (C.7.6.16.2.11) are not applied: windows are in the units of the modality
transform, and so are the two numbers of `data.window`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.dicom.bits import Bits
from client.data.dicom.groups import holders
from client.data.dicom.tables import Table, table_of
from client.data.errors import Unusable

Array = npt.NDArray[Any]
PROJECTIONS = ("1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2")
"""SOP classes of X-ray angiography and radiofluoroscopy. Their modality tables lead back to the
intensity of the beam, for subtraction, and are not used for display (PS3.4, N.2.1.2)."""


@dataclass(frozen=True)
class Linear:
    """A slope and an intercept (Rescale Slope and Intercept)."""

    slope: float
    intercept: float

    def __call__(self, values: Array) -> Array:
        """Convert stored values (*,) to float64 (*,)."""
        return values * np.float64(self.slope) + self.intercept


@dataclass(frozen=True)
class Modality:
    """The transform of one frame's stored values to those of its modality."""

    transform: Linear | Table | None
    """Transform; None where stored values are those of the modality."""
    unit: str
    """Unit as the file names it, such as HU or BQML; "" where it does not."""
    range: tuple[float, float]
    """Minimum and maximum value that the transform can give."""
    mapped: bool = False
    """True if the file also holds a Real World Value Mapping, which is not applied."""

    def __call__(self, values: Array) -> Array:
        """Convert stored values (*,) to float64 (*,)."""
        if self.transform is None:
            return values.astype(np.float64)
        return np.asarray(self.transform(values), np.float64)


def modality_of(header: Any, frame: int, bits: Bits, order: str) -> Modality:
    """Read a frame's transform: its table, or the slope and intercept of the first holder with
    either.

    Args:
        header: pydicom's dataset.
        frame: Number of the frame, from 0.
        bits: The storage of a sample.
        order: `<` or `>`, the file's byte order.
    Raises:
        Unusable: A table is damaged, or a slope or intercept is not a number.
    """
    low, high = bits.range
    macro = "RealWorldValueMappingSequence"
    mapped = any(h is not header or h.get(macro) for h in holders(header, frame, macro))
    tables = header.get("ModalityLUTSequence")
    # A table replaces slope and intercept: the standard allows only one of them.
    if tables and str(header.get("SOPClassUID", "")) not in PROJECTIONS:
        item = tables[0]
        table = table_of(item.get("LUTDescriptor"), item.get("LUTData"), (low, high), order)
        ends = (float(table.entries.min()), float(table.entries.max()))
        return Modality(table, _unit(item.get("ModalityLUTType")), ends, mapped)
    linear, unit = _linear(header, frame)
    # PET and dose files name their unit outside of the rescaling.
    unit = unit or _unit(header.get("Units")) or _unit(header.get("DoseUnits"))
    if linear is None:
        return Modality(None, unit, (low, high), mapped)
    reached = sorted(float(linear(np.array(float(end)))) for end in bits.range)
    # A damaged slope such as 1e300 would turn every pixel into infinity.
    if not all(map(math.isfinite, reached)):
        raise Unusable(f"its values range from {reached[0]:g} to {reached[1]:g} after rescaling")
    return Modality(linear, unit, (reached[0], reached[1]), mapped)


def _linear(header: Any, frame: int) -> tuple[Linear | None, str]:
    """Return the first slope and intercept, and the unit; None where the file has neither."""
    for holder in holders(header, frame, "PixelValueTransformationSequence"):
        slope, intercept = _number(holder, "RescaleSlope"), _number(holder, "RescaleIntercept")
        # Some files state only one of the two; the other is then neutral.
        if slope is not None or intercept is not None:
            linear = Linear(1.0 if slope is None else slope, intercept or 0.0)
            return linear, _unit(holder.get("RescaleType"))
    if (scaling := _number(header, "DoseGridScaling")) is not None:  # PS3.3, C.8.8.3
        return Linear(scaling, 0.0), ""
    return None, ""


def _number(holder: Any, name: str) -> float | None:
    value = holder.get(name)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise Unusable(f"its {name} is {value!r}, which is not a number") from error
    if not math.isfinite(number):
        raise Unusable(f"its {name} is {number:g}")
    return number


def _unit(value: Any) -> str:
    """Return the unit in capitals; US, the standard's word for unspecified, becomes ""."""
    unit = str(value or "").strip().upper()
    return "" if unit == "US" else unit


def of_one_kind(several: list[Modality], what: str) -> None:
    """Refuse slices whose values cannot be compared.

    Args:
        several: One transform a slice.
        what: The word for one of them in messages: slice or frame.
    Raises:
        Unusable: Their units differ, or only some state how stored values are rescaled.
    """
    # Hounsfield units beside raw counts in one volume would be meaningless.
    if len(units := sorted({m.unit for m in several if m.unit})) > 1:
        raise Unusable(f"its {what}s have values of different units: {', '.join(units)}")
    # Slope 1 and intercept 0 are the same as none: some series state them in some files only.
    plain = sum(m.transform is None for m in several)
    if 0 < plain < len(several) and any(
        m.transform not in (None, Linear(1, 0)) for m in several
    ):  # fmt: skip
        raise Unusable(
            f"{plain} of its {len(several)} {what}s do not state how their stored values are "
            "rescaled, and others do: their values cannot be compared"
        )
