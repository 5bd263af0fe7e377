"""ROC curves of runs, and their means over classes, test sets and seeds."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from simulations.comparing.student import spread

FILE = "roc.json"
"""File of a run folder that holds the curves of its final models."""
ALL = "all"
"""Used in place of a site's name for the mean over all test sets."""
SHOWN_AT = (0.05, 0.1, 0.2)
"""False-positive rates at which tables show the sensitivity."""
Place = tuple[str, str]
"""(site, task)."""


class RocCurve(NamedTuple):
    """The curve of a class against all others, or of a label, on a site's test images."""

    site: str
    task: str
    output: str
    """Name of the class or label."""
    auc: float | None
    """Area under the curve; None where no image, or every image, shows the class."""
    false_positive_rates: list[float]
    sensitivities: list[float] | None
    """The largest of any threshold at each false-positive rate."""


@dataclass(frozen=True)
class Roc:
    """The curves of one run."""

    grid: tuple[float, ...]
    """False-positive rates, ascending."""
    curves: Mapping[Place, Sequence[float]]
    """(site, task) -> sensitivity at each of them: the mean over classes or labels."""
    prints: Mapping[Place, str]
    """(site, task) -> fingerprint of the test set."""


class OperatingPoint(NamedTuple):
    """The sensitivity of a group at a false-positive rate."""

    group: int
    site: str
    """Name of a site, or `all`: the mean over test sets."""
    task: str
    false_positive_rate: float
    sensitivity: float
    """Mean over classes and seeds."""
    low: float | None
    """Lower end of Student's interval over seeds; None for a single seed."""
    high: float | None
    """Upper end of Student's interval over seeds; None for a single seed."""
    seeds: int


def _content(folder: Path) -> dict[str, Any]:
    file = folder / FILE
    if not file.exists():  # an earlier version made the run
        return {"grid": [], "curves": [], "tests": []}
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def roc_curves(folder: Path) -> list[RocCurve]:
    """Return the curve of every class and label of a run.

    Args:
        folder: The run folder.
    """
    content = _content(folder)
    return [
        RocCurve(row["site"], row["task"], row["output"], row["auc"], content["grid"], row["rates"])
        for row in content["curves"]
    ]


def read_roc(folder: Path) -> Roc:
    """Read the curves of a run; none where an earlier version made it.

    Args:
        folder: The run folder.
    """
    content = _content(folder)
    by_place: dict[Place, list[Sequence[float] | None]] = defaultdict(list)
    for row in content["curves"]:
        by_place[row["site"], row["task"]].append(row["rates"])
    # A mean over the classes that have a curve would be another measure where one has none.
    curves = {
        place: _mean(known)
        for place, own in by_place.items()
        if len(known := [rates for rates in own if rates is not None]) == len(own)
    }
    prints = {(row["site"], row["task"]): row["sha256"] for row in content["tests"]}
    return Roc(tuple(content["grid"]), curves, prints)


def _mean(curves: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(column) for column in zip(*curves, strict=True)]


def curve_of(run: Any, places: Sequence[Place]) -> list[float]:
    """Return the curve of a run: the mean over sites of a test set, then over test sets.

    Args:
        run: The run, a `Trained`.
        places: The (site, task) that count; those without a curve are left out.
    """
    by_set: dict[str, list[Sequence[float]]] = defaultdict(list)
    for place in places:
        if place in run.roc.curves:
            by_set[run.tests[place]].append(run.roc.curves[place])
    return _mean([_mean(own) for own in by_set.values()])


def mean_curve(group: Any, places: Sequence[Place]) -> list[float]:
    """Return the curve of a group: the mean over its seeds.

    Args:
        group: The group.
        places: The (site, task) that count.
    """
    return _mean([curve_of(run, places) for run in group.runs])


def places_of(groups: Sequence[Any]) -> dict[int, list[Place]]:
    """Return the (site, task) of each group whose curve no run lacks that has the site.

    Args:
        groups: Groups of runs.
    """
    runs = [run for group in groups for run in group.runs]
    lacking = {
        place for run in runs for place in run.tests if place not in run.roc.curves
    }  # fmt: skip
    return {
        group.number: sorted(place for place in group.runs[0].roc.curves if place not in lacking)
        for group in groups
    }


def operating_points(groups: Sequence[Any]) -> Iterator[OperatingPoint]:
    """Yield the sensitivities of each group at `SHOWN_AT`: over all test sets, then by site.

    Args:
        groups: Groups of runs.
    """
    places = places_of(groups)
    for group in groups:
        own = places[group.number]
        parts = [((ALL, ""), own), *((place, [place]) for place in own)] if own else []
        for name, part in parts:
            curves = [curve_of(run, part) for run in group.runs]
            for rate in SHOWN_AT:
                at = group.runs[0].roc.grid.index(rate)
                values = spread([curve[at] for curve in curves])
                yield OperatingPoint(group.number, *name, rate, *values)
