"""The better of two ways to train with the same records: the recipe, or heads only."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from simulations.benchmarks.utility.rows import Row


def better(
    rows: Sequence[Row], recipes: Sequence[str], epsilon: float
) -> dict[str, tuple[str, ...]]:
    """Choose the better of a setting's recipe and heads only by its validation images.

    Args:
        rows: Rows of one data set.
        recipes: The lines to choose from: the first with which a setting was measured, and all that
            train nothing but heads on the usual features.
        epsilon: Epsilon of the private settings.
    Returns:
        Setting -> its lines, the better ones first, over the seeds that all of the lines have.
        A setting with a recipe alone has no choice and is left out; one with heads only alone is
        in, because nothing else was measured where the noise is large.
    """
    own: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    heads: set[str] = set()
    for line in recipes:
        for row in rows:
            if (row["recipe"], row["epsilon"]) != (line, epsilon):
                continue
            known = own[row["setting"]]
            if not known or line in known or _heads_only(row["meaning"]):
                known[line][row["seed"]] = row["validation_auc"]
                if _heads_only(row["meaning"]):
                    heads.add(line)
    chosen = {}
    for setting, lines in own.items():
        seeds = set.intersection(*(set(values) for values in lines.values()))
        if seeds and (len(lines) > 1 or set(lines) <= heads):
            means = {line: sum(values[s] for s in seeds) for line, values in lines.items()}
            chosen[setting] = tuple(sorted(means, key=lambda line: -means[line]))
    return chosen


def _heads_only(meaning: Mapping[str, Any]) -> bool:
    """Tell whether a recipe trains nothing but heads on the usual features."""
    return bool(meaning.get("heads_only")) and "features" not in meaning
