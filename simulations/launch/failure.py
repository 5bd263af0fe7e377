"""Finds the reason why Flower's simulation ended, which only Flower's database holds."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from medformer.errors import one_line

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
RAISED = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Timeout|Exit)\b: ?(.*)")
ENTITY = re.compile(r"^(?:ERROR\s*:\s*)(.*)")
REMEDIES = (
    ("AF_UNIX", "Set TMPDIR to a folder with a short path, such as /tmp"),
    ("No space left", "Free the disk, or set TMPDIR to a folder on another one"),
    ("Permission denied", "See who owns that folder, or set TMPDIR to one of your own"),
    (r"[Mm]emory|OOM|shm", "Give it more memory, or train fewer sites at once with --actors 1"),
    (
        r"[Tt]imed? ?out|Timeout|did not start|failed to start|Failed to start|GCS",
        "This machine may be too busy: try again when it is not, or with --actors 1",
    ),
    (r"No module named|ImportError|ModuleNotFound", "Install fedmedformer again"),
)
"""Pairs of a pattern in a reason and what to do about it."""


def reason(database: Path) -> str:
    """Return the error that the simulation's log reports first, or "" if it reports none.

    Args:
        database: Flower's state.db, which may be in use.
    """
    try:
        uri = f"{database.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=5)) as db:
            rows = db.execute("SELECT log FROM task_logs ORDER BY timestamp").fetchall()
    except sqlite3.Error:
        return ""
    lines = COLOUR.sub("", "".join(str(row[0]) for row in rows)).splitlines()
    raised = [line for line in lines if RAISED.match(line)]
    # The last one is often a consequence: what was raised first is the cause.
    said = raised[:1] or [m[1] for line in lines if (m := ENTITY.match(line)) and m[1].strip()][:1]
    return one_line(said[0], 500) if said else ""


def remedy(why: str) -> str:
    """Return what a user can do about a reason."""
    for pattern, what in REMEDIES:
        if re.search(pattern, why):
            return what
    return "Try again; if it stays so, the log says more"
