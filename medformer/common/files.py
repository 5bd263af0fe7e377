"""Writes files whole or not at all, and private keys that only their owner can read."""

import os
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Replace a file as a whole or not at all; the data is on the disk when this returns.

    Args:
        path: The file; its folder is made if it is missing.
        data: The new content.
        mode: Permissions, before the umask; 0o600 for what only this user may read.
    Raises:
        OSError: It cannot be written; the old content stays.
    """
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    # A process that died may have left one, perhaps with other permissions.
    partial.unlink(missing_ok=True)
    try:
        _write_then_rename(partial, path, data, mode)
    except BaseException:  # Ctrl-C included: leave no half-written file on a full disk
        with suppress(OSError):
            partial.unlink()
        raise


def _write_then_rename(partial: Path, path: Path, data: bytes, mode: int) -> None:
    """Write a partial file to the disk, then give it its name."""
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name has to reach the disk, too
    finally:
        os.close(folder)


def write_secret(path: Path, data: bytes) -> None:
    """Write a private key that only this user can read, in a folder that only this user can enter.

    Args:
        path: A file that does not exist yet.
        data: The key.
    Raises:
        FileExistsError: The file exists; it is not replaced.
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Created with its permissions: there is no moment at which others could open it.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def is_secret(path: Path) -> bool:
    """Return whether a file exists and only its owner can read it."""
    return path.is_file() and not path.stat().st_mode & 0o077
