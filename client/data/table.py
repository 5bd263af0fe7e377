"""labels.csv: what a table says of the records of a folder, line by line.

What becomes of a record (its split, its label, whether it can be used) is a function of that record
alone and of what the site declares, so that adding one changes no other.
"""

import csv
import hmac
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

from client.data.records import DataError, Records, Single, Unusable, grouped, unusable
from client.data.sources import Listed
from medformer.config import UNLABELLED, Domain, Task
from medformer.errors import one_line

TABLE = "labels.csv"
LARGEST_TABLE = 2**26
"""Bytes."""
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
    placed: bool = False
    """Whether the table itself says the split."""


def records(
    entries: Iterable[Entry],
    domain: Domain,
    tasks: Sequence[Task],
    opened: Callable[[Entry], Single],
    withdrawn: Set[str] = frozenset(),
) -> Records:
    """Open every record, whatever the others are like; those that cannot be used become zeros.

    Args:
        opened: Reads one; its patient counts where the entry names none.
        withdrawn: Files and patients that are left out: by the table before they are opened, and
            by what their file says of itself.
    """
    singles, left_out = [], []
    for entry in entries:
        if known := {entry.file, entry.patient} & withdrawn:
            left_out.append(min(known))
            continue
        one = _single(entry, domain, tasks, opened)
        if one.patient in withdrawn:
            left_out.append(one.patient)
            continue
        singles.append(replace(one, patient=entry.patient or one.patient))
    return replace(grouped(singles, domain, tasks), withdrawn=tuple(left_out))


def hashed_split(source: Listed, record: str) -> str:
    """train, val or test by a keyed hash (HMAC-SHA256) of the record's own id."""
    digest = hmac.digest(source.split_key.encode(), record.encode(), "sha256")
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < source.test_share:
        return "test"
    return "val" if place < source.test_share + source.val_share else "train"


def from_table(source: Listed, keys: Sequence[str]) -> list[Entry]:
    """Line by line, so that a broken line spoils no other."""
    table = source.path / TABLE
    try:
        inside(source.path, TABLE)
    except Unusable as error:
        raise DataError(f"{table}: {error}") from error
    if table.stat().st_size > LARGEST_TABLE:
        raise DataError(f"{table}: has more than {LARGEST_TABLE >> 20} MiB")
    if numbers := [name for name in source.classes if name.isdecimal()]:
        raise DataError(
            f"{table}: the class {numbers[0]!r} could be a label as well: leave `classes` out and "
            "write the labels 0, 1, ... into the table"
        )
    text = table.read_bytes().decode("utf-8-sig", errors="replace")
    first, *lines = [line.rstrip("\r") for line in text.split("\n")]
    delimiter = ";" if ";" in first and "," not in first else ","
    try:
        header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    except csv.Error as error:
        raise DataError(f"{table}: its first line names no columns ({error})") from error
    _check_header(table, header, keys)
    return [
        _from_line(source, header, line, delimiter, number, keys)
        for number, line in enumerate(lines, start=2)
        if line.strip()
    ]


def inside(folder: Path, name: str) -> Path:
    """A file or folder that a table names, links resolved; what is in it lies inside too.

    Raises:
        Unusable: It lies elsewhere: `..`, an absolute name, or a link that leads out.
    """
    top = folder.resolve()
    try:
        path = (folder / name).resolve()
        within = [path, *((child.resolve() for child in path.iterdir()) if path.is_dir() else ())]
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, links in a circle
        raise Unusable(f"is no name of a file ({type(error).__name__})") from error
    if not all(one.is_relative_to(top) for one in within):
        raise Unusable("lies outside of data.path, or leads there")
    return path


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
    source: Listed,
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
    if not (placed := split in SPLITS):
        split = hashed_split(source, patient or row["file"] or line)
    spacing = (row.get("spacing_y", ""), row.get("spacing_x", ""))
    cells = {key: row[key] for key in keys}
    return Entry(row["file"] or place, split, cells, patient, spacing, fault, placed)


def _single(
    entry: Entry, domain: Domain, tasks: Sequence[Task], opened: Callable[[Entry], Single]
) -> Single:
    """The record, or zeros in its place: whatever its file provokes stays here."""
    try:
        if entry.fault:
            raise Unusable(entry.fault)
        one = opened(entry)
        if one.spacing is not None and not bool((one.spacing.isfinite() & (one.spacing > 0)).all()):
            raise Unusable(
                f"the distances between its pixels are impossible: {one.spacing.tolist()}"
            )
        return one
    except Unusable as error:
        what = str(error)
    except Exception as error:
        what = f"cannot be read ({type(error).__name__}: {error})"
    return unusable(domain, tasks, one_line(f"{one_line(entry.file, 200)}: {what}", 500))


def truth(task: Task, cell: str, source: Listed, masked: Callable[[str, str], Tensor]) -> Tensor:
    """A cell as the task wants it: () class, (T,) labels or a mask.

    Args:
        masked: (cell, where) -> int64 mask of the image's shape; where begins messages.
    """
    where = f"task {task.name}"
    if task.kind == "dense":
        values = masked(cell, where)
    elif task.kind == "multi-label":
        numbers = [_label(part, source, where) for part in cell.split()]
        values = torch.tensor(numbers or [UNLABELLED] * task.classes)
        if len(values) != task.classes:
            raise Unusable(f"{where}: needs {task.classes} numbers with spaces, got {cell!r}")
    else:
        values = torch.tensor(_label(cell, source, where))
    largest = 1 if task.kind == "multi-label" else task.classes - 1
    low, high = int(values.min()), int(values.max())
    if low < UNLABELLED or high > largest:
        wrong = high if high > largest else low
        raise Unusable(f"{where}: labels must be 0 to {largest}, got {wrong}")
    return values


def _label(cell: str, source: Listed, where: str) -> int:
    """A declared class by name, else a whole number, which some tools write as `1.0`."""
    if cell in source.classes:
        return source.classes.index(cell)
    if not cell:
        return UNLABELLED
    if not re.fullmatch(r"-?\d{1,9}(\.0*)?", cell):
        raise Unusable(f"{where}: {cell!r} is neither a whole number nor a declared class")
    return int(float(cell))


def spacing_of(entry: Entry) -> tuple[float, float] | None:
    """Distance between pixels along H and W as the table says it, if it does."""
    if not any(entry.spacing):
        return None
    try:
        height, width = (float(cell) for cell in entry.spacing)
    except ValueError:
        height = width = math.nan
    if not all(math.isfinite(v) and v > 0 for v in (height, width)):
        raise Unusable(f"spacing must be two positive numbers, got {list(entry.spacing)}")
    return height, width
