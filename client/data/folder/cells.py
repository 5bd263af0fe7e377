"""Cells of labels.csv -> the class, labels or number that they mean. T labels of a task."""

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor

from client.data.errors import Unusable
from medformer.config import UNLABELLED, Task

MISSING = frozenset({"", "na", "n/a", "nan", "<na>", "null", "nat"})
"""Words, in lower case, that programs write for a missing value. `None` is not among them: as a
label it may mean that there is no finding."""
NOBODY = MISSING | {"none", "-", "--", "?", "unknown"}
"""Words, in lower case, that mean that a patient's id is missing."""
NO_FINDING = frozenset({"no finding", "no findings"})
"""Multi-label cells meaning that none of the labels is present (ChestX-ray14, CheXpert)."""
_TRUE = {"true": 1, "yes": 1, "false": 0, "no": 0}
MASKS = ": store the number of each pixel's class (a mask of 0 and 255 as 0 and 1)"


def truth(
    task: Task, cell: str, classes: Sequence[str], masked: Callable[[str, str], Tensor]
) -> Tensor:
    """Convert a cell to what the task needs: a class (), labels (T,) or a mask.

    Args:
        task: The task.
        cell: The text of the cell.
        classes: Declared names of the labels 0, 1, ...; empty where they are numbers.
        masked: (cell, where) -> int64 mask of the image's shape; `where` begins messages.
    Raises:
        Unusable: The cell has no meaning for the task.
    """
    where = f"task {task.name}"
    if task.kind == "dense":
        values = masked("" if cell.casefold() in MISSING else cell, where)
    elif task.kind == "multi-label":
        values = torch.tensor(_several(task, cell, classes, where))
    else:
        values = torch.tensor(_label(cell, classes, where, binary=task.kind == "binary-class"))
    highest = 1 if task.kind == "multi-label" else task.classes - 1
    low, high = int(values.min()), int(values.max())
    # A label outside of the task would be trained as another class, or crash the loss.
    if low < UNLABELLED or high > highest:
        wrong = high if high > highest else low
        # The usual cause in a mask: 255 for white, as drawing programs store it.
        hint = MASKS if task.kind == "dense" else ""
        raise Unusable(f"{where}: labels must be 0 to {highest}, got {wrong}{hint}")
    return values


def spacing(cells: Sequence[str], *, comma: bool) -> tuple[float, float] | None:
    """Return the distances between pixels along H and W that the table states, or None.

    Args:
        cells: Two cells, in the unit of the domain's spacing.
        comma: True if `0,5` is a half, as in tables with semicolons.
    Raises:
        Unusable: A cell is not a positive number.
    """
    # Both empty means unknown; one of them alone is a mistake.
    if all(cell.casefold() in MISSING for cell in cells):
        return None
    try:
        height, width = (float(_with_point(cell, comma=comma)) for cell in cells)
    except ValueError:
        height = width = math.nan
    if not all(math.isfinite(v) and v > 0 for v in (height, width)):
        raise Unusable(f"spacing must be two positive numbers such as 0.5, got {list(cells)}")
    return height, width


def patient(cell: str) -> str:
    """Return the patient's id, or "" where the cell names no patient.

    Args:
        cell: The text of the cell.
    Raises:
        Unusable: A spreadsheet has turned it into an error or a rounded number, so that several
            patients may have become one.
    """
    if cell.casefold() in NOBODY:
        return ""
    # Errors such as #N/A would make one patient of many.
    if cell.startswith("#") and cell.rstrip("!?").upper() in _SPREADSHEET:
        raise Unusable(f"its patient {cell!r} is an error of a spreadsheet: write the id")
    # Excel shows long numbers as 1.23E+11, and saves only these digits.
    if re.fullmatch(r"\d([.,]\d+)?[eE]\+?\d+", cell):
        raise Unusable(
            f"its patient {cell!r} is a number that a spreadsheet has rounded: export the column "
            "as text"
        )
    return cell


_SPREADSHEET = frozenset({"#N/A", "#REF", "#VALUE", "#NAME", "#DIV/0", "#NUM", "#NULL", "#####"})


def _with_point(cell: str, *, comma: bool) -> str:
    """Return a number with a decimal point."""
    if comma and re.fullmatch(r"-?\d+,\d+", cell):
        return cell.replace(",", ".")
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", cell):
        raise ValueError(cell)  # float() would take 1_000, and digits of other scripts
    return cell


