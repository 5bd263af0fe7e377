"""A fingerprint of a source's files by name, size and time, so that a change is noticed cheaply.

No file is opened: hashing gigabytes before every round would take longer than the round.
"""

import hashlib
import os
from pathlib import Path

from client.data import medmnist
from client.data.sources import Extension, Listed, MedMnist, Npz, Source


def stamp(source: Source) -> str:
    """Return a text that changes whenever a file of the source appears, disappears or is written.

    It never raises: a file that cannot be examined counts as absent.

    Args:
        source: The source as declared in site.yaml.
    """
    if isinstance(source, Listed):
        places = _below(source.path)
    elif isinstance(source, Extension):
        path = source.path
        places = [path] if path is None or not path.is_dir() else _below(path)
    elif isinstance(source, Npz):
        places = [source.path, source.indices]
    elif isinstance(source, MedMnist):
        places = [medmnist.present(source.dataset, source.size, source.root), source.indices]
    else:
        return ""  # phantoms are computed and have no files
    digest = hashlib.sha256()
    # Each file with its own state: an exchange of two names must change the digest.
    for place in places:
        if place is not None:
            digest.update(repr((str(place), _state_of(place))).encode())
    return digest.hexdigest()


def _below(folder: Path) -> list[Path | None]:
    """Return all files below a folder, also behind links; each folder once, since links may form
    circles.
    """
    found: list[Path | None] = []
    seen = {os.path.realpath(folder)}
    for top, folders, files in os.walk(folder, followlinks=True):
        real = {name: os.path.realpath(os.path.join(top, name)) for name in sorted(folders)}
        # os.walk reads this list again, which is how it is kept from entering a circle.
        folders[:] = [name for name in real if real[name] not in seen]
        seen.update(real.values())
        found += [Path(top, name) for name in sorted(files)]
    return found


def _state_of(place: Path) -> tuple[int, ...]:
    """Return size, times and inode of a file."""
    try:
        seen = place.stat()
    except OSError:
        return ()
    # A copy may keep the old time of writing; its time of change (ctime) cannot be set.
    return seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino
