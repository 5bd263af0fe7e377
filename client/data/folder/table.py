"""labels.csv: the entries of a table about the records of a folder, line by line.

The split, label and validity of a record are functions of that record alone and of the site's
declaration, so that adding one changes no other.
"""

import hmac
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from client.data.errors import DataError, Unusable
from client.data.folder import cells, columns, sheet
from client.data.folder.sheet import Row, Sheet
from client.data.folder.splits import SPLITS, split_of
from client.data.records import Records, Single, grouped, unusable
from client.data.sources import Listed
from medformer.config import Domain, Task
from medformer.errors import one_line

TABLE = "labels.csv"
MAX_TABLE_BYTES = 2**26
"""Maximum size of the table."""


@dataclass(frozen=True)
class Entry:
    """A record as it is listed, before its picture is opened."""

    file: str
    """File below the folder; for a line that names none, the place of the line."""
    split: str
    cells: Mapping[str, str] = field(default_factory=dict)
    """A task's `labels` -> class, number or mask file as written; "" where unknown."""
    patient: str = ""
    spacing: tuple[str, str] = ("", "")
    """Distances along H and W as written."""
    fault: str = ""
    """Reason why the line cannot be used; empty if it can."""
    placed: bool = False
    """True if the table itself states the split."""
    comma: bool = False
    """True if numbers may have a decimal comma, because no comma divides the table."""


def records(
    entries: Iterable[Entry],
    domain: Domain,
    tasks: Sequence[Task],
    opened: Callable[[Entry], Single],
    withdrawn: Set[str] = frozenset(),
) -> Records:
    """Open every record by itself; those that cannot be used become zeros.

    Args:
        entries: The records of one split.
        domain: The site's kind of image.
        tasks: The site's tasks.
        opened: Reads one record; its patient is used where the entry names none.
        withdrawn: Files and patients to leave out: by the table before they are opened, and by the
            PatientID in their file.
    """
    singles, left_out = [], []
    for entry in entries:
        # Before the file is opened: a withdrawn person's file is not even read.
        if known := {entry.file, entry.patient} & withdrawn:
            left_out.append(min(known))
            continue
        one = _single(entry, domain, tasks, opened)
        # The table may not name the patient; then only the file does.
        if one.patient in withdrawn:
            left_out.append(one.patient)
            continue
        singles.append(replace(one, patient=entry.patient or one.patient))
    return replace(grouped(singles, domain, tasks), withdrawn=tuple(left_out))


def hashed_split(source: Listed, record: str) -> str:
    """Return train, val or test by a keyed hash (HMAC-SHA256) of the record's own id.

    Args:
        source: The source, with its key and shares.
        record: The patient's id, or the file.
    """
    digest = hmac.digest(source.split_key.encode(), record.encode(), "sha256")
    # Uniform in [0, 1): the shares hold on average, whatever the ids look like.
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < source.test_share:
        return "test"
    return "val" if place < source.test_share + source.val_share else "train"


def from_table(source: Listed, keys: Sequence[str]) -> list[Entry]:
    """Read the table row by row, so that a broken row does not affect any other.

    Args:
        source: The source as declared.
        keys: Columns of the tasks.
    Raises:
        DataError: The table cannot be read, or its columns could mean something else.
    """
    table = source.path / TABLE
    text = opened_sheet(source)
    columns.check(table, text.header, keys, source.columns)
    # A class called `1` could mean label 1 or the name of another label.
    for name in source.classes:
        if re.fullmatch(r"-?[0-9]+([.,]0*)?", name):
            raise DataError(
                f"{table}: the class {name!r} could be a label as well: leave `classes` out and "
                "write the labels 0, 1, ... into the table"
            )
    return [_from_row(source, text, row, keys) for row in text.rows]


