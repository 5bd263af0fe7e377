"""Checks, before anything starts, that other users cannot reach a site's private files."""

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from client.ledger.chain import FILE
from medformer.errors import MedFormerError
from medformer.extensions.code import place_of
from server.protocol import PACKAGES

LEDGER_FILES = (FILE, f"{FILE}-wal", f"{FILE}-shm")
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class ExposedError(MedFormerError):
    """Other users can read or change a private file; says which one, and what to do."""


def only_ours(path: Path) -> None:
    """Check that only this user and root can change a path, or any folder above it.

    Args:
        path: A file or folder.
    Raises:
        ExposedError: Other users can write there; names the place.
    """
    # Who can write a folder can replace what is in it.
    for place in (path.resolve(), *path.resolve().parents):
        _ours(place)


def installed_code(package: Path, prefix: Path | None = None) -> None:
    """Check that our code belongs to the environment that runs, and that others cannot change it.

    Args:
        package: Folder of one of our packages; the others are beside it.
        prefix: Folder of the environment; that of this Python if left out.
    Raises:
        ExposedError: It is elsewhere, or other users can write a file of it.
    """
    # A checkout (an editable installation) changes whenever its owner edits a file.
    prefix = prefix or Path(sys.prefix)
    if not package.resolve().is_relative_to(prefix.resolve()):
        raise ExposedError(
            f"{package}: the guard runs installed code only, and this is outside of "
            f"{prefix}: pip install fedmedformer into an environment for the guard"
        )
    root = package.resolve().parent
    for place in (root, *root.parents):
        _ours(place)
    for name in PACKAGES:
        for place in (root / name, *sorted((root / name).rglob("*"))):
            if place.exists():
                _ours(place)


def installed_extensions(names: Iterable[str], prefix: Path | None = None) -> None:
    """Check that code from outside belongs to the environment that runs, and that others cannot
    change it.

    Args:
        names: `MODULE:NAME` of each extension. None of them is imported.
        prefix: Folder of the environment; that of this Python if left out.
    Raises:
        ConfigError: One is not installed.
        ExposedError: One is elsewhere, or other users can write a file of it.
    """
    prefix = prefix or Path(sys.prefix)
    for name in names:
        place = place_of(name).resolve()
        if not place.is_relative_to(prefix.resolve()):
            raise ExposedError(
                f"extension {name}: {place} is outside of {prefix}, and the guard runs installed "
                "code only: pip install its package, not editable, into the guard's environment"
            )
        for part in (place, *place.parents, *sorted(place.rglob("*"))):
            _ours(part)


def private_folder(folder: Path) -> None:
    """Check that a folder belongs to this user, and that others cannot enter it.

    Args:
        folder: The folder.
    Raises:
        ExposedError: Others can enter it, or it is not a folder of this user.
    """
    if not folder.is_dir():
        raise ExposedError(f"{folder}: is not a folder")
    found = folder.stat()
    if found.st_uid != os.getuid():
        raise ExposedError(f"{folder}: belongs to another user: run this as its owner, or chown it")
    if found.st_mode & OTHERS:
        raise ExposedError(f"{folder}: others can enter it (chmod 700)")


def private_state(state: Path, anchor: Path | None = None) -> None:
    """Check that no other user can enter a state folder, or read ledger and anchor.

    A file that is missing passes: it will be made with the right permissions.

    Args:
        state: The state folder.
        anchor: The ledger's anchor file, if the site has one.
    Raises:
        ExposedError: Other users can reach one of them; names it.
    """
    if state.exists():
        private_folder(state)
        only_ours(state)
    # SQLite keeps new rows in a companion file for a while: it is as private as the ledger.
    for file in (*(state / name for name in LEDGER_FILES), *([anchor] if anchor else [])):
        if file.exists() and file.stat().st_mode & OTHERS:
            raise ExposedError(f"{file}: others can read it (chmod 600)")


def private_key(file: Path) -> None:
    """Check that only its owner can read a key.

    Args:
        file: File of the private key.
    Raises:
        ExposedError: Others can read it, or it is missing.
    """
    if not file.is_file():
        raise ExposedError(f"{file}: is missing: fedmedformer site init makes it")
    if file.stat().st_mode & OTHERS:
        raise ExposedError(f"{file}: others can read it (chmod 600)")


def _ours(place: Path) -> None:
    """Check the owner and the write permissions of one file or folder."""
    found = place.stat()
    # In a folder like /tmp others can write, but cannot touch what belongs to somebody else.
    sticky_root = found.st_uid == 0 and found.st_mode & stat.S_ISVTX
    if found.st_uid not in (0, os.getuid()):
        raise ExposedError(f"{place}: belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky_root:
        raise ExposedError(f"{place}: others can write there (chmod go-w)")
