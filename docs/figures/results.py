"""Writes the tables of results in README.md and docs/results/summary.md from docs/results/*.json.

    python docs/figures/results.py

Each table stands between two comments that name it. A test compares the pages with the files.
"""

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
SETS = {
    "bloodmnist": "blood cells",
    "organamnist": "abdominal CT",
    "pneumoniamnist": "chest X-ray",
    "pathmnist": "histology",
    "breastmnist": "breast ultrasound",
}
CEILING = (
    "optimizer=adamw steps=1500 expected_batch_size=64 learning_rate=.002 heads_first=0 "
    "heads_last=0"
)
EXAMPLE = "steps=300 expected_batch_size=256 learning_rate=.5"
ROWS = (
    ("one site, without privacy", "central-plain", CEILING),
    ("one site, epsilon 8", "central-dp", "default"),
    ("four sites, epsilon 8", "federated-dp", "default"),
    ("each alone, epsilon 8", "local-dp", "default"),
    ("four sites, epsilon 8, Flower's Opacus example", "flower-opacus", EXAMPLE),
    ("four sites, labels skewed (Dirichlet .3)", "federated-dp-skew", "default"),
    ("each alone, labels skewed", "local-dp-skew", "default"),
    ("five kinds of image, one encoder, epsilon 8", "modalities-dp", "alone_last=.4"),
)
Row = Mapping[str, Any]


def _rows(name: str) -> list[dict[str, Any]]:
    return list(json.loads((RESULTS / name).read_text())["rows"])


def _auc(rows: Sequence[Row], dataset: str, setting: str, recipe: str) -> str:
    """Return the mean test AUC over all seeds at epsilon 8, or without privacy; a dash if none."""
    found = [
        row["auc"]
        for row in rows
        if (row["dataset"], row["setting"], row["recipe"]) == (dataset, setting, recipe)
        and row["epsilon"] in (8.0, None)
    ]
    return _short(statistics.mean(found)) if found else "–"


def _short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("0.", ".", 1)


def in_short() -> str:
    """Return the table of the README: what four sites gain over each site alone, with intervals."""
    rows, differences = _rows("utility.json"), _rows("utility_differences.json")
    lines = [
        "| test AUC | local only | federated | gain, 95 % interval | pooled | pooled, no DP |",
        "|---|---|---|---|---|---|",
    ]
    for dataset, words in SETS.items():
        (gain,) = (
            row
            for row in differences
            if (row["dataset"], row["ours"], row["theirs"], row["site"], row["epsilon"])
            == (dataset, "federated-dp", "local-dp", "mean", 8.0)
        )
        cells = [
            _auc(rows, dataset, "local-dp", "default"),
            _auc(rows, dataset, "federated-dp", "default"),
            f"{_signed(gain['mean'])} ({_signed(gain['lower'])} to {_signed(gain['upper'])})",
            _auc(rows, dataset, "central-dp", "default"),
            _auc(rows, dataset, "central-plain", CEILING),
        ]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_of_noise() -> str:
    """Return the table of the summary: every setting on every set."""
    rows = _rows("utility.json")
    lines = [f"| | {' | '.join(SETS.values())} |", "|---" * (len(SETS) + 1) + "|"]
    for words, setting, recipe in ROWS:
        cells = [_auc(rows, dataset, setting, recipe) for dataset in SETS]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "README.md": ("results", in_short),
    "docs/results/summary.md": ("cost-of-noise", cost_of_noise),
}


def block(name: str) -> re.Pattern[str]:
    """Return the pattern of the table called `name`: opening comment, table, closing comment."""
    return re.compile(rf"(<!-- {name}: [^\n]* -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)


def main() -> None:
    """Write every table into its page."""
    for page, (name, table) in TABLES.items():
        file, made = ROOT / page, table()
        new = block(name).sub(lambda m, made=made: f"{m[1]}{made}\n{m[3]}", file.read_text())
        file.write_text(new)


if __name__ == "__main__":
    main()
