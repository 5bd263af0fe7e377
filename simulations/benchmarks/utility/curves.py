"""The measured points from which `fedmedformer plan` estimates an AUC."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from client.data import medmnist, npz
from simulations.benchmarks.utility.better import better
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
            is used, or one that trains heads only where validation images prefer it, as the
            recipe of the product does where the noise is large.
        data_root: Folder of MedMNIST files, for the numbers of records.
    Yields:
        A point for each data set, number of sites, number of records a site, and epsilon.
    """
    # Validation AUC chose the recipe, so only test AUC is an honest estimate.
    shown = [row for row in rows if row["setting"] in SHOWN and row["auc"] is not None]
    cells: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in shown:
        cells[row["dataset"], row["setting"], row["epsilon"]].append(row)
    for (dataset, name, epsilon), cell in sorted(cells.items(), key=str):
        lines = recipes if epsilon is None else better(cell, recipes, epsilon).get(name, recipes)
        own = next(filter(None, ([r for r in cell if r["recipe"] == line] for line in lines)), [])
        if not own:
            continue
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
