"""The client of `client.data.dicom.decoding.decoder`: it starts the process and survives it."""

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data.dicom.decoding.decoder import LENGTH
from client.data.errors import Unusable
from client.data.sources import DECODE_SECONDS

MAX_IDLE_SECONDS = 600.0
"""Seconds without any computing after which a decoding process is given up: its disk or network is
gone. Even a busy machine gives every process some time within that."""
POLL_SECONDS = 1.0
"""Seconds between two looks at its processor time."""
EXIT_SECONDS = 5.0
"""Seconds in which a process has to end after it has closed its pipe."""
CHUNK = 2**20
SCRIPT = Path(__file__).with_name("decoder.py")


class Decoder:
    """A decoding process, started when it is needed and again after it has died."""

    def __init__(self, script: Path = SCRIPT) -> None:
        self._script = script
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def decode(
        self, path: Path, max_bytes: int, seconds: float = DECODE_SECONDS
    ) -> npt.NDArray[Any]:
        """Decode the pixels of a DICOM file, as pydicom's `pixel_array`.

        Args:
            path: The file.
            max_bytes: Maximum bytes of the answer; a longer one is not read.
            seconds: Processor time for each million pixels; fewer count as a million.
        Raises:
            Unusable: No installed decoder reads it, or the process died, computed for too long, or
                stopped computing.
        """
        # One request at a time: answers carry no number.
        with self._lock:
            try:
                answer = self._ask(path, max_bytes, seconds)
            except (OSError, EOFError, ValueError) as error:
                raise Unusable(_reason(error, self._ended(error), seconds)) from error
        if isinstance(answer, str):
            raise Unusable(f"its pixels cannot be decoded ({answer})")
        return answer

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ended(self, error: Exception) -> int | None:
        """Return the `returncode` of a process that ended; None if it has to be killed here."""
        process, code = self._process, None
        if process is not None and isinstance(error, (EOFError, BrokenPipeError)):
            with suppress(
                subprocess.TimeoutExpired
            ):  # the pipe closes before the process has ended
                code = process.wait(EXIT_SECONDS)
        self.close()
        return code

    def _ask(self, path: Path, max_bytes: int, seconds: float) -> npt.NDArray[Any] | str:
        """Send a request and read its answer: pixels, or the text of an error."""
        process = self._process or self._started()
        self._process = process
        assert process.stdin is not None
        asked = {"path": str(path.absolute()), "seconds": seconds, "max_bytes": max_bytes}
        request = json.dumps(asked).encode()
        process.stdin.write(LENGTH.pack(len(request)) + request)
        process.stdin.flush()
        size = LENGTH.unpack(_exactly(process, LENGTH.size))[0]
        answer = json.loads(_exactly(process, min(size, CHUNK)))
        if "error" in answer:
            return str(answer["error"])
        dtype, shape = np.dtype(answer["dtype"]), tuple(answer["shape"])
        count = dtype.itemsize * int(np.prod(shape, dtype=object))
        # The process has parsed a hostile file and is not trusted.
        if dtype.kind not in "iuf" or count > max_bytes:
            raise ValueError(f"more than {max_bytes >> 20} MiB came out of it")
        return np.frombuffer(_exactly(process, count), dtype).reshape(shape)

    def _started(self) -> "subprocess.Popen[bytes]":
        """Start the process without any environment variable that could load other code."""
        return subprocess.Popen(
            [sys.executable, "-I", str(self._script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": os.defpath},
            bufsize=0,
            # Ctrl-C in a terminal must not abort it: it ends when its input is closed.
            start_new_session=True,
        )


@lru_cache(maxsize=1)
def decoder() -> Decoder:
    """Return the one decoder of this process."""
    return Decoder()


def _exactly(process: "subprocess.Popen[bytes]", count: int) -> bytearray:
    """Read that many bytes of the process's output.

    Raises:
        EOFError: It ended earlier.
        TimeoutError: It computed nothing for `MAX_IDLE_SECONDS` seconds.
    """
    assert process.stdout is not None
    data, done = bytearray(count), 0
    view = memoryview(data)
    computed, since = _computed(process.pid), time.monotonic()
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while done < count:
            if not ready.select(min(POLL_SECONDS, MAX_IDLE_SECONDS)):
                # Processor time, not the clock: a busy machine must not make a record invalid.
                now = _computed(process.pid)
                if now != computed:
                    computed, since = now, time.monotonic()
                elif time.monotonic() - since > MAX_IDLE_SECONDS:
                    raise TimeoutError
                continue
            got = os.readv(process.stdout.fileno(), [view[done : done + CHUNK]])
            if not got:
                raise EOFError
            done += got
    return data


def _computed(pid: int) -> int:
    """Return the clock ticks that a process has computed, in user and system mode (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return int(fields[11]) + int(fields[12])


def _reason(error: Exception, code: int | None, seconds: float) -> str:
    """Return the reason for a failure, for the site."""
    if isinstance(error, TimeoutError):
        return (
            f"its pixels cannot be decoded: the decoder computed nothing for {MAX_IDLE_SECONDS:g} s"
        )
    if code == -signal.SIGPROF:
        return (
            f"decoding its pixels takes more than {seconds:g} s of processor time for each million "
            "of them: raise data.decode_seconds if the file is right"
        )
    if isinstance(error, (EOFError, BrokenPipeError)):
        return "its pixels cannot be decoded: the decoder crashed on it"
    return f"its pixels cannot be decoded: {error}"