def opened_sheet(source: Listed) -> Sheet:
    """Read the text of the table, before it is interpreted.

    Args:
        source: The source as declared.
    Raises:
        DataError: It cannot be read.
    """
    table = source.path / TABLE
    try:
        inside(source.path, TABLE)
    except Unusable as error:
        raise DataError(f"{table}: {error}") from error
    if table.stat().st_size > MAX_TABLE_BYTES:
        raise DataError(f"{table}: has more than {MAX_TABLE_BYTES >> 20} MiB")
    return sheet.read(table, source.columns.file)


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file or folder that a table names, links resolved, if it lies inside.

    Args:
        folder: The folder of the records.
        name: The name in the table. All files of a named folder must lie inside, too.
    Raises:
        Unusable: It lies elsewhere: `..`, an absolute name, or a link that leads out. Or it does
            not exist, and another file's name differs only in what some file systems ignore.
    """
    top, name = folder.resolve(), plain(name)
    # pathlib on Linux would take C:/ for a folder below data.path.
    if re.match(r"[A-Za-z]:/", name):
        raise Unusable("is a path of a Windows machine: write names as they are below data.path")
    try:
        path = (folder / name).resolve()
        within = [path, *((child.resolve() for child in path.iterdir()) if path.is_dir() else ())]
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, links in a circle
        raise Unusable(f"is not the name of a file ({type(error).__name__})") from error
    if not all(one.is_relative_to(top) for one in within):
        raise Unusable("lies outside of data.path, or leads there")
    if not path.exists() and (other := _alike(path)):
        # Taking it would make this record depend on which other files there are.
        raise Unusable(
            f"no such file, but {other!r} is there: names must agree in upper and lower case, and "
            "in how accents are encoded"
        )
    return path


def _alike(path: Path) -> str | None:
    """Return a file's name that Windows or macOS would take for this one."""

    def key(name: str) -> str:
        return unicodedata.normalize("NFKC", name).casefold()

    if not path.parent.is_dir():
        return None
    return min((n for n in os.listdir(path.parent) if key(n) == key(path.name)), default=None)


def plain(name: str) -> str:
    """Return a file's name with `/` between folders, where Windows writes `\\`, and without
    `./`."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for i, part in enumerate(parts) if part != "." and (part or not i)) or name


def _from_row(source: Listed, text: Sheet, row: Row, keys: Sequence[str]) -> Entry:
    """Make an entry of a row; whatever is wrong with it becomes its fault."""
    place, header, named = f"{TABLE} line {row.number}", text.header, source.columns
    lacking = header[len(row.cells) :]
    read = {named.file, named.patient, named.split, named.spacing_y, named.spacing_x, *keys}
    fault = row.fault
    # Spreadsheets leave out empty cells at the end of a line: no harm where nobody reads them.
    if not fault and (len(row.cells) > len(header) or read & set(lacking)):
        fault = (
            f"has {len(row.cells)} cells, the header has {len(header)}: put quotes around a cell "
            "that holds the delimiter, and write every cell of the header"
        )
    if fault:
        return Entry(place, hashed_split(source, row.text), fault=fault)
    values = dict(zip(header, row.cells, strict=False))
    file = plain(values[named.file])
    try:
        patient = cells.patient(values.get(named.patient, ""))
    except Unusable as error:
        patient, fault = "", str(error)
    stated = values.get(named.split, "")
    if not file:
        fault = "names no file"
    placed = split_of(stated)
    if stated.casefold() not in cells.MISSING and placed is None:
        fault = f"its split must be one of {', '.join(SPLITS)} or empty, got {stated!r}"
    return Entry(
        file=file or place,
        split=placed or hashed_split(source, patient or file or row.text),
        cells={key: values[key] for key in keys},
        patient=patient,
        spacing=(values.get(named.spacing_y, ""), values.get(named.spacing_x, "")),
        fault=fault,
        placed=placed is not None,
        comma=text.delimiter != ",",
    )


def _single(
    entry: Entry, domain: Domain, tasks: Sequence[Task], opened: Callable[[Entry], Single]
) -> Single:
    """Return the record, or zeros in its place: no exception that its file causes gets out."""
    try:
        if entry.fault:
            raise Unusable(entry.fault)
        one = opened(entry)
        # A zero or negative distance would break the position encoding of the model.
        if one.spacing is not None and not bool((one.spacing.isfinite() & (one.spacing > 0)).all()):
            raise Unusable(
                f"the distances between its pixels are impossible: {one.spacing.tolist()}"
            )
        return one
    except Unusable as error:
        what = str(error)
    # Any exception of a decoder: the round must go on as if the record were empty.
    except Exception as error:
        what = f"cannot be read ({type(error).__name__}: {error})"
    return unusable(domain, tasks, one_line(f"{one_line(entry.file, 200)}: {what}", 500))


def spacing_of(entry: Entry) -> tuple[float, float] | None:
    """Return the distances between pixels along H and W that the table states, or None.

    Args:
        entry: A record of the table.
    Raises:
        Unusable: A cell is not a positive number.
    """
    return cells.spacing(entry.spacing, comma=entry.comma)
