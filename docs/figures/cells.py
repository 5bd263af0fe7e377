"""The cells of the tables of results: means over seeds, and differences with their intervals."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

HEADS = "heads only"
"""Used in place of a recipe: the better of the measured recipes that train nothing but heads."""
BETTER = ", better recipe"
"""Follows the name of a setting that is measured with the better of recipe and heads only."""
FEWEST_PAIRS = 3
"""A difference from fewer pairs of seeds is not shown, and fewer seeds choose no recipe."""
USUAL_SEEDS = 5
"""A cell that has fewer seeds names their number."""
Row = Mapping[str, Any]
Rows = Sequence[Row]


def found(
    rows: Rows, dataset: str, setting: str, recipe: str, epsilon: float | None = 8.0
) -> list[Row]:
    """Return the rows of a cell that have a test AUC, at this epsilon or without privacy.

    Args:
        rows: The rows of utility.json.
        dataset: The set.
        setting: The setting.
        recipe: A recipe line, or `HEADS`.
        epsilon: Epsilon of a private setting.
    """
    own = [
        row
        for row in rows
        if (row["dataset"], row["setting"]) == (dataset, setting)
        and row["epsilon"] in (epsilon, None)
        and row["auc"] is not None
    ]
    if recipe != HEADS:
        return [row for row in own if row["recipe"] == recipe]
    heads = [row for row in own if is_heads_only(row)]
    return _best(
        [[r for r in heads if r["recipe"] == line] for line in {r["recipe"] for r in heads}]
    )


def is_heads_only(row: Row) -> bool:
    """Tell whether a row's recipe trains nothing but heads, on the usual features."""
    meaning = row["meaning"]
    return bool(meaning.get("heads_only")) and meaning.get("features") is None


def better(
    rows: Rows, dataset: str, setting: str, recipe: str = "default", epsilon: float = 8.0
) -> list[Row]:
    """Return the rows of the recipe or those of heads only, whichever validation images prefer."""
    lines = (recipe, HEADS)
    return _best([found(rows, dataset, setting, line, epsilon) for line in lines])


def _best(choices: Sequence[list[Row]]) -> list[Row]:
    """Return the rows with the highest mean validation AUC over the seeds that all have."""
    enough = min(FEWEST_PAIRS, max(map(len, choices), default=0))
    # A seed or two do not replace what more seeds have measured.
    able = [rows for rows in choices if rows and len(rows) >= enough]
    if not able:
        return []
    seeds = set.intersection(*({row["seed"] for row in rows} for rows in able))
    # Without a common seed nothing can be compared: the recipe stays.
    if not seeds:
        return able[0]
    return max(
        able,
        key=lambda rows: statistics.mean(r["validation_auc"] for r in rows if r["seed"] in seeds),
    )


def cell(rows: Rows, metric: str = "auc") -> str:
    """Return the mean over seeds, and their number where they are few; a dash if there are none."""
    values = [row[metric] for row in rows if row.get(metric) is not None]
    if not values:
        return "–"
    few = f" ({len(values)})" if len(values) < USUAL_SEEDS else ""
    return short(statistics.mean(values)) + few


def short(value: float) -> str:
    """Return a value between 0 and 1 with three digits and no zero before the point."""
    return f"{value:.3f}".replace("0.", ".", 1)


def signed(value: float) -> str:
    """Return a difference with its sign, as `short` writes it."""
    return f"{value:+.3f}".replace("0.", ".", 1)


def gain(
    differences: Rows, dataset: str, ours: str, theirs: str, epsilon: float = 8.0
) -> str | None:
    """Return a difference with its interval, or None if fewer than three seeds measured it."""
    for row in differences:
        names = (row["dataset"], row["ours"], row["theirs"], row["site"], row["epsilon"])
        if names == (dataset, ours, theirs, "mean", epsilon) and row["pairs"] >= FEWEST_PAIRS:
            lower, upper = signed(row["lower"]), signed(row["upper"])
            over_seeds = "*" if "interval" in row else ""
            return f"{signed(row['mean'])} ({lower} to {upper}){over_seeds}"
    return None


def gain_over_alone(
    rows: Rows, differences: Rows, dataset: str, behind: str = "", epsilon: float = 8.0
) -> str:
    """Return what four sites gain over each site alone, both with their better recipe, or a dash.

    Args:
        rows: The rows of utility.json.
        differences: The rows of utility_differences.json.
        dataset: The set.
        behind: What follows the names of the settings.
        epsilon: Epsilon of each site.
    """
    ours, alone = f"federated-dp{behind}", f"local-dp{behind}"
    pairs = [(f"{ours}{BETTER}", f"{alone}{BETTER}")]
    # Where the recipe is the better one, both names mean the same difference, and that of the
    # recipe's rows may have been taken over test images, too. Where heads only are better, it
    # would be another one.
    if not any(map(is_heads_only, better(rows, dataset, ours, epsilon=epsilon))):
        pairs.insert(0, (ours, f"{alone}{BETTER}"))
        if not any(map(is_heads_only, better(rows, dataset, alone, epsilon=epsilon))):
            pairs.insert(0, (ours, alone))
    known = [gain(differences, dataset, *pair, epsilon) for pair in pairs]
    return next((found for found in known if found), "–")


def gain_of_shares(rows: Rows, differences: Rows, dataset: str, epsilon: float) -> str:
    """Return what four sites gain that share the noise, both with their better recipe, or a dash.

    Args:
        rows: The rows of utility.json.
        differences: The rows of utility_differences.json.
        dataset: The set.
        epsilon: Epsilon of each site.
    """
    pairs = [(f"secure-dp{BETTER}", f"federated-dp{BETTER}")]
    chosen = [
        better(rows, dataset, name, epsilon=epsilon) for name in ("secure-dp", "federated-dp")
    ]
    # As in `gain_over_alone`.
    if not any(is_heads_only(row) for own in chosen for row in own):
        pairs.insert(0, ("secure-dp", "federated-dp"))
    known = [gain(differences, dataset, *pair, epsilon) for pair in pairs]
    return next((found for found in known if found), "–")


def line(cells: Sequence[str]) -> str:
    """Return a line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"
