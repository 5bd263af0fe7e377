"""The page with the tables of utility.json and of the file of differences, written by program."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from simulations.benchmarks.model.tables import distinct, grid, shown
from simulations.benchmarks.utility.settings import SETTINGS

Row = Mapping[str, Any]

HEAD = """# Utility under differential privacy

Written by `python -m simulations.benchmarks.utility --data-root DATA --out
docs/results/utility.json --markdown FILE` from [utility.json](results/utility.json), whose rows
name recipe, seed and commit: each is what `... --test --sets SET --settings SETTING --epsilons
EPSILON --seeds SEED --recipes RECIPE` adds to that file; SET is any MedMNIST set whose file lies in
DATA. AUC of the {split} images, mean over
seeds, with the standard deviation over seeds in brackets. Delta is {delta:g}; `plain`
is the ceiling without privacy. Where `tuning` says `not-covered`, epsilon does not
cover the choice of the recipe by the validation images of the set.
"""
NOTE = """Differences of test AUC with paired seeds, and the middle 95 % of resamples of seeds and
test images. Where `seeds` has an asterisk, the scores of the images are gone: the interval is
Student's over the seeds, with the test images as fixed. `better recipe`: the recipe or heads only,
whichever has the higher validation AUC.
`gain`: the lower end is above 0. `no worse`: it is above -0.02. `few seeds`: fewer than three,
so that the interval covers the test images alone. Resamples
of five seeds vary less than new seeds would, so these intervals are too narrow where
seeds matter more than images. All seeds begin from one public start. Skewed labels are
divided anew with each seed, so `site-1` is another hospital in each."""


def markdown(
    rows: Sequence[Row], differences: Sequence[Row], delta: float, sizes: Mapping[str, str]
) -> str:
    """Return the whole page.

    Args:
        rows: The rows of utility.json. The page shows test AUC if every row has it, otherwise
            validation AUC.
        differences: The rows of the file of differences.
        delta: Delta of each site.
        sizes: Set -> a sentence on the number of its images.
    """
    # One column for all rows: test and validation AUC must not be mixed.
    tested = all(row["auc"] is not None for row in rows)
    metric = "auc" if tested else "validation_auc"
    # A joint trial has a row for each set, but took its time once.
    hours = sum({_trial(row): row["seconds"] for row in rows}.values()) / 3600
    commits = ", ".join(f"`{c}`" for c in sorted({row["commit"] for row in rows}))
    parts = [
        HEAD.format(split="test" if tested else "validation", delta=delta),
        f"Commits: {commits}. One core for {hours:.1f} hours, pauses of older rows included.\n",
    ]
    for dataset in sorted({row["dataset"] for row in rows}):
        own = [row for row in rows if row["dataset"] == dataset]
        about = f"Tuning: {own[0]['tuning']}. {sizes[dataset]}"
        parts.append(f"## {dataset}\n\n{about}\n\n{_table(own, metric)}\n")
        if any("dice" in row for row in own):
            dice = "dice" if tested else "validation_dice"
            parts.append(f"Dice of the outlines:\n\n{_table(own, dice)}\n")
    if differences:
        parts.append(f"## Differences\n\n{NOTE}\n\n{_differences(differences)}\n")
    return "\n".join(parts)


def _trial(row: Row) -> tuple[Any, ...]:
    """Return the key of a row's trial, which may have several rows."""
    return row["trial"], row["setting"], row["recipe"], row["epsilon"], row["seed"]


def _table(rows: Sequence[Row], metric: str) -> str:
    """Return a table with a line for each setting and recipe, and a column for each epsilon."""
    epsilons = sorted({r["epsilon"] for r in rows if r["epsilon"] is not None}, reverse=True)
    columns = [*epsilons, None]
    names = [s for s in SETTINGS if any(r["setting"] == s for r in rows)]
    body = []
    for setting in names:
        own = [r for r in rows if r["setting"] == setting]
        for recipe in distinct(own, "recipe"):
            of = [r for r in own if r["recipe"] == recipe]
            cells = [
                _value([r[metric] for r in of if r["epsilon"] == e and r[metric] is not None])
                for e in columns
            ]
            seeds = len({r["seed"] for r in of})
            body.append([setting, f"`{recipe}`", *cells, str(seeds)])
    heads = [*(f"epsilon {e:g}" for e in epsilons), "plain"]
    return grid(["setting", "recipe", *heads, "seeds"], body)


def _value(found: Sequence[float]) -> str:
    """Return mean and standard deviation over seeds, or a dash."""
    if not found:
        return "–"
    return shown(statistics.mean(found), statistics.stdev(found) if len(found) > 1 else None)


def _differences(rows: Sequence[Row]) -> str:
    """Return the table of differences."""
    body = [
        [
            row["dataset"], f"{row['epsilon']:g}", f"{row['ours']} – {row['theirs']}", row["site"],
            f"{row['mean']:+.3f}", f"{row['lower']:+.3f} to {row['upper']:+.3f}",
            f"{row['pairs']}{'*' if 'interval' in row else ''}", row["verdict"],
        ]
        for row in rows
    ]  # fmt: skip
    return grid(["set", "epsilon", "settings", "site", "mean", "95 %", "seeds", "verdict"], body)
