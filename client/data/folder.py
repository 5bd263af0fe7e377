"""Reads a folder of pictures: class folders, or a labels.csv.

What becomes of a record (its split, its shape, its label, whether it can be used) is a function of
that record alone and of what the site declares, so that adding one changes no other. H, W pixels.
"""

import csv
import hmac
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from client.data import pictures
from client.data.records import DataError, Records, Single, Unusable, grouped, unusable
from client.data.sources import Folder
from medformer.config import UNLABELLED, Domain, Task

TABLE = "labels.csv"
SPLITS = ("train", "val", "test")
OPTIONAL = ("patient", "split", "spacing_y", "spacing_x")


@dataclass(frozen=True)
class Entry:
    """A record as it is listed, before its picture is opened."""

    file: str
    """Below the folder; of a line that names none, where the line is."""
    split: str
    cells: Mapping[str, str] = field(default_factory=dict)
    """A task's `labels` -> class, number or mask file as it is written; "" where nobody knows."""
    patient: str = ""
    spacing: tuple[str, str] = ("", "")
    """Along H and W."""
    fault: str = ""


def read(source: Folder, domain: Domain, tasks: Sequence[Task], split: str) -> Records:
    """One split's pictures and labels, shape by shape.

    Raises:
        DataError: No such folder, no picture in the split, a table without its columns, or a
            domain that pictures cannot fill. One bad record is never an error: it becomes zeros
            that are not valid, and `Records.faults` names it.
    """
    if domain.rank != 2 or domain.channels not in (1, 3):
        raise DataError(
            f"a folder of pictures gives 2D images of 1 or 3 channels, but the site declares "
            f"{domain.channels}-channel {domain.rank}D images"
        )
    own = [entry for entry in listed(source, tasks) if entry.split == split]
    if not own:
        kinds = " ".join(sorted(pictures.SUFFIXES))
        raise DataError(f"{source.path}: the split {split} is empty: no file among {kinds}")
    singles = (
        replace(_single(entry, source, domain, tasks), patient=entry.patient) for entry in own
    )
    return grouped(singles, domain, tasks)


def listed(source: Folder, tasks: Sequence[Task]) -> list[Entry]:
    """Every record of all splits, in an order of its own; no picture is opened.

    Raises:
        DataError: No such folder, or a table or folders that do not fit the tasks.
    """
    if not source.path.is_dir():
        raise DataError(f"{source.path}: no such folder. Check data.path in site.yaml")
    if (source.path / TABLE).is_file():
        return _from_table(source, sorted({task.labels for task in tasks}))
    if len(tasks) != 1 or tasks[0].kind in ("dense", "multi-label"):
        raise DataError(
            f"{source.path}: class folders answer one task of one class an image. For other tasks "
            f"write {TABLE} there: file, and a column a task named by its `labels`"
        )
    return _from_class_folders(source, tasks[0].labels)


def class_folders(source: Folder) -> list[str]:
    """Names of the class folders there are, sorted."""
    tops = [source.path / split for split in _split_folders(source)] or [source.path]
    return sorted({child.name for top in tops for child in top.iterdir() if _is_class(child)})


def hashed_split(source: Folder, record: str) -> str:
    """train, val or test by a keyed hash (HMAC-SHA256) of the record's own id."""
    digest = hmac.digest(source.split_key.encode(), record.encode(), "sha256")
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < source.test_share:
        return "test"
    return "val" if place < source.test_share + source.val_share else "train"


def _split_folders(source: Folder) -> list[str]:
    return [split for split in SPLITS if (source.path / split).is_dir()]


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _from_class_folders(source: Folder, key: str) -> list[Entry]:
    classes = source.classes or tuple(class_folders(source))
    found = []
    for split in _split_folders(source) or [""]:
        top = source.path / split
        for folder in sorted(filter(_is_class, top.iterdir())):
            known = folder.name in classes
            label = folder.name if source.classes else str(classes.index(folder.name))
            cells = {key: label} if known else {}
            fault = "" if known else f"its folder {folder.name!r} is none of the declared classes"
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() in pictures.SUFFIXES and not path.name.startswith("."):
                    file = path.relative_to(source.path).as_posix()
                    where = split or hashed_split(source, file)
                    found.append(Entry(file, where, cells, fault=fault))
    return found


def _from_table(source: Folder, keys: Sequence[str]) -> list[Entry]:
    """Line by line, so that a broken line spoils no other."""
    table = source.path / TABLE
    if numbers := [name for name in source.classes if name.isdecimal()]:
        raise DataError(
            f"{table}: the class {numbers[0]!r} could be a label as well: leave `classes` out and "
            "write the labels 0, 1, ... into the table"
        )
    text = table.read_bytes().decode("utf-8-sig", errors="replace")
    first, *lines = [line.rstrip("\r") for line in text.split("\n")]
    delimiter = ";" if ";" in first and "," not in first else ","
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    _check_header(table, header, keys)
    return [
        _from_line(source, header, line, delimiter, number, keys)
        for number, line in enumerate(lines, start=2)
        if line.strip()
    ]


