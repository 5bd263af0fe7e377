"""The columns of labels.csv: which are read, and which look as if they should be."""

import re
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from client.data.records import DataError
from client.data.sources import Columns

OPTIONAL = ("patient", "split", "spacing_y", "spacing_x")
_ID = r"(?:ids?|no|nr|nrs?|num|number|nummer|code|key|uid|name|hash|index|identifier|ref|\d)*"
_ANONYMOUS = r"(?:anon|anonymi[sz]ed|deid|deidentified|pseudo|pseudonym|hashed|unique|id|de)*"
_PATIENTS = re.compile(
    _ANONYMOUS
    + r"(?:patients?|pat|pt|subjects?|subj|sub|usubj|participants?|persons?|people|individuals?|"
    r"cases?|probands?|volunteers?|mrn|empi|mpi|eid|rid|pid|ptid|paciente?s?|paziente|patienten?|"
    r"sujeto?|soggetto|nhs|cnp|ssn|hospitaln(?:o|umber)|medicalrecord|患者|病人|пациент)" + _ID
)
_SPLITS = re.compile(
    r"(?:data|cv|k|is|official|original|ml|image)*"
    r"(?:splits?|folds?|subsets?|sets?|partitions?|datasets?|phases?|groups?|usages?|"
    r"trainvaltest|traintest|traintestsplit|trainvaltestsplit|trainvalsplit|train|training|test|"
    r"testing|val|valid|validation|holdout)"
    r"(?:ids?|no|nr|num|number|index|name|type|label|split|set|\d)*"
)
_FILES = ("filename", "image", "path", "image_path", "img", "image_id", "image_index", "filepath")


def check(table: Path, header: Sequence[str], keys: Sequence[str], columns: Columns) -> None:
    """Refuse a table without its columns.

    Args:
        keys: Columns of the tasks.
    Raises:
        DataError: A column is missing, or there twice.
    """
    names = [name for name in header if name]
    renamed = [name for role in OPTIONAL if (name := getattr(columns, role)) != role]
    for name in (columns.file, *keys, *renamed, *columns.ignored):
        if name not in names:
            raise DataError(f"{table}: has no column {name!r}; {_lacking(name, names, columns)}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{table}: has the column {twice[0]!r} twice")


def unclear(header: Sequence[str], keys: Sequence[str], columns: Columns) -> list[str]:
    """A sentence for each unread column whose name says that it holds patients or splits.

    Reading on without it would put a patient's images into several splits, or train on the images
    of a test set. Names alone decide, so that no record has a say in it.
    """
    used = {getattr(columns, role) for role in ("file", *OPTIONAL)}
    found = []
    for name in header:
        if name in {"", *used, *keys, *columns.ignored} or not (role := _looks_like(name)):
            continue
        if (meant := getattr(columns, role)) in header:
            continue  # what it could be is said by another column
        found.append(
            f"unknown column {name!r}. Did you mean {meant!r}? Rename it, or say in site.yaml what "
            f"it is: data: {{columns: {{{role}: {name!r}}}}}, or where it is something else "
            f"{{columns: {{ignored: [{name!r}]}}}}"
        )
    return found


def grouping(names: Sequence[str]) -> list[str]:
    """Columns that may say which images belong together though they name no patient."""
    return [name for name in names if re.fullmatch(_GROUPS, _compact(name))]


_GROUPS = (
    r"(?:study|studies|series|exam|exams|examination|visit|session|accession|encounter|admission|"
    r"hadm|stay|scan|video|clip|eye|slide|specimen|lesion)(?:instance)?" + _ID + r"|id"
)


def _looks_like(name: str) -> str | None:
    """The role that a column seems to have."""
    compact = _compact(name)
    if re.fullmatch(_PATIENTS, compact):
        return "patient"
    if re.fullmatch(_SPLITS, compact):
        return "split"
    return next(iter(get_close_matches(name.lower(), OPTIONAL, n=1, cutoff=0.8)), None)


def _lacking(name: str, names: Sequence[str], columns: Columns) -> str:
    """What there is in place of a column, and what to do."""
    text = (
        f"it has {list(names)}. It needs `{columns.file}` and a column a task, named by the task's "
        "`labels`"
    )
    if name != columns.file:
        return text
    known = {_compact(other): other for other in names}
    like = [known[c] for c in map(_compact, (name, *_FILES)) if c in known]
    if not like:
        return text
    return f"{text}. Rename {like[0]!r}, or write data: {{columns: {{file: {like[0]!r}}}}}"


def _compact(name: str) -> str:
    """Letters and digits alone: `Patient-ID ` is `patientid`."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\W_]", "", plain)
