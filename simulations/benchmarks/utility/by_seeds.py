"""Differences between settings where the scores of the test images are gone: from seeds alone."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simulations.benchmarks.utility.settings import SETTINGS
from simulations.benchmarks.utility.stats import Difference
from simulations.comparing.student import spread

FEWEST = 3
"""Smallest number of pairs for an interval."""
Row = Mapping[str, Any]
Means = dict[str, dict[int, float]]
"""Setting -> seed -> test AUC, the mean over sites."""


def means(rows: Iterable[Row], recipes: Sequence[str], epsilon: float) -> Means:
    """Collect test AUC by setting, for the first recipe with which each was measured.

    Args:
        rows: Rows of one data set.
        recipes: Recipe lines, in order of preference.
        epsilon: Epsilon of the private settings.
    """
    own: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in rows:
        wanted = epsilon if SETTINGS[row["setting"]].private else None
        if row["epsilon"] == wanted and row["auc"] is not None:
            own[row["setting"], row["recipe"]][row["seed"]] = row["auc"]
    found: Means = {}
    for recipe in recipes:
        found = {s: seeds for (s, line), seeds in own.items() if line == recipe} | found
    return found


def difference_of(ours: Mapping[int, float], theirs: Sequence[Mapping[int, float]]) -> Difference:
    """Return the difference of paired seeds with Student's interval over them.

    The test images count as fixed: the interval says how other seeds would come out on the same
    images, and is too narrow for other patients.

    Args:
        ours: Seed -> AUC.
        theirs: The same of the settings whose mean is compared.
    Raises:
        ValueError: Fewer than `FEWEST` seeds are common to all.
    Source: Student 1908, doi:10.1093/biomet/6.1.1.
    """
    seeds = sorted(set(ours).intersection(*theirs))
    if len(seeds) < FEWEST:
        raise ValueError(f"{len(seeds)} seeds in common: an interval needs {FEWEST}")
    gaps = [ours[s] - statistics.mean(side[s] for side in theirs) for s in seeds]
    mean, lower, upper, pairs = spread(gaps)
    # There is more than one seed.
    assert lower is not None
    assert upper is not None
    return Difference(mean, lower, upper, pairs)
