"""Estimates the test AUC that a site may expect, from what the utility benchmark measured.

It is an estimate and no promise: data sets differ more than recipes do. `measured.json` is written
by `python -m simulations.benchmarks.utility ... --curves simulations/expected/measured.json`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MEASURED = Path(__file__).parent / "measured.json"
BEYOND = 1.5
"""Factor by which records or epsilon may lie outside the measured range and still be estimated."""

Row = Mapping[str, Any]
"""`dataset`, `sites` that train together, `records` of each, `epsilon` or null, `auc`."""


@dataclass(frozen=True)
class Expected:
    """The expected test AUC of a site with so many records at one epsilon."""

    lowest: float
    highest: float
    """Largest AUC of the data sets measured near these numbers; `lowest` is the smallest."""
    price: tuple[float, float]
    """Smallest and largest gain in AUC of the same model without privacy, trained at one site with
    all records of a set."""
    sets: tuple[str, ...]


def measured() -> list[Row]:
    """Return the measurements that come with the package, or nothing if there are none."""
    if not MEASURED.exists():
        return []
    rows: list[Row] = json.loads(MEASURED.read_text())["rows"]
    return rows


def expected(
    rows: Sequence[Row], records: int, epsilon: float, *, together: bool
) -> Expected | None:
    """Return the range over data sets, each read off its own curves.

    Args:
        rows: Measurements of the utility benchmark.
        records: Number of records that the site declares.
        epsilon: Epsilon of the run.
        together: Whether other sites with such images take part.

    Returns:
        The range, or None if no data set was measured near these numbers.
    """
    found: dict[str, tuple[float, float]] = {}
    for dataset in sorted({row["dataset"] for row in rows}):
        # One curve a data set: a mean would hide that sets differ by more than epsilon does.
        own = [r for r in rows if r["dataset"] == dataset]
        ceiling = [r["auc"] for r in own if r["epsilon"] is None and r["sites"] == 1]
        private = [r for r in own if r["epsilon"] is not None and (r["sites"] > 1) == together]
        value = _read_off(private, records, epsilon)
        if value is not None and ceiling:
            found[dataset] = value, max(ceiling) - value
    if not found:
        return None
    values, prices = zip(*found.values(), strict=True)
    return Expected(min(values), max(values), (min(prices), max(prices)), tuple(found))


def _read_off(rows: Sequence[Row], records: int, epsilon: float) -> float | None:
    """Interpolate AUC linearly in the logarithms of records and epsilon; None outside the range."""
    levels = []
    for count in sorted({row["records"] for row in rows}):
        curve = sorted((r["epsilon"], r["auc"]) for r in rows if r["records"] == count)
        epsilons, values = zip(*curve, strict=True)
        if _near(epsilon, epsilons):
            at = float(np.interp(math.log(epsilon), np.log(epsilons), values))
            levels.append((count, at))
    if not levels or not _near(records, [count for count, _ in levels]):
        return None
    counts, at_counts = zip(*levels, strict=True)
    return float(np.interp(math.log(records), np.log(counts), at_counts))


def _near(value: float, known: Sequence[float]) -> bool:
    return min(known) / BEYOND <= value <= max(known) * BEYOND
