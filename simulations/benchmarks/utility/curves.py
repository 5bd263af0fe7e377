"""From rows to the curves that `fedmedformer plan` reads its estimate off."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from client.data import medmnist, npz
from simulations.benchmarks.utility.settings import SETTINGS, SITES
from simulations.benchmarks.utility.trials import Row

SHOWN = ("central-dp", "local-dp", "federated-dp", "central-plain")
"""Settings of a data set that sites share evenly, or that one has."""


def curves(
    rows: Sequence[Row], recipes: Sequence[str], data_root: Path | None
) -> Iterator[dict[str, Any]]:
    """A point a data set, number of sites, records of each and epsilon: the mean over seeds.

    Args:
        recipes: The lines whose rows count; the first that a point was measured with makes it.
    """
    points: dict[tuple[Any, ...], list[Row]] = {}
    for recipe in recipes:
        own: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in rows:
            if row["setting"] in SHOWN and row["auc"] is not None and row["recipe"] == recipe:
                own[row["dataset"], row["setting"], row["epsilon"]].append(row)
        points = own | points
    for (dataset, name, epsilon), own in sorted(points.items(), key=str):
        setting = SETTINGS[name]
        count = npz.count(medmnist.find(dataset, 28, data_root), "train")
        yield {
            "dataset": dataset,
            "sites": SITES if setting.divided and setting.together else 1,
            "records": -(-count // SITES) if setting.divided else count,
            "epsilon": epsilon,
            "auc": round(statistics.mean(row["auc"] for row in own), 4),
            "seeds": len(own),
            "commits": sorted({row["commit"] for row in own}),
        }
