"""A log line: time in UTC, level, component, message, without control characters.

    2026-03-01T12:30:05Z WARNING guard: site north refuses: policy: ...

A traceback is part of its line, with `\\n` for each end of a line.
"""

import logging
import re
import sys
import time

from medformer.errors import printable

MAX_LINE = 16_384
"""Characters of a line; the middle of a longer one is left out."""
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LEVEL = re.compile(rf"^({'|'.join(LEVELS)})\s*:?\s+")
_OURS = re.compile(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ (?:{'|'.join(LEVELS)}) ([a-z-]+): ")


class Format(logging.Formatter):
    """Formats records of Python's logging as such lines.

    Args:
        component: Name of the process, for example `guard`.
    """

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, its traceback included.

        Args:
            record: The record.
        """
        return line(record.levelname, self._component, super().format(record), record.created)


def use(component: str, level: int = logging.INFO) -> None:
    """Write this process's log to stderr in this format.

    Args:
        component: Name of the process.
        level: Lowest level that is written.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Format(component))
    logging.basicConfig(level=level, handlers=[handler])


def line(level: str, component: str, text: str, seconds: float) -> str:
    """Return a log line, without an end of line.

    Args:
        level: A name of `LEVELS`.
        component: Name of the process.
        text: Message; control characters in it are escaped.
        seconds: Time in seconds since 1970.

    >>> line("INFO", "guard", "two\\nlines", 0)
    '1970-01-01T00:00:00Z INFO guard: two\\\\nlines'
    """
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    flat = printable(text)
    if len(flat) > MAX_LINE:
        flat = f"{flat[: MAX_LINE * 3 // 4]} ... {flat[-MAX_LINE // 5 :]}"
    return f"{when} {level} {component}: {flat}"


def told_by(component: str, text: str, seconds: float) -> str:
    """Return a line that a process has printed, in this format.

    A process cannot write lines in the name of another one: only its own name is taken over.

    Args:
        component: Name of the process.
        text: Its line, perhaps of a library that writes in a format of its own, in colours.
        seconds: Time at which it was read.

    >>> told_by("supernode", "\\x1b[92mINFO \\x1b[0m:      Starting", 0)
    '1970-01-01T00:00:00Z INFO supernode: Starting'
    """
    plain = _COLOUR.sub("", text).rstrip()
    found = _OURS.match(plain)
    if found and found[1] == component:
        return printable(plain)[: 2 * MAX_LINE]
    level = _LEVEL.match(plain)
    return line(level[1] if level else "INFO", component, plain[level.end() :] if level else plain,
                seconds)  # fmt: skip
