"""Reads JSON that somebody may have made to mislead."""

import json
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from server.report.files import ReportError
from simulations.verification.findings import Finding, wrong

UNREADABLE = (
    ArithmeticError,
    AttributeError,
    KeyError,
    IndexError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""Errors that a file of the wrong form can raise, wherever it is read."""


def strict_json(text: str | bytes) -> Any:
    """Parse JSON that has one meaning for every reader.

    Readers differ in which value they take of a key that is there twice. A number with more digits
    than float64 holds would be changed without a trace.

    Args:
        text: The JSON.
    Raises:
        ValueError: It is no JSON, nested too deeply, has a key twice, or a number that is not
            finite or has digits that its value does not have.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_float=_exact, parse_constant=_exact)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has the key {twice!r} twice")
    return found


def _exact(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or Decimal(text) != Decimal(repr(value)):
        raise ValueError(f"has the number {text[:40]}, whose digits are not those of a float64")
    return value


def read_report(path: Path) -> dict[str, Any]:
    """Read report.json.

    Args:
        path: The file.
    Raises:
        ReportError: It is no report.
    """
    try:
        found = strict_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: cannot be read as a report ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("sites"), list):
        raise ReportError(f"{path}: is not the report of a run")
    return found


def examined(what: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """Return what a look finds; a part that cannot be read is wrong, and ends nothing else.

    Args:
        what: The part, in words.
        look: Examines it.
    """
    try:
        return look()
    except UNREADABLE as error:
        return [wrong(f"{what}: cannot be read ({type(error).__name__}: {str(error)[:200]})")]
