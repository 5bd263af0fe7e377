"""The measured points from which `fedmedformer plan` estimates an AUC."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from client.data import medmnist, npz
from simulations.benchmarks.utility.rows import Row
from simulations.benchmarks.utility.settings import SETTINGS

SHOWN = ("central-dp", "local-dp", "federated-dp", "central-plain")
"""Settings in which one site holds a data set, or several sites share it evenly."""


def curves(
    rows: Sequence[Row], recipes: Sequence[str], data_root: Path | None
) -> Iterator[dict[str, Any]]:
    """Average the seeds of each data set, number of sites and epsilon.

    Args:
        rows: The rows of the result file.
        recipes: The lines whose rows count. Of several, the first with which a point was measured
            is used.
        data_root: Folder of MedMNIST files, for the numbers of records.
    Yields:
        A point for each data set, number of sites, number of records a site, and epsilon.
    """
    points: dict[tuple[Any, ...], list[Row]] = {}
    for recipe in recipes:
        own: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in rows:
            # Validation AUC chose the recipe, so only test AUC is an honest estimate.
            if row["setting"] in SHOWN and row["auc"] is not None and row["recipe"] == recipe:
                own[row["dataset"], row["setting"], row["epsilon"]].append(row)
        # Points of earlier recipes stay.
        points = own | points
    for (dataset, name, epsilon), own in sorted(points.items(), key=str):
        setting = SETTINGS[name]
        count = npz.count(medmnist.find(dataset, 28, data_root), "train")
        yield {
            "dataset": dataset,
            "sites": setting.shared_by if setting.together else 1,
            # Rounded up, as the largest site of an even division.
            "records": -(-count // setting.shared_by),
            "epsilon": epsilon,
            "auc": round(statistics.mean(row["auc"] for row in own), 4),
            "seeds": len(own),
            "commits": sorted({row["commit"] for row in own}),
        }
