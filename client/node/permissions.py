"""Who can reach what is the site's own: checked before anything starts, and refused in words."""

import os
import stat
import sys
from pathlib import Path

from client.ledger.chain import FILE
from medformer.errors import MedFormerError
from server.protocol import PACKAGES

LEDGER_FILES = (FILE, f"{FILE}-wal", f"{FILE}-shm")
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class ExposedError(MedFormerError):
    """Others can read or change what is the site's own; says what, and what to do."""


def only_ours(path: Path) -> None:
    """See that nobody but this user and root can change a file or folder, or what leads to it.

    Raises:
        ExposedError: Names what others can write.
    """
    for place in (path.resolve(), *path.resolve().parents):
        _ours(place)


def installed_code(package: Path) -> None:
    """See that our code is that of the environment which runs, and that others cannot change it.

    Args:
        package: Folder of one of our packages; the others lie beside it.
    Raises:
        ExposedError: It lies elsewhere, or others can write a file of it.
    """
    if not package.resolve().is_relative_to(Path(sys.prefix).resolve()):
        raise ExposedError(
            f"{package}: the guard runs installed code only, and this lies outside of "
            f"{sys.prefix}: pip install fedmedformer into an environment of the guard's own"
        )
    root = package.resolve().parent
    for place in (root, *root.parents):
        _ours(place)
    for name in PACKAGES:
        for place in (root / name, *sorted((root / name).rglob("*"))):
            if place.exists():
                _ours(place)


def private_folder(folder: Path) -> None:
    """See that a folder is this user's, and that others cannot enter it.

    Raises:
        ExposedError: They can, or it is no folder.
    """
    if not folder.is_dir():
        raise ExposedError(f"{folder}: is no folder")
    found = folder.stat()
    if found.st_uid != os.getuid():
        raise ExposedError(f"{folder}: belongs to another user: run this as its owner, or chown it")
    if found.st_mode & OTHERS:
        raise ExposedError(f"{folder}: others can enter it (chmod 700)")


def private_state(state: Path, anchor: Path | None = None) -> None:
    """See that nobody else can enter a state folder, or read ledger and anchor.

    What is not there yet is in order: it is made as it has to be.

    Raises:
        ExposedError: Names what others can reach.
    """
    if state.exists():
        private_folder(state)
        only_ours(state)
    for file in (*(state / name for name in LEDGER_FILES), *([anchor] if anchor else [])):
        if file.exists() and file.stat().st_mode & OTHERS:
            raise ExposedError(f"{file}: others can read it (chmod 600)")


def private_key(file: Path) -> None:
    """See that nobody but its owner can read a key.

    Raises:
        ExposedError: Others can, or there is none.
    """
    if not file.is_file():
        raise ExposedError(f"{file}: is missing: fedmedformer site init makes it")
    if file.stat().st_mode & OTHERS:
        raise ExposedError(f"{file}: others can read it (chmod 600)")


def _ours(place: Path) -> None:
    found = place.stat()
    sticky_root = found.st_uid == 0 and found.st_mode & stat.S_ISVTX
    if found.st_uid not in (0, os.getuid()):
        raise ExposedError(f"{place}: belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky_root:
        raise ExposedError(f"{place}: others can write there (chmod go-w)")
