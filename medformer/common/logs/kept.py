"""The log file of a process that is supervised: its output line by line, rotated by size."""

import logging
import threading
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from medformer.common.logs.line import MAX_LINE, told_by

MAX_BYTES = 10 * 2**20
"""Size at which a log file gets a new name, NAME.log.1, and a new file begins."""
KEPT = 5
"""Number of older files; the oldest is deleted."""


class KeptLog:
    """Writes what a process prints to its log file until its output ends.

    Args:
        file: The log file; its folder is made if it is missing. Its name without `.log` is that of
            the process.
        max_bytes: Size at which a new file begins.
        kept: Number of older files.
    """

    def __init__(self, file: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._component = file.stem
        # Errors of a full disk are not raised: a log must not end what it tells of.
        self._handler = RotatingFileHandler(
            file, maxBytes=max_bytes, backupCount=kept, encoding="utf-8", errors="replace"
        )

    def follow(self, output: IO[bytes]) -> threading.Thread:
        """Start to write what comes out of a pipe, and return the thread that does.

        Args:
            output: The reading end; closed at its end.
        """
        thread = threading.Thread(target=self._write_all, args=[output], daemon=True)
        thread.start()
        return thread

    def write(self, text: str) -> None:
        """Write one line.

        Args:
            text: As the process has printed it.
        """
        if text.strip():
            told = told_by(self._component, text, time.time())
            self._handler.emit(logging.makeLogRecord({"msg": told}))

    def close(self) -> None:
        """Release the file."""
        self._handler.close()

    def _write_all(self, output: IO[bytes]) -> None:
        # Bounded: a process that never ends a line cannot fill the memory.
        with output:
            for text in iter(lambda: output.readline(MAX_LINE), b""):
                self.write(text.decode(errors="replace"))
