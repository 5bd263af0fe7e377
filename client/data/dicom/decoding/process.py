"""The other end of `client.data.dicom.decoding.decoder`: asks it, and outlives it."""

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

STUCK = 600.0
"""Seconds in which a decoding process computes nothing at all before it is given up: its disk or
its network has gone. A machine that is busy gives every process more than that."""
LOOK = 1.0
"""Seconds between two looks at what it computed."""
ENDING = 5.0
"""Seconds that a process may take to end after it has closed its pipe."""
CHUNK = 2**20
SCRIPT = Path(__file__).with_name("decoder.py")


class Decoder:
    """One decoding process, started when it is needed and again after it has died."""

    def __init__(self, script: Path = SCRIPT) -> None:
        self._script = script
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def decode(self, path: Path, largest: int, seconds: float = DECODE_SECONDS) -> npt.NDArray[Any]:
        """The decoded pixels of a DICOM file, as pydicom's `pixel_array`.

        Args:
            largest: Bytes of an answer; more is not read.
            seconds: Of processor time for each million pixels; for fewer as for a million.
        Raises:
            Unusable: No installed decoder reads it, or one died, computed for too long, or stood
                still.
        """
        with self._lock:
            try:
                answer = self._ask(path, largest, seconds)
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
        """What ended the process, as `returncode` has it; None if it is we who end it."""
        process, code = self._process, None
        if process is not None and isinstance(error, (EOFError, BrokenPipeError)):
            with suppress(subprocess.TimeoutExpired):  # its pipe closes a moment before it is gone
                code = process.wait(ENDING)
        self.close()
        return code

    def _ask(self, path: Path, largest: int, seconds: float) -> npt.NDArray[Any] | str:
        process = self._process or self._started()
        self._process = process
        assert process.stdin is not None
        asked = {"path": str(path.absolute()), "seconds": seconds, "largest": largest}
        request = json.dumps(asked).encode()
        process.stdin.write(LENGTH.pack(len(request)) + request)
        process.stdin.flush()
        size = LENGTH.unpack(_exactly(process, LENGTH.size))[0]
        answer = json.loads(_exactly(process, min(size, CHUNK)))
        if "error" in answer:
            return str(answer["error"])
        dtype, shape = np.dtype(answer["dtype"]), tuple(answer["shape"])
        count = dtype.itemsize * int(np.prod(shape, dtype=object))
        if dtype.kind not in "iuf" or count > largest:
            raise ValueError(f"more than {largest >> 20} MiB came out of it")
        return np.frombuffer(_exactly(process, count), dtype).reshape(shape)

    def _started(self) -> "subprocess.Popen[bytes]":
        """With nothing of the environment that could load other code than what is installed."""
        return subprocess.Popen(
            [sys.executable, "-I", str(self._script)],
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


def _exactly(process: "subprocess.Popen[bytes]", count: int) -> bytearray:
    """So many bytes of what the process writes.

    Raises:
        EOFError: It ended before.
        TimeoutError: It computed nothing for `STUCK` seconds.
    """
    assert process.stdout is not None
    data, done = bytearray(count), 0
    view = memoryview(data)
    computed, since = _computed(process.pid), time.monotonic()
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while done < count:
            if not ready.select(min(LOOK, STUCK)):
                now = _computed(process.pid)
                if now != computed:
                    computed, since = now, time.monotonic()
                elif time.monotonic() - since > STUCK:
                    raise TimeoutError
                continue
            got = os.readv(process.stdout.fileno(), [view[done : done + CHUNK]])
            if not got:
                raise EOFError
            done += got
    return data


def _computed(pid: int) -> int:
    """Ticks of processor time that a process has had, in user and in system mode (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return int(fields[11]) + int(fields[12])


def _reason(error: Exception, code: int | None, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"its pixels cannot be decoded: the decoder stood still for {STUCK:g} s"
    if code == -signal.SIGPROF:
        return (
            f"decoding its pixels takes more than {seconds:g} s of processor time for each million "
            "of them: raise data.decode_seconds if that is as it should be"
        )
    if isinstance(error, (EOFError, BrokenPipeError)):
        return "its pixels cannot be decoded: the decoder crashed on it"
    return f"its pixels cannot be decoded: {error}"
