"""Reads the records that a site declares, by one of three functions, from strict to tolerant:

check   reads all splits; raises at the first record, file or column that is wrong. For people.
read    reads one split; raises where the source as a whole cannot be read, and marks a record
        that cannot be used. For local tools: data card, finetuning, evaluation.
load    reads one split for training, kept in memory; never raises. An error whose text or time
        depends on a record would tell the server about that record.
"""

import json
import logging
from collections.abc import Iterable, Sequence, Set
from functools import lru_cache
from pathlib import Path

from client.data import medical, medmnist, npz, staged, withdrawn
from client.data.arrays import from_arrays
from client.data.errors import DataError
from client.data.folder import doubts
from client.data.folder import reading as folder
from client.data.outside import dataset
from client.data.records import Records, empty, listed_once, of_known_patients, problems
from client.data.sources import Extension, Folder, Listed, MedMnist, Npz, Phantoms
from client.data.stamp import stamp
from client.site import Site
from medformer import phantoms

log = logging.getLogger(__name__)

PHANTOM_SPLITS = {"train": (1.0, 0), "val": (0.25, 1), "test": (0.5, 2)}
"""Split -> fraction of `records`, and what is added to the seed (images never repeat)."""


def check(site: Site) -> None:
    """Read every split and raise at the first thing that is wrong, even a single record.

    This is the strictest of the three: a site that passes has no record that `read` would mark as
    invalid, and no doubtful table or folder. It is run by people, before anything is computed.

    Args:
        site: The declaration to check.
    Raises:
        DataError: One sentence that names site, split, cause and remedy.
    """
    for doubt in doubts.unclear(site):
        raise DataError(f"site {site.name}: {doubt}")
    # Validation and test records are checked, too: their faults would distort the choice of a
    # model.
    for split in ("train", "val", "test"):
        found = problems(read(site, split), site.domain)
        if found:
            raise DataError(f"site {site.name}, {split}: {found[0]}")
    for doubt in doubts.problems(site):
        raise DataError(f"site {site.name}: {doubt}")


_seen: dict[Site, object] = {}
"""Site -> its withdrawal list and the stamp of its files, as they were when `_loaded` read them.

This dictionary and the cache of `_loaded` are the only state of this module. They exist because a
site would otherwise decode thousands of files in every round; `forget` empties both.
"""


def load(site: Site, split: str) -> Records:
    """Return the records of a split for training, from memory where nothing has changed.

    This is the most tolerant of the three: it never raises. A source that cannot be read gives no
    records, and a record that cannot be used is marked invalid. The cause is written to the site's
    log only, because an error that depends on a record would reveal something about it.

    Every call looks at the withdrawal list and at the names, sizes and times of the files. If any
    of them has changed, everything that was read before is dropped and read again.

    Args:
        site: The declaration of the site.
        split: train, val or test.
    Returns:
        The records, without those that the withdrawal list names.
    """
    try:
        left_out = withdrawn.names(site.withdrawn)
    except DataError as error:
        # Nobody knows who withdrew, so nobody's record may be used.
        log.error("site %s, %s: %s; training goes on without records", site.name, split, error)
        forget()
        return empty(site.domain, site.tasks)
    seen = left_out, stamp(site.data)
    if _seen.get(site, seen) != seen:
        log.warning("site %s: its data has changed on disk and is read again", site.name)
        forget()
    _seen[site] = seen
    try:
        return _loaded(site, split, left_out)
    except Exception as error:  # any exception that a private file causes must stay at the site
        log.error("site %s, %s: %s; training goes on without records", site.name, split, error)
        return empty(site.domain, site.tasks)


def forget() -> None:
    """Drop all records from memory, so that the next call of `load` reads the files."""
    _loaded.cache_clear()
    _seen.clear()


@lru_cache(maxsize=16)
def _loaded(site: Site, split: str, left_out: Set[str]) -> Records:
    """Read a split once. Failures are not cached: a full disk may be repaired by the next round."""
    for doubt in doubts.unclear(site):
        # Otherwise one patient could lie in several splits, or test images would be trained on.
        raise DataError(doubt)
    records = read(site, split, left_out)
    for problem in problems(records, site.domain):
        log.warning("site %s, %s: %s", site.name, split, problem)
    return records