def _label(cell: str, classes: Sequence[str], where: str, *, binary: bool = False) -> int:
    """Return the number of a declared class, or a whole number, which some tools write as `1.0`."""
    # Names come first: a class may be called `1`.
    if (known := named(cell, classes)) is not None:
        return known
    if cell.casefold() in MISSING:
        return UNLABELLED
    if re.fullmatch(r"-?[0-9]{1,9}([.,]0*)?", cell):
        return int(re.split("[.,]", cell)[0])
    # Only a binary task has an obvious meaning of yes and no.
    if binary and cell.casefold() in _TRUE:
        return _TRUE[cell.casefold()]
    raise Unusable(
        f"{where}: {cell!r} is neither a whole number nor a declared class{_nearest(cell, classes)}"
    )


def named(name: str, classes: Sequence[str]) -> int | None:
    """Return the number of a declared class, or None.

    Case, spaces and the encoding of accents are ignored, unless two classes differ in nothing else.

    Args:
        name: The text of a cell, or the name of a folder.
        classes: Declared names of the labels 0, 1, ....
    """
    if name in classes:
        return classes.index(name)
    # NFC: macOS and Linux encode the same accent differently.
    alike = [i for i, own in enumerate(classes) if _plain(own) == _plain(name)]
    return alike[0] if len(alike) == 1 else None


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def _several(task: Task, cell: str, classes: Sequence[str], where: str) -> list[int]:
    """Parse T numbers (`1 0 1`, `[1, 0, 1]`), or the names of the labels present
    (`edema|effusion`).
    """
    parts = _parts(cell, classes)
    if not parts and cell.casefold() in MISSING:
        return [UNLABELLED] * task.classes
    if not parts:
        raise Unusable(
            # An empty list could mean either, and the two are opposite labels.
            f"{where}: {cell!r} may be no finding or no answer: write `No Finding` or nothing"
        )
    if all(part.casefold() in _TRUE and named(part, classes) is None for part in parts):
        parts = [str(_TRUE[part.casefold()]) for part in parts]  # as numpy and pandas write flags
    if all(re.fullmatch(r"-?[0-9]{1,9}(\.0*)?", part) for part in parts):
        if len(parts) != task.classes:
            raise Unusable(f"{where}: needs {task.classes} numbers with spaces, got {cell!r}")
        return [int(float(part)) for part in parts]
    if not classes:
        raise Unusable(
            f"{where}: {cell!r} is not {task.classes} numbers with spaces: write them so, or "
            "declare the names of the labels as data.classes"
        )
    # Names can only be counted off against labels if there are as many.
    if len(classes) != task.classes:
        raise Unusable(
            f"{where}: {cell!r} names labels, but data.classes has {len(classes)} names and the "
            f"task {task.classes} labels: write {task.classes} numbers with spaces"
        )
    found = [named(part, classes) for part in parts]
    if len(parts) == 1 and found[0] is None and parts[0].casefold() in NO_FINDING:
        return [0] * task.classes
    if unknown := [part for part, known in zip(parts, found, strict=True) if known is None]:
        raise Unusable(
            f"{where}: {unknown[0]!r} is not a declared class{_nearest(unknown[0], classes)}: "
            "write names of data.classes with `|` between them, `No Finding`, or numbers"
        )
    # A name twice is more likely a slip for another label than an emphasis.
    if len(set(found)) < len(found):
        raise Unusable(f"{where}: names a label twice, got {cell!r}")
    return [int(i in found) for i in range(task.classes)]


def _parts(cell: str, classes: Sequence[str]) -> list[str]:
    """Split a multi-label cell into its parts; empty where nothing is known."""
    # A class's name may itself hold a comma or a slash.
    if named(cell, classes) is not None or cell.casefold() in NO_FINDING:
        return [cell]
    if cell.casefold() in MISSING:
        return []
    inner = re.sub(r"^[\[({](.*)[\])}]$", r"\1", cell, flags=re.DOTALL)
    mark = next((mark for mark in "|;,/" if mark in inner), None)
    parts = [part.strip().strip("'\"") for part in (inner.split(mark) if mark else inner.split())]
    # Without a delimiter, words may be one name of several words.
    if not mark and all(named(part, classes) is None for part in parts):
        whole = inner.strip().strip("'\"")
        if named(whole, classes) is not None or whole.casefold() in NO_FINDING:
            return [whole]
    return parts


def _nearest(name: str, classes: Sequence[str]) -> str:
    """Return a hint: the nearest declared class, or how to declare them."""
    if not classes:
        return ": write 0, 1, ..., or declare the names of the labels 0, 1, ... as data.classes"
    lower = {own.casefold(): own for own in classes}
    close = get_close_matches(name.casefold(), lower, n=1)
    return f" (did you mean {lower[close[0]]!r}?)" if close else ""
