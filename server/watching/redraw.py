"""`consortium status --watch`: shows the facts again and again."""

import shutil
import textwrap
import time
from collections.abc import Callable
from typing import TextIO

from server.watching.facts import Status
from server.watching.text import clock_time, line_of, page_of

HOME = "\x1b[H"
"""Control sequence that moves to the upper left corner."""
CLEAR_LINE, CLEAR_BELOW = "\x1b[K", "\x1b[J"


def watch(
    look: Callable[[], Status],
    out: TextIO,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show a consortium until Ctrl-C.

    A terminal is redrawn; anything else, such as a log, gets a line for each change.

    Args:
        look: Collects the facts.
        out: Where they go.
        seconds: Time between two looks.
        sleep: Waits that time.
    """
    shown, first = "", True
    while True:
        status = look()
        if out.isatty():
            text = "".join(f"{line}{CLEAR_LINE}\n" for line in fitted(page_of(status)))
            start = f"{HOME}{CLEAR_BELOW}" if first else HOME
            print(f"{start}{text}{CLEAR_BELOW}", end="", file=out, flush=True)
        elif (line := line_of(status)) != shown:
            print(f"{clock_time(status.at)}  {line}", file=out, flush=True)
            shown = line
        first = False
        sleep(seconds)


def fitted(page: str) -> list[str]:
    """Wrap a text so that it fits a terminal; says how many lines did not.

    Args:
        page: Lines of text.
    """
    size = shutil.get_terminal_size()
    lines = [part for line in page.splitlines() for part in _wrapped(line, size.columns - 1)]
    # One line is kept free for the cursor: a terminal that scrolls would be drawn twice.
    room = max(2, size.lines - 1)
    if len(lines) <= room:
        return lines
    return [*lines[: room - 1], f"({len(lines) - room + 1} more lines: make the window taller)"]


def _wrapped(line: str, width: int) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(line, max(20, width), subsequent_indent=indent) or [""]
