"""The bits of a sample in a compressed code stream, which may exceed what the header states."""

from typing import Any

PLAIN = range(0xD0, 0xDA)
"""Second bytes of the JPEG markers without a length."""
SIZ = b"\xff\x4f\xff\x51"
"""First bytes of a JPEG 2000 code stream: T.800, A.4 and A.5.1."""


def precision(header: Any) -> int:
    """Return the bits of a sample in the first frame; 0 where its code stream does not state them.

    Args:
        header: The dataset of a file with compressed pixels.
    """
    from pydicom.encaps import get_frame

    frames = int(header.get("NumberOfFrames") or 1)
    try:
        stream = bytes(get_frame(header.PixelData, 0, number_of_frames=frames)[:4096])
    except Exception:  # decoding reports what is wrong with it
        return 0
    # The stream may be wrapped in a JP2 file, so that it begins further on.
    if (begins := stream.find(SIZ)) >= 0:
        place = begins + 42
        return (stream[place] & 0x7F) + 1 if place < len(stream) else 0
    return _of_jpeg(stream)


def _of_jpeg(stream: bytes) -> int:
    """Read the frame header of JPEG and JPEG-LS: T.81, B.2.2 and T.87, C.1.1."""
    place = 2
    while place + 4 < len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        # Start-of-frame markers; C4 and C8 between them have other meanings.
        if marker in (*range(0xC0, 0xC4), *range(0xC5, 0xC8), 0xF7):
            return stream[place + 4]
        # FF may be repeated as padding before a marker (T.81, B.1.1.2).
        if marker in PLAIN or marker == 0xFF:
            place += 2 if marker in PLAIN else 1
            continue
        place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    return 0
