"""Decodes the compressed pixels of DICOM files in a process of its own.

JPEG, JPEG-LS and JPEG 2000 are decoded by libraries in C and C++, which a damaged file can abort:
then this process ends, with one record, and not the site's guard. Run as a script, so that it loads
neither torch nor the rest of this package.

A request is the length of a path and the path; an answer is the length of a JSON object, that
object, and the pixels in C order. Lengths are 8 bytes, big-endian.
"""

import json
import resource
import struct
import sys
from typing import IO, Any

MOST_MEMORY = 2**30
"""Bytes by which the process may grow."""
LENGTH = struct.Struct(">Q")


def main() -> None:
    """Answer until nobody asks any more."""
    import warnings

    import numpy as np
    from pydicom import dcmread

    warnings.simplefilter("ignore")
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MOST_MEMORY, now + MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    while len(length := asked.read(LENGTH.size)) == LENGTH.size:
        path = asked.read(LENGTH.unpack(length)[0]).decode(errors="surrogateescape")
        pixels = np.zeros(0, np.uint8)
        answer: dict[str, Any]
        try:
            pixels = np.ascontiguousarray(dcmread(path).pixel_array)
            answer = {"shape": pixels.shape, "dtype": pixels.dtype.str}
        except MemoryError:
            answer = {"error": f"decoding wants more than {MOST_MEMORY >> 20} MiB"}
        except Exception as error:  # whatever the decoders raise
            answer = {"error": f"{type(error).__name__}: {error}"}
        _write(answers, json.dumps(answer).encode())
        answers.write(pixels.data if pixels.size else b"")
        answers.flush()


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(LENGTH.pack(len(data)) + data)


if __name__ == "__main__":
    main()
