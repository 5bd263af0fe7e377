"""Decodes the compressed pixels of DICOM files in a separate process.

JPEG, JPEG-LS and JPEG 2000 are decoded by libraries in C and C++, which a damaged file can abort.
Then this process ends, and with it one record, but not the site's guard. It is run as a script, so
that it loads neither torch nor the rest of this package.

The client limits the processor time of a request, not the time by the clock: a busy machine decodes
later, but decodes the same files. The kernel enforces the limit (ITIMER_PROF), so that it also
holds inside a library, and after the client has gone.

A request is the length of a JSON object and that object. An answer is the same, then the pixels in
C order. Lengths are 8 bytes, big-endian.
"""

import json
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import IO, Any

MIN_MEMORY = 2**30
"""Bytes by which the process may always grow, however small the limit of a record is."""
COPIES = 3
"""Multiple of a record's limit by which it may grow: file, pixels, and pixels on their way."""
LENGTH = struct.Struct(">Q")
EXTENDED = "1.2.840.10008.1.2.4.51"
"""Transfer syntax of JPEG with 8 or 12 bits."""
MEGAPIXEL = 1_000_000


def main(decode: Callable[[str, float], Any] | None = None) -> None:
    """Answer requests until the client closes its end.

    Args:
        decode: (path, seconds a megapixel) -> pixels; the tests replace the libraries with it.
    """
    import warnings

    import numpy as np

    warnings.simplefilter("ignore")
    decode = decode or pixels_of
    with open("/proc/self/statm", encoding="ascii") as file:
        # The limit counts from the memory that the libraries have mapped by now.
        begun = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    # A core dump would write private pixels to the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a library that prints would corrupt an answer
    while len(length := asked.read(LENGTH.size)) == LENGTH.size:
        request = json.loads(asked.read(LENGTH.unpack(length)[0]))
        memory = max(MIN_MEMORY, COPIES * request["max_bytes"])
        resource.setrlimit(resource.RLIMIT_AS, (_at_most(begun + memory, hard), hard))
        pixels = np.zeros(0, np.uint8)
        answer: dict[str, Any]
        try:
            pixels = np.ascontiguousarray(decode(request["path"], request["seconds"]))
            answer = {"shape": pixels.shape, "dtype": pixels.dtype.str}
        except MemoryError:
            answer = {"error": f"decoding wants more than {memory >> 20} MiB: see data.max_mib"}
        except Exception as error:  # whatever the decoders raise
            answer = {"error": f"{type(error).__name__}: {error}"}
        allow(0)
        _write(answers, json.dumps(answer).encode())
        answers.write(pixels.data if pixels.size else b"")
        answers.flush()


def _at_most(size: int, hard: int) -> int:
    return size if hard == resource.RLIM_INFINITY else min(size, hard)


def allow(seconds: float) -> None:
    """Set the processor time after which the kernel ends this process; 0 removes the limit.

    Args:
        seconds: Processor time from now on.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)


def allowance(pixels: int, seconds: float) -> float:
    """Return the seconds of processor time for that many pixels; fewer count as a megapixel.

    Args:
        pixels: Number of pixels of all frames.
        seconds: Processor time of a megapixel.
    """
    return seconds * max(1.0, pixels / MEGAPIXEL)


def pixels_of(path: str, seconds: float) -> Any:
    """Decode the pixels of a file, as pydicom's `pixel_array`.

    Args:
        path: The file.
        seconds: Processor time for each megapixel of all frames together.
    """
    import pydicom.pixels  # noqa: F401  imported before the time is counted
    from pydicom import dcmread

    # The header may be hostile, too; its pixels are not counted yet.
    allow(allowance(0, seconds))
    header = dcmread(path)
    frames = int(header.get("NumberOfFrames") or 1)
    allow(allowance(int(header.Rows) * int(header.Columns) * frames, seconds))
    if header.file_meta.TransferSyntaxUID == EXTENDED and int(header.BitsStored) > 8:
        return _twelve_bits(path, header, frames)
    # client.data.dicom.bits extracts the pixel's bits, for all files in the same way.
    header.pixel_array_options(correct_unused_bits=False)
    if int(header.get("HighBit") or 0) >= int(header.BitsStored):
        # GDCM returns the lowest bits of a word, though others are the stored ones.
        header.BitsStored = header.BitsAllocated
    return header.pixel_array


def _twelve_bits(path: str, header: Any, frames: int) -> Any:
    """Decode JPEG of 12 bits with GDCM directly: it can, but pydicom does not ask it."""
    import gdcm
    import numpy as np

    if int(header.SamplesPerPixel) != 1 or int(header.BitsAllocated) != 16:
        raise ValueError("JPEG Extended of 12 bits must be grey, in words of 16 bits")
    reader = gdcm.ImageReader()
    reader.SetFileName(path)
    if not reader.Read():
        raise ValueError("GDCM does not read it")
    # SWIG hands bytes over as a str with surrogates.
    stored = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    kind = np.int16 if int(header.PixelRepresentation) else np.uint16
    shape = (int(header.Rows), int(header.Columns))
    return np.frombuffer(stored, kind).reshape(shape if frames == 1 else (frames, *shape))


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(LENGTH.pack(len(data)) + data)


if __name__ == "__main__":
    main()
