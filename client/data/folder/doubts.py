"""Doubts about a folder or its table: what it seems to mean but does not state. FOR THE SITE'S OWN
EYES.

Reading goes on in spite of a doubt, except where the names of columns alone are unclear: then
nothing is trained either.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TypeGuard

from client.data.folder import cells, columns, layout
from client.data.folder import reading as folder
from client.data.folder.sheet import Sheet
from client.data.folder.splits import SPLITS, like_a_split, masked, split_of
from client.data.folder.table import TABLE, Entry, from_table, opened_sheet
from client.data.outside import dataset
from client.data.pictures import reading as pictures
from client.data.sources import Dicom, Extension, Folder, Listed
from client.site import Site
from medformer.config import Task

MAX_NAMES = 3
"""Maximum names that a message lists."""


def unclear(site: Site) -> list[str]:
    """Return a sentence for each unread column that looks like patients or splits, by names alone.

    Args:
        site: The declaration of the site.
    Raises:
        DataError, OSError: The table cannot be read.
    """
    source = site.data
    if not _has_table(source):
        return []
    header = opened_sheet(source).header
    table = source.path / TABLE
    return [f"{table}: {text}" for text in columns.unclear(header, _keys(site), source.columns)]


def problems(site: Site) -> list[str]:
    """Return what must be repaired before anything is trained, `unclear` included.

    Args:
        site: The declaration of the site.
    Raises:
        DataError, OSError: The folder or its table cannot be read.
    """
    source = site.data
    if isinstance(source, Extension):
        return list(dataset.problems(site))
    if not isinstance(source, Listed):
        return []
    entries = _entries(source, site.tasks)
    found = [*unclear(site), *_patients_in_two_splits(entries), *_files_in_two_splits(entries)]
    found += _names_without_labels(source, site.tasks)
    if site.privacy.unit == "patient":
        found += _alike(entries)
    if _has_table(source):
        found += _columns_of_splits(site, opened_sheet(source))
    elif isinstance(source, Folder):
        found += [*_classes_in_doubt(source, site.tasks[0]), *_masks_among(entries)]
    return found


def notes(site: Site) -> list[str]:
    """Return remarks about what works but should be known.

    Args:
        site: The declaration of the site.
    Raises:
        DataError, OSError: The folder or its table cannot be read.
    """
    source = site.data
    if not isinstance(source, Listed):
        return []
    entries = _entries(source, site.tasks)
    found = [] if site.privacy.unit == "patient" else _alike(entries)
    if _has_table(source):
        found += _of_table(site, opened_sheet(source))
    elif isinstance(source, Folder):
        found += _of_class_folders(source, site.tasks[0], entries)
    if passed := passed_over(site):
        total = sum(passed.values())
        found.append(f"{total} files were passed over: {_counted(passed)}. {_read_are(source)}")
    return found


def passed_over(site: Site) -> dict[str, int]:
    """Count the visible files below `path` that are neither a record, nor a mask, nor part of one.

    Args:
        site: The declaration of the site.
    Returns:
        Suffix -> files.
    Raises:
        DataError, OSError: The folder or its table cannot be read.
    """
    source = site.data
    if not isinstance(source, Listed):
        return {}
    if not _has_table(source):
        others = (file for file in layout.files(source.path) if not layout.is_picture(file.name))
        return _sorted(Counter(layout.suffix(file.name) for file in others))
    masks = [task.labels for task in site.tasks if task.kind == "dense"]
    used = {PurePosixPath(TABLE)}
    for entry in _entries(source, site.tasks):
        for name in (entry.file, *(entry.cells.get(key, "") for key in masks)):
            if name:
                used.add(PurePosixPath(re.sub(r":\d+$", "", name)))  # a volume of a NIfTI file
    # The other file of a NIfTI pair is part of the record.
    stems = {str(file.with_suffix("")) for file in used if file.suffix in (".hdr", ".img")}
    others = (
        file
        for file in layout.files(source.path)
        if not ({file, *file.parents} & used or str(file.with_suffix("")) in stems)
    )
    return _sorted(Counter(layout.suffix(file.name) for file in others))


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _read_are(source: Listed) -> str:
    if _has_table(source):
        return f"{TABLE} does not name them"
    return f"Class folders are read for {' '.join(sorted(pictures.SUFFIXES))}"


def _has_table(source: object) -> TypeGuard[Listed]:
    return isinstance(source, Listed) and (source.path / TABLE).is_file()


def _keys(site: Site) -> list[str]:
    return sorted({task.labels for task in site.tasks})


def _entries(source: Listed, tasks: Sequence[Task]) -> list[Entry]:
    if isinstance(source, Folder):
        return folder.listed(source, tasks)
    return from_table(source, sorted({task.labels for task in tasks}))


def _patients_in_two_splits(entries: Sequence[Entry]) -> Iterator[str]:
    """Report patients with images in several splits."""
    places: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.patient:
            places[entry.patient].add(entry.split)
    several = sorted(patient for patient, splits in places.items() if len(splits) > 1)
    if several:
        where = ", ".join(split for split in SPLITS if split in places[several[0]])
        yield (
            f"{len(several)} of {len(places)} patients have images in several splits, "
            f"{several[0]!r} the first ({where}): metrics on val and test would be too good. Put "
            "each patient into one split, or leave the split empty: a hash of the patient's id "
            "then decides"
        )


def _files_in_two_splits(entries: Sequence[Entry]) -> Iterator[str]:
    """Report files that are listed in several splits."""
    places: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if not entry.fault:
            places[entry.file].add(entry.split)
    several = sorted(file for file, splits in places.items() if len(splits) > 1)
    if several:
        where = ", ".join(split for split in SPLITS if split in places[several[0]])
        yield (
            f"{len(several)} files are listed in several splits, {several[0]!r} the first "
            f"({where}): metrics on val and test would be too good. Leave each in one"
        )


def _names_without_labels(source: Listed, tasks: Sequence[Task]) -> Iterator[str]:
    """Report more declared names than any task has classes."""
    most = max((task.classes for task in tasks if task.kind != "dense"), default=None)
    if most is not None and len(source.classes) > most:
        yield (
            f"data.classes names {len(source.classes)} labels, 0 to {len(source.classes) - 1}, and "
            f"no task has more than {most} classes"
        )


def _masks_among(entries: Sequence[Entry]) -> Iterator[str]:
    """Find masks that lie beside the pictures they belong to, as some public sets are
    distributed."""
    places = [PurePosixPath(entry.file) for entry in entries]
    stems = {(place.parent, place.stem) for place in places}
    masks = [p for p in places if (of := masked(p.stem)) and (p.parent, of) in stems]
    if masks:
        yield (
            f"{len(masks)} pictures seem to be masks of others, {str(masks[0])!r} the first, and "
            "would be read as images of their class: move them out of data.path, or write "
            f"{TABLE}, which names the pictures alone"
        )


def _alike(entries: Sequence[Entry]) -> list[str]:
    """Find patient ids that differ only in what spreadsheets tend to change."""
    spelt: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.patient:
            spelt[_bare(entry.patient)].add(entry.patient)
    several = sorted(sorted(ids) for ids in spelt.values() if len(ids) > 1)
    if not several:
        return []
    return [
        f"{len(several)} patients may have several ids: {' and '.join(map(repr, several[0]))} "
        "differ in leading zeros, spaces or case alone. Write each patient's id in one way"
    ]


def _bare(patient: str) -> str:
    """Return an id without leading zeros, spaces, hyphens and case."""
    bare = re.sub(r"[\s_-]", "", patient.casefold())
    bare = re.sub(r"^(\d+)\.0+$", r"\1", bare)
    return re.sub(r"(?<!\d)0+(?=\d)", "", bare)


def _columns_of_splits(site: Site, sheet: Sheet) -> Iterator[str]:
    """Find unread columns that hold nothing but names of splits, whatever they are called."""
    named = site.data.columns  # type: ignore[union-attr]
    # A split column exists, or is reported already.
    if named.split in sheet.header or columns.unclear(sheet.header, _keys(site), named):
        return
    for name, values in _unread(site, sheet):
        if values and all(split_of(value) or like_a_split(value) for value in values):
            yield (
                f"{TABLE}: the column {name!r} holds {sorted(set(values))} and is not read: say "
                f"data: {{columns: {{split: {name!r}}}}}, or {{columns: {{ignored: [{name!r}]}}}}"
            )


def _unread(site: Site, sheet: Sheet) -> Iterator[tuple[str, list[str]]]:
    """Yield the columns that are not read, with their cells that are not empty."""
    named = site.data.columns  # type: ignore[union-attr]
    roles = (named.file, named.patient, named.split, named.spacing_y, named.spacing_x)
    read = {"", *_keys(site), *roles, *named.ignored}
    for place, name in enumerate(sheet.header):
        if name not in read:
            found = [row.cells[place] for row in sheet.rows if len(row.cells) > place]
            yield name, [cell for cell in found if cell.casefold() not in cells.MISSING]


def _of_table(site: Site, sheet: Sheet) -> Iterator[str]:
    """Report guessed encodings, and columns that may group images, in a table."""
    if sheet.guessed:
        yield (
            f"{TABLE}: {sheet.guessed} lines are not UTF-8 and were read as Windows-1252: save it "
            "as UTF-8 if names look wrong"
        )
    source = site.data
    if isinstance(source, Dicom) or source.columns.patient in sheet.header:  # type: ignore[union-attr]
        return
    unread = dict(_unread(site, sheet))
    for name in columns.grouping(list(unread)):
        repeated = sum(count > 1 for count in Counter(unread[name]).values())
        # Ids that never repeat group nothing.
        if repeated:
            yield (
                f"{TABLE}: the column {name!r} is not read, and {repeated} of its values stand in "
                "several rows: if these images belong together, say data: {columns: {patient: "
                f"{name!r}}}}}, or they lie in several splits"
            )


def _classes_in_doubt(source: Folder, task: Task) -> Iterator[str]:
    """Report class folders whose number or order does not fit the task."""
    if source.classes:
        return
    names = layout.class_folders(source)
    if len(names) > task.classes:
        yield (
            f"{len(names)} class folders ({_some(names)}), but the task has {task.classes} classes"
        )
    # Sorted as text, 10 comes before 2, so that labels would be exchanged.
    if all(name.isdecimal() for name in names) and names != sorted(names, key=int):
        yield (
            f"the class folders are numbers, which sort as text ({_some(names)}): declare their "
            f"order, `classes: {sorted(names, key=int)}` in data"
        )
    alike = Counter(name.casefold() for name in names)
    if twice := [name for name in names if alike[name.casefold()] > 1]:
        yield (
            f"the class folders {twice[0]!r} and {twice[1]!r} differ in upper and lower case "
            "alone, and count as two classes: give them one name"
        )


def _of_class_folders(source: Folder, task: Task, entries: Sequence[Entry]) -> Iterator[str]:
    """Report class folders that are undeclared or have no picture."""
    names = source.classes or tuple(layout.class_folders(source))
    if not source.classes:
        declared = f"`classes: {list(names)}` in data"
        yield f"labels follow from the sorted class folders: declare {declared}"
    if len(names) < task.classes:
        yield f"{len(names)} class folders, but the task has {task.classes} classes"
    of_label = names if source.classes else tuple(str(i) for i in range(len(names)))
    held = {(entry.split, entry.cells.get(task.labels)) for entry in entries if not entry.fault}
    for name, label in zip(names, of_label, strict=True):
        splits = [split for split in SPLITS if (split, label) in held]
        if not splits:
            yield f"the class folder {name!r} holds no picture"
        # A class without training images cannot be learned, yet would be measured.
        elif "train" not in splits:
            yield f"the class folder {name!r} has pictures in {' and '.join(splits)}, none in train"


def _some(names: Sequence[str]) -> str:
    more = f", and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
