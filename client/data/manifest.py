"""A hash of every record, so that a site sees what changed. FOR THE SITE'S OWN EYES.

It lies in the state folder, 0600, and stays there. Nothing that is sent may be derived from it, so
it is no part of the ledger, of whose rows a server learns the hash. A changed file makes no new
ledger: what was spent on a cohort stays spent.
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
from client.data.load import chosen_rows, stored_arrays
from client.data.nifti import file as nifti_file
from client.data.sources import Folder, Listed, MedMnist, Npz, Phantoms
from client.site import Site
from medformer.common.files import replace_file

FILE = "manifest.json"
CHUNK = 2**20


@dataclass(frozen=True)
class Changes:
    """What became of a site's records since they were looked at last."""

    records: int
    since: str | None
    """When that was, UTC; None where nothing readable tells."""
    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


def compare(site: Site, state: Path) -> Changes | None:
    """Hold the records against the manifest in the state folder, and write the new one.

    Returns:
        None where there is nothing to compare: phantoms.
    Raises:
        DataError: The records cannot be listed, or the manifest not be written.
    """
    if isinstance(site.data, Phantoms):
        return None
    now = hashes(site)
    since, before = _read(state / FILE)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"made": made, "records": now})
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(state / FILE, text.encode(), mode=0o600)
    except OSError as error:
        raise DataError(f"{state / FILE}: cannot be written ({error.strerror})") from error
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
    """Record -> SHA-256 of its content and of what is said of it: label, patient, split.

    A record is named by its file, or by split and row; one that is listed twice has a number.

    Raises:
        DataError: The source cannot be listed.
    """
    pairs = _of_files(site) if isinstance(site.data, Listed) else _of_rows(site)
    found: dict[str, str] = {}
    for name, value in pairs:
        number, own = 1, name
        while own in found:
            number += 1
            own = f"{name} ({number})"
        found[own] = value
    return found


def _of_files(site: Site) -> Iterator[tuple[str, str]]:
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
    return json.dumps([dict(entry.cells), entry.patient, entry.split, entry.spacing, entry.fault])


def _content(top: Path, name: str) -> str:
    """Hash of a file, or of the files of a series or pair; of one that cannot be read, that it
    cannot."""
    try:
        parts = [_of_place(top, path) for path in nifti_file.files_of(top / name)]
    except (OSError, ValueError) as error:
        return type(error).__name__
    return parts[0] if len(parts) == 1 else _joined(parts)


def _of_place(top: Path, path: Path) -> str:
    if not path.resolve().is_relative_to(top.resolve()):
        return "outside"
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        return _joined([part for file in files for part in (file.name, _of_file(file))])
    return _of_file(path) if path.is_file() else "missing"


def _of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()


def _of_rows(site: Site) -> Iterator[tuple[str, str]]:
    source = site.data
    assert isinstance(source, Npz | MedMnist)
    for split in SPLITS:
        _, images, labels = stored_arrays(source, split, {task.labels for task in site.tasks})
        rows = chosen_rows(source.indices, split)
        for row in range(len(images)) if rows is None else rows:
            own = [images[row], *(labels[key][row] for key in sorted(labels))]
            parts = [f"{v.dtype} {v.shape} {_hex(v.tobytes())}" for v in map(np.asarray, own)]
            yield f"{split}:{row}", _joined(parts)


def _joined(parts: list[str]) -> str:
    return _hex(json.dumps(parts).encode())


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(path: Path) -> tuple[str | None, Mapping[str, str]]:
    """When it was written, and its records; a damaged one tells nothing."""
    try:
        found = json.loads(path.read_bytes())
        made, records = str(found["made"]), dict(found["records"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, {}
    return made, records
