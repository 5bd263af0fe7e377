"""The other end of `client.data.decoder`: asks it, and outlives it."""

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.decoder import LENGTH
from client.data.records import Unusable

SECONDS = 60.0
"""That one file may take."""
CHUNK = 2**20


class Decoder:
    """One decoding process, started when it is needed and again after it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def decode(self, path: Path, largest: int) -> npt.NDArray[Any]:
        """The decoded pixels of a DICOM file, as pydicom's `pixel_array`.

        Args:
            largest: Bytes of an answer; more is not read.
        Raises:
            Unusable: No decoder reads it, or one died or did not end.
        """
        with self._lock:
            try:
                answer = self._ask(path, largest)
            except (OSError, EOFError, ValueError) as error:
                self.close()
                raise Unusable(f"its pixels cannot be decoded: {_reason(error)}") from error
        if isinstance(answer, str):
            raise Unusable(f"its pixels cannot be decoded ({answer})")
        return answer

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, path: Path, largest: int) -> npt.NDArray[Any] | str:
        process = self._process or self._started()
        self._process = process
        assert process.stdin is not None
        name = os.fsencode(path.absolute())
        process.stdin.write(LENGTH.pack(len(name)) + name)
        process.stdin.flush()
        end = time.monotonic() + SECONDS
        size = LENGTH.unpack(_exactly(process, LENGTH.size, end))[0]
        answer = json.loads(_exactly(process, min(size, CHUNK), end))
        if "error" in answer:
            return str(answer["error"])
        dtype, shape = np.dtype(answer["dtype"]), tuple(answer["shape"])
        if dtype.kind not in "iuf" or dtype.itemsize * int(np.prod(shape, dtype=object)) > largest:
            raise ValueError(f"more than {largest >> 20} MiB came out of it")
        count = dtype.itemsize * int(np.prod(shape, dtype=object))
        return np.frombuffer(_exactly(process, count, end), dtype).reshape(shape)

    def _started(self) -> "subprocess.Popen[bytes]":
        """With nothing of the environment that could load other code than what is installed."""
        return subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("decoder.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": os.defpath},
            bufsize=0,
            start_new_session=True,
        )


@lru_cache(maxsize=1)
def decoder() -> Decoder:
    """The one of this process."""
    return Decoder()


def _exactly(process: "subprocess.Popen[bytes]", count: int, end: float) -> bytearray:
    assert process.stdout is not None
    data, done = bytearray(count), 0
    view = memoryview(data)
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while done < count:
            if not ready.select(max(0.0, end - time.monotonic())):
                raise TimeoutError
            got = os.readv(process.stdout.fileno(), [view[done : done + CHUNK]])
            if not got:
                raise EOFError
            done += got
    return data


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"the decoder took longer than {SECONDS:g} s"
    if isinstance(error, (EOFError, BrokenPipeError)):
        return "the decoder crashed on it"
    return str(error)