def _check_header(table: Path, header: Sequence[str], keys: Sequence[str]) -> None:
    if missing := [name for name in ("file", *keys) if name not in header]:
        raise DataError(
            f"{table}: has no column {missing[0]!r}; it has {list(header)}. It needs `file` and a "
            "column a task, named by the task's `labels`"
        )
    if twice := [name for name in header if header.count(name) > 1]:
        raise DataError(f"{table}: has the column {twice[0]!r} twice")
    for name in set(header) - {"file", *keys, *OPTIONAL}:
        if close := get_close_matches(name.lower(), OPTIONAL, n=1, cutoff=0.8):
            raise DataError(f"{table}: unknown column {name!r}. Did you mean {close[0]!r}?")


def _from_line(
    source: Folder,
    header: Sequence[str],
    line: str,
    delimiter: str,
    number: int,
    keys: Iterable[str],
) -> Entry:
    place = f"{TABLE} line {number}"
    try:
        values = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error as error:
        return Entry(place, hashed_split(source, line), fault=f"is no line of a table ({error})")
    if len(values) != len(header):
        fault = f"has {len(values)} cells, the header has {len(header)}"
        return Entry(place, hashed_split(source, line), fault=fault)
    row = dict(zip(header, values, strict=True))
    patient = row.get("patient", "")
    split = row.get("split", "")
    fault = "" if row["file"] else "names no file"
    if split and split not in SPLITS:
        fault = f"its split must be one of {', '.join(SPLITS)} or empty, got {split!r}"
    if split not in SPLITS:
        split = hashed_split(source, patient or row["file"] or line)
    spacing = (row.get("spacing_y", ""), row.get("spacing_x", ""))
    cells = {key: row[key] for key in keys}
    return Entry(row["file"] or place, split, cells, patient, spacing, fault)


def _single(entry: Entry, source: Folder, domain: Domain, tasks: Sequence[Task]) -> Single:
    """The record, or zeros in its place: whatever its file provokes stays here."""
    try:
        if entry.fault:
            raise Unusable(entry.fault)
        return _opened(entry, source, domain, tasks)
    except Unusable as error:
        return unusable(domain, tasks, f"{entry.file}: {error}")
    except Exception as error:
        what = f"cannot be read ({type(error).__name__}: {error})"
        return unusable(domain, tasks, f"{entry.file}: {what}")


def _opened(entry: Entry, source: Folder, domain: Domain, tasks: Sequence[Task]) -> Single:
    picture = pictures.picture(source.path / entry.file, domain.channels)
    pixels = np.array(pictures.fitted(picture, source.max_side, source.multiple))
    image = torch.from_numpy(pixels)
    image = image.movedim(-1, 0) if image.ndim == 3 else image.expand(domain.channels, -1, -1)
    if image.is_floating_point() and not image.isfinite().all():
        raise Unusable("NaN or infinite pixels")
    labels = {task.name: _truth(task, entry.cells[task.labels], source, picture) for task in tasks}
    stretch = pictures.stretch(picture.size, source.max_side)
    return Single(image.contiguous(), labels, _spacing(entry, domain, stretch))


def _truth(task: Task, cell: str, source: Folder, picture: Image.Image) -> Tensor:
    """A cell as the task wants it: () class, (T,) labels or (H, W) mask."""
    where = f"task {task.name}"
    if task.kind == "dense":
        truth = _mask(cell, source, picture, where)
    elif task.kind == "multi-label":
        values = [_label(part, source, where) for part in cell.split()]
        truth = torch.tensor(values or [UNLABELLED] * task.classes)
        if len(truth) != task.classes:
            raise Unusable(f"{where}: needs {task.classes} numbers with spaces, got {cell!r}")
    else:
        truth = torch.tensor(_label(cell, source, where))
    largest = 1 if task.kind == "multi-label" else task.classes - 1
    low, high = int(truth.min()), int(truth.max())
    if low < UNLABELLED or high > largest:
        wrong = high if high > largest else low
        raise Unusable(f"{where}: labels must be 0 to {largest}, got {wrong}")
    return truth


def _label(cell: str, source: Folder, where: str) -> int:
    """A declared class by name, else a whole number, which some tools write as `1.0`."""
    if cell in source.classes:
        return source.classes.index(cell)
    if not cell:
        return UNLABELLED
    if not re.fullmatch(r"-?\d{1,9}(\.0*)?", cell):
        raise Unusable(f"{where}: {cell!r} is neither a whole number nor a declared class")
    return int(float(cell))


def _mask(cell: str, source: Folder, picture: Image.Image, where: str) -> Tensor:
    mask = Image.new("I", picture.size, UNLABELLED)
    if cell:
        try:
            mask = pictures.mask(source.path / cell)
        except Unusable as error:
            raise Unusable(f"{where}, mask {cell}: {error}") from error
    if mask.size != picture.size:
        raise Unusable(f"{where}: mask {cell} is {mask.size}, its picture {picture.size} pixels")
    nearest = Image.Resampling.NEAREST
    mask = pictures.fitted(mask, source.max_side, source.multiple, nearest)
    return torch.from_numpy(np.array(mask).astype(np.int64))


def _spacing(entry: Entry, domain: Domain, stretch: tuple[float, float]) -> Tensor | None:
    """Distance between pixels along H and W after reduction; the domain's where no cell says it."""
    values: Sequence[float] | None = domain.spacing
    if any(entry.spacing):
        try:
            values = [float(cell) for cell in entry.spacing]
        except ValueError:
            values = [math.nan]
        if not all(math.isfinite(v) and v > 0 for v in values):
            raise Unusable(f"spacing must be two positive numbers, got {list(entry.spacing)}")
    return None if values is None else torch.tensor(values) * torch.tensor(stretch)
