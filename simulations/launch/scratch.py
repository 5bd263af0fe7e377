"""Makes a folder with a short, plain path for one run, and deletes it when the run is over.

Ray makes Unix sockets below its temporary folder, whose names may have 107 bytes (unix(7)); Flower
puts the path of its database into a URL, and that of the bundle into PYTHONPATH. A batch system's
TMPDIR is too long for the first, and a folder with the name `what?` breaks the others.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from medformer.errors import MedFormerError

MAX_BYTES = 34
"""Bytes of such a folder: Ray adds up to 72, as in
`/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store`."""
PREFIX = "fmf-"
OWNER = "owner"
"""File with the process id of whoever made the folder."""
PLACES = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders to try if TMPDIR is not short and plain."""


class ScratchError(MedFormerError):
    """There is no place for a run's sockets."""


@contextmanager
def scratch(places: Sequence[str] = PLACES) -> Iterator[Path]:
    """Make a private folder, and delete it at the end, with those that killed runs have left.

    Args:
        places: Tried after TMPDIR, in this order.
    Raises:
        ScratchError: None of the places can hold one.
    """
    folder = _made((tempfile.gettempdir(), *places))
    try:
        (folder / OWNER).write_text(str(os.getpid()))
        _sweep(folder.parent)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def why_not(place: str) -> str:
    """Return why a folder cannot hold a run's sockets, or "" if it can.

    Args:
        place: Path of the folder.
    """
    size = len(os.fsencode(place)) + len(f"/{PREFIX}12345678")
    if size > MAX_BYTES:
        return (
            f"is {len(os.fsencode(place))} bytes long, and the AF_UNIX path length cannot exceed "
            "107 bytes"
        )
    if not re.fullmatch(r"[A-Za-z0-9/._+@-]+", place):
        return "has other characters than letters, digits and ._+@-"
    if not os.access(place, os.W_OK | os.X_OK):
        return "cannot be written"
    return ""


def _made(places: Sequence[str]) -> Path:
    tried = []
    for place in dict.fromkeys(places):
        if not (why := why_not(place)):
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        tried.append(f"{place} {why}")
    raise ScratchError(
        f"no folder is fit for the sockets of Ray: {'; '.join(tried)}. Set TMPDIR to a folder with "
        f"a plain path of at most {MAX_BYTES - 13} bytes that you can write"
    )


def _sweep(place: Path) -> None:
    """Delete the folders of this user's runs whose processes have ended."""
    for old in place.glob(f"{PREFIX}*"):
        try:
            if old.stat().st_uid == os.getuid() and not psutil.pid_exists(
                int((old / OWNER).read_text())
            ):
                shutil.rmtree(old, ignore_errors=True)
        except (OSError, ValueError):  # somebody else's, or being made just now
            continue
