"""A hash of every record, so that a site sees what changed. FOR THE SITE'S OWN EYES.

The manifest lies in the state folder, mode 0600, and stays there. Nothing that is sent may be
derived from it. It is therefore not part of the ledger, because a server learns the hash of the
ledger's rows. A changed file does not start a new ledger: the budget that was spent on a cohort
stays spent.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from client.data.errors import DataError
from client.data.folder import reading as folder
from client.data.folder.splits import SPLITS
from client.data.folder.table import Entry, from_table
from client.data.load import rows_of, stored_arrays
from client.data.nifti import file as nifti_file
from client.data.outside import dataset
from client.data.sources import Extension, Folder, Listed, MedMnist, Npz, Phantoms
from client.site import Site
from medformer.common.files import replace_file

FILE = "manifest.json"
CHUNK = 2**20
"""Bytes of a file that are read at once."""


@dataclass(frozen=True)
class Changes:
    """Differences between a site's records now and at the last look."""

    records: int
    since: str | None
    """Time of the last look, UTC; None where no readable manifest exists."""
    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


def compare(site: Site, state: Path) -> Changes | None:
    """Compare the records with the manifest in the state folder, and write the new one.

    Args:
        site: The declaration of the site.
        state: The state folder.
    Returns:
        The changes, or None for phantoms, which have no files to compare.
    Raises:
        DataError: The records cannot be listed, or the manifest cannot be written.
    """
    if isinstance(site.data, Phantoms):
        return None
    now = hashes(site)
    since, before = _read(state / FILE)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"made": made, "records": now})
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Mode 0600: the names of files and their changes are private.
        replace_file(state / FILE, text.encode(), mode=0o600)
    except OSError as error:
        raise DataError(f"{state / FILE}: cannot be written ({error.strerror})") from error
    # Without a readable manifest every record would count as new.
    if since is None:
        return Changes(len(now), None)
    return Changes(
        records=len(now),
        since=since,
        new=tuple(name for name in now if name not in before),
        changed=tuple(name for name in now if before.get(name, now[name]) != now[name]),
        gone=tuple(name for name in before if name not in now),
    )


def hashes(site: Site) -> dict[str, str]:
    """Return for each record the SHA-256 of its content and of its label, patient and split.

    A record is named by its file, or by split and row; one that is listed twice gets a number.

    Args:
        site: The declaration of the site.
    Raises:
        DataError: The source cannot be listed.
    """
    pairs = _of_files(site) if isinstance(site.data, Listed) else _of_rows(site)
    found: dict[str, str] = {}
    for name, value in pairs:
        number, own = 1, name
        # A file that is listed twice is two records, whose rows may differ.
        while own in found:
            number += 1
            own = f"{name} ({number})"
        found[own] = value
    return found


def _of_files(site: Site) -> Iterator[tuple[str, str]]:
    """Yield name and hash of each record of a source that lists files."""
    source = site.data
    assert isinstance(source, Listed)
    if isinstance(source, Folder):
        entries = folder.listed(source, site.tasks)
    else:
        try:
            entries = from_table(source, sorted({task.labels for task in site.tasks}))
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
    masks = [task.labels for task in site.tasks if task.kind == "dense"]
    for entry in entries:
        own = [entry.file, *(entry.cells[key] for key in masks if entry.cells.get(key))]
        parts = [_said(entry), *(_content(source.path, name) for name in own)]
        yield entry.file, _joined(parts)


def _said(entry: Entry) -> str:
    """Return what the table states about a record."""
    return json.dumps([dict(entry.cells), entry.patient, entry.split, entry.spacing, entry.fault])


def _content(top: Path, name: str) -> str:
    """Return the hash of a file, of a series' files or of a pair; the error's name if
    unreadable."""
    try:
        parts = [_of_place(top, path) for path in nifti_file.files_of(top / name)]
    except (OSError, ValueError) as error:
        return type(error).__name__
    return parts[0] if len(parts) == 1 else _joined(parts)


def _of_place(top: Path, path: Path) -> str:
    """Return the hash of a file or folder; what lies outside of the records is not read."""
    # A link out of the folder is refused when records are read, and must not be followed here.
    if not path.resolve().is_relative_to(top.resolve()):
        return "outside"
    if path.is_dir():
        # Sorted, because the order of a directory differs between file systems.
        files = sorted(file for file in path.iterdir() if file.is_file())
        return _joined([part for file in files for part in (file.name, _of_file(file))])
    return _of_file(path) if path.is_file() else "missing"


def _of_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in parts because volumes may exceed the memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()


def _of_rows(site: Site) -> Iterator[tuple[str, str]]:
    """Yield name and hash of each row of a source that has rows."""
    source = site.data
    if isinstance(source, Extension):
        for name, one in dataset.rows_of(site):
            values = [one.image, *(one.labels[task.name] for task in site.tasks)]
            parts = [f"{v.dtype} {tuple(v.shape)} {_hex(v.numpy().tobytes())}" for v in values]
            yield name, _joined([*parts, one.patient, one.fault])
        return
    assert isinstance(source, Npz | MedMnist)
    for split in SPLITS:
        _, images, labels = stored_arrays(source, split, {task.labels for task in site.tasks})
        rows = rows_of(source, split, len(images))
        for row in range(len(images)) if rows is None else rows:
            own = [images[row], *(labels[key][row] for key in sorted(labels))]
            parts = [f"{v.dtype} {v.shape} {_hex(v.tobytes())}" for v in map(np.asarray, own)]
            yield f"{split}:{row}", _joined(parts)


def _joined(parts: list[str]) -> str:
    return _hex(json.dumps(parts).encode())


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(path: Path) -> tuple[str | None, Mapping[str, str]]:
    """Return the time of a manifest and its records; a damaged one counts as absent."""
    try:
        found = json.loads(path.read_bytes())
        made, records = str(found["made"]), dict(found["records"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, {}
    return made, records
