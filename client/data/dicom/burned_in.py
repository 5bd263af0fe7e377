"""Whether names or dates are painted into pixels, as DICOM files say (PS3.3, C.7.6.1.1.5)."""

from collections.abc import Sequence
from typing import Any, Literal

BurnedIn = Literal["yes", "no", "unknown"]

OFTEN_BURNED_IN = (
    "1.2.840.10008.5.1.4.1.1.7",  # secondary captures
    "1.2.840.10008.5.1.4.1.1.3",  # ultrasound of several frames
    "1.2.840.10008.5.1.4.1.1.6",  # ultrasound
    "1.2.840.10008.5.1.4.1.1.77.1.1",  # endoscopy and the like, in visible light
)
"""SOP classes, and what begins with them and a dot (PS3.4, B.5)."""
MODALITIES = frozenset({"US", "IVUS", "ES", "XC", "SC", "OT", "DOC"})
"""Ultrasound, endoscopes, cameras, screens and scanned documents (PS3.3, C.7.3.1.1.1)."""
CONVERTED = frozenset({"DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"})
"""ConversionType: from video, film, a screen or paper (PS3.3, C.8.6.1)."""


def burned_in(headers: Sequence[Any]) -> BurnedIn:
    """The worst that any file of a record says."""
    said = [str(h.get("BurnedInAnnotation", "") or "").strip().upper() for h in headers]
    if "YES" in said:
        return "yes"
    for header, word in zip(headers, said, strict=True):
        kind = str(header.get("SOPClassUID", ""))
        if word != "NO" and (
            str(header.get("Modality", "")) in MODALITIES
            or str(header.get("ConversionType", "")) in CONVERTED
            or "SCREEN" in str(header.get("ImageType", "")).upper()
            or any(kind == one or kind.startswith(f"{one}.") for one in OFTEN_BURNED_IN)
        ):
            return "unknown"
    return "no"