def read(site: Site, split: str, left_out: Set[str] | None = None) -> Records:
    """Read one split of a site's source, without the records that were withdrawn.

    It is less strict than `check` and stricter than `load`: it raises where the source as a whole
    cannot be read, and marks a single record that cannot be used as invalid.

    Args:
        site: The declaration of the site.
        split: train, val or test.
        left_out: Names on the withdrawal list; None reads the site's list.
    Returns:
        The records, stacked by shape; `Records.faults` says why a record is invalid.
    Raises:
        DataError: A missing or corrupt file, a withdrawal list that cannot be read, or images that
            are not what the site declares.
    """
    left_out = withdrawn.names(site.withdrawn) if left_out is None else left_out
    source = site.data
    if isinstance(source, Extension):
        records = dataset.read(source, site.domain, site.tasks, split, left_out)
        return of_known_patients(records) if site.privacy.unit == "patient" else records
    if isinstance(source, Listed):
        reader = folder.read if isinstance(source, Folder) else medical.read
        records = reader(source, site.domain, site.tasks, split, left_out)  # type: ignore[arg-type]
        by_patient = site.privacy.unit == "patient"
        # The unit of privacy is what Poisson sampling draws: it must not occur twice under two
        # names, or the noise would hide only half of its influence.
        return of_known_patients(records) if by_patient else listed_once(records)
    # Several tasks may share one array of labels.
    keys = {task.labels for task in site.tasks}
    if isinstance(source, Phantoms):
        images, labels = _phantoms(source, split, keys)
        labels = staged.hidden(source, split, images, labels)
        return from_arrays(site, split, images, labels, range(len(images)), left_out)
    path, images, labels = stored_arrays(source, split, keys)
    rows: Sequence[int] = range(len(images))
    if (own := rows_of(source, split, len(images))) is not None:
        rows = own
        if len(rows) and not 0 <= min(rows) <= max(rows) < len(images):
            raise DataError(f"{source.indices}: {split} names rows outside {path}")
        images, labels = images[rows], {key: values[rows] for key, values in labels.items()}
    if isinstance(source, MedMnist):
        images = staged.scanned(source, split, images)
    labels = staged.hidden(source, split, images, labels)
    return from_arrays(site, split, images, labels, rows, left_out)


def stored_arrays(
    source: Npz | MedMnist, split: str, keys: Iterable[str]
) -> tuple[Path, npz.Array, dict[str, npz.Array]]:
    """Return the file of a source, and its images and labels as they are stored.

    Args:
        source: A file, or a MedMNIST set by name.
        split: train, val or test.
        keys: Names of the arrays of labels.
    Returns:
        The path; images (N, *spatial) or with channels last; each key's labels, N rows.
    Raises:
        DataError: A missing or corrupt file, or one that is larger than the source allows.
    """
    if isinstance(source, Npz):
        path, limit = source.path, source.max_mib << 20
    else:
        path = medmnist.find(source.dataset, source.size, source.root)
        limit = medmnist.max_bytes(source.dataset, source.size)
    return path, *npz.read(path, split, keys, limit)


def rows_of(source: Npz | MedMnist, split: str, count: int) -> list[int] | None:
    """Return the rows of a split that belong to this site, or None if all of them do.

    Args:
        source: The file, and the site's list of rows or its part of the set.
        split: train, val or test.
        count: Number of images of the split.
    Raises:
        DataError: As `chosen_rows`.
    """
    if isinstance(source, MedMnist) and source.of > 1:
        return staged.part_of(source, split, count)
    return chosen_rows(source.indices, split)


def chosen_rows(indices: Path | None, split: str) -> list[int] | None:
    """Return the rows of a split that belong to this site, or None if all of them do.

    Args:
        indices: A JSON file {split: [row, ...]}; None where the site declares none.
        split: train, val or test. A split that the file does not name belongs to the site whole.
    Raises:
        DataError: The file cannot be read, or names a row twice.
    """
    if indices is None:
        return None
    try:
        named = json.loads(indices.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{indices}: no readable list of rows ({error})") from error
    if not isinstance(named, dict):
        raise DataError(f'{indices}: must hold {{"train": [0, 1, ...], ...}}')
    rows = named.get(split)
    # A list for the train split alone leaves the official test split whole.
    if rows is None and split not in named:
        return None
    # bool is a subclass of int in Python: JSON's true would pass as row 1.
    if not isinstance(rows, list) or any(type(row) is not int for row in rows):
        raise DataError(f"{indices}: {split} must be a list of whole numbers")
    if len(set(rows)) < len(rows):
        raise DataError(f"{indices}: {split} names a row twice: one image would count as two")
    return rows


def _phantoms(source: Phantoms, split: str, keys: Set[str]) -> npz.Arrays:
    if source.kind not in phantoms.KINDS:
        raise DataError(f"no phantoms {source.kind!r}; there are {', '.join(phantoms.KINDS)}")
    known = {"labels", "masks"} if phantoms.KINDS[source.kind].finding else {"labels"}
    if other := sorted(keys - known):
        raise DataError(
            f"{source.kind} phantoms have no {other[0]!r}; they have {', '.join(sorted(known))}"
        )
    fraction, offset = PHANTOM_SPLITS[split]
    # Every class of a phantom needs a few images, even for tiny sites.
    count = max(8, round(fraction * source.records))
    # Three seeds a site, so that no image occurs in two splits.
    where = {"seed": 3 * source.seed + offset, "size": source.size}
    scanner = phantoms.Scanner(**source.scanner.model_dump())
    if "masks" not in keys:
        images, labels = phantoms.generate(source.kind, count, scanner=scanner, **where)
        return images, {"labels": labels}
    images, labels, masks = phantoms.outlined(source.kind, count, scanner=scanner, **where)
    return images, {"labels": labels, "masks": masks}
