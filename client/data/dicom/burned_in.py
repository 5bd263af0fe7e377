"""Burned-in annotation: names or dates painted into pixels, as DICOM files state it (PS3.3,
C.7.6.1.1.5).

Software cannot see text in pixels reliably, so that the header is all there is; where it is silent,
the kind of image decides whether a person should look.
"""

from collections.abc import Sequence
from typing import Any, Literal

BurnedIn = Literal["yes", "no", "unknown"]

OFTEN_BURNED_IN = (
    "1.2.840.10008.5.1.4.1.1.7",  # secondary captures
    "1.2.840.10008.5.1.4.1.1.3",  # ultrasound of several frames
    "1.2.840.10008.5.1.4.1.1.6",  # ultrasound
    "1.2.840.10008.5.1.4.1.1.77.1.1",  # endoscopy and the like, in visible light
)
"""SOP classes with frequent annotation, and those whose UIDs continue theirs after a dot (PS3.4,
B.5)."""
MODALITIES = frozenset({"US", "IVUS", "ES", "XC", "SC", "OT", "DOC"})
"""Modalities with frequent annotation: ultrasound, endoscopes, cameras, screens and scanned
documents (PS3.3, C.7.3.1.1.1)."""
CONVERTED = frozenset({"DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"})
"""Values of ConversionType for video, film, a screen or paper (PS3.3, C.8.6.1)."""


def burned_in(headers: Sequence[Any]) -> BurnedIn:
    """Return the worst statement of any file of a record.

    Args:
        headers: One header a file.
    Returns:
        yes if a file states it; unknown if a file of a kind with frequent annotation is silent;
            else no.
    """
    stated = [str(h.get("BurnedInAnnotation", "") or "").strip().upper() for h in headers]
    # One annotated file is enough: a volume is trained on as a whole.
    if "YES" in stated:
        return "yes"
    for header, word in zip(headers, stated, strict=True):
        kind = str(header.get("SOPClassUID", ""))
        # BurnedInAnnotation is optional (type 3), and most devices leave it out.
        if word != "NO" and (
            str(header.get("Modality", "")) in MODALITIES
            or str(header.get("ConversionType", "")) in CONVERTED
            or "SCREEN" in str(header.get("ImageType", "")).upper()
            or any(kind == one or kind.startswith(f"{one}.") for one in OFTEN_BURNED_IN)
        ):
            return "unknown"
    return "no"
