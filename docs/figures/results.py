"""Writes the tables of results in README.md and docs/results/summary.md from docs/results/*.json.

    python docs/figures/results.py

Each table stands between two comments that name it. A test compares the pages with the files.
Values are means over seeds; a dash means that nothing was measured.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cells import (
    HEADS,
    Rows,
    better,
    cell,
    found,
    gain,
    gain_of_shares,
    gain_over_alone,
    line,
)

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
OUTLINES = (
    "steps=30 local_steps=3 expected_batch_size=256 learning_rate=.5 noise_floor=null "
    "heads_first=0 heads_last=0 server_learning_rate=1 average_last=.3 momentum=.5"
)
"""The phases of the scenario `segmentation`; it has another momentum at the sites."""
SSL = (
    "ssl_steps=150 ssl_batch_size=2048 ssl_objectives.orientation=1 ssl_objectives.inpainting=.5 "
    "ssl_noise_floor=1e-7"
)
SIXTY = "heads_only=true steps=60"
MOMENTS = f"{SIXTY} ssl_steps=8 ssl_batch_size=1024 ssl_objectives.moments=1"
ROWS = (
    ("one site, without privacy", "central-plain", CEILING),
    ("one site, epsilon 8", "central-dp", "default"),
    ("four sites, epsilon 8", "federated-dp", "default"),
    ("four sites that share the noise, epsilon 8", "secure-dp", "default"),
    ("each alone, epsilon 8", "local-dp", "default"),
    ("four sites, heads only, epsilon 8", "federated-dp", HEADS),
    ("each alone, heads only, epsilon 8", "local-dp", HEADS),
    ("four sites, epsilon 8, Flower's Opacus example", "flower-opacus", EXAMPLE),
    ("four sites, labels skewed (Dirichlet .3)", "federated-dp-skew", "default"),
    ("each alone, labels skewed", "local-dp-skew", "default"),
    ("five kinds of image, one encoder, epsilon 8", "modalities-dp", "alone_last=.4"),
)
BREADTH = (
    *((words, dataset, "", "default") for dataset, words in SETS.items()),
    ("adrenal gland, CT volumes", "adrenalmnist3d", "", "default"),
    ("the same at 64 voxels", "adrenalmnist3d", "-64", "default"),
    ("chest X-ray, four images a patient", "pneumoniamnist", "-patients", "default"),
    ("blood cells, four images a patient", "bloodmnist", "-patients", "default"),
)
"""Words, set, what follows the names of its settings, and recipe."""
Way = tuple[str, str]
"""A setting and a recipe."""
PARTS: tuple[tuple[str, Way, Way], ...] = (
    ("concepts", ("federated-dp", "concepts=false"), ("federated-dp", "default")),
    ("a model for each kind, ten sites", ("ten-sites-local-dp", HEADS),
     ("ten-sites-dp", "together_first=0")),
    ("rescanned images, unseen scanner", ("unseen-scanner-dp", "default"),
     ("unseen-scanner-dp", "objectives.supervised=1 objectives.rescanned=1")),
    ("half of the images rescanned, unseen scanner", ("unseen-scanner-dp", "default"),
     ("unseen-scanner-dp", "objectives.half_rescanned=1")),
    ("self-supervision, one label in ten, one site", ("few-labels-only-dp", "default"),
     ("few-labels-dp", SSL)),
    ("self-supervision, one label in ten, four sites", ("few-labels-sites-dp", SIXTY),
     ("few-labels-sites-dp", MOMENTS)),
    ("natural features, one site", ("central-dp", "default"), ("central-dp", "features=natural")),
    ("natural features, four sites", ("federated-dp", "default"),
     ("federated-dp", "features=natural")),
)  # fmt: skip
"""Words, and how sites train without the part and with it."""


def _rows(name: str) -> list[dict[str, Any]]:
    return list(json.loads((RESULTS / name).read_text())["rows"])


def in_short() -> str:
    """Return the table of the README: what four sites gain over each site alone, with intervals."""
    rows, differences = _rows("utility.json"), _rows("utility_differences.json")
    lines = [
        "| test AUC | local only | federated | gain, 95 % interval | shared noise | pooled "
        "| pooled, no DP |",
        "|---|---|---|---|---|---|---|",
    ]
    for dataset, words in SETS.items():
        cells = [
            cell(better(rows, dataset, "local-dp")),
            cell(better(rows, dataset, "federated-dp")),
            gain_over_alone(rows, differences, dataset),
            cell(better(rows, dataset, "secure-dp")),
            cell(better(rows, dataset, "central-dp")),
            cell(found(rows, dataset, "central-plain", CEILING)),
        ]
        lines.append(line([words, *cells]))
    return "\n".join(lines)


def cost_of_noise() -> str:
    """Return the table of the summary: every measured setting on every set."""
    rows = _rows("utility.json")
    lines = [f"| | {' | '.join(SETS.values())} |", "|---" * (len(SETS) + 1) + "|"]
    for words, setting, recipe in ROWS:
        cells = [cell(found(rows, dataset, setting, recipe)) for dataset in SETS]
        if set(cells) != {"–"}:
            lines.append(line([words, *cells]))
    return "\n".join(lines)


def smaller_epsilons() -> str:
    """Return the table of each alone and four sites at three epsilons, with their differences."""
    rows, differences = _rows("utility.json"), _rows("utility_differences.json")
    lines = [f"| epsilon | | {' | '.join(SETS.values())} |", "|---" * (len(SETS) + 2) + "|"]
    for epsilon in (8.0, 3.0, 1.0):
        for words, setting in (("each alone", "local-dp"), ("four sites", "federated-dp")):
            cells = [cell(better(rows, d, setting, epsilon=epsilon)) for d in SETS]
            lines.append(line([f"{epsilon:g}", words, *cells]))
        gains = [gain_over_alone(rows, differences, d, epsilon=epsilon) for d in SETS]
        lines.append(line([f"{epsilon:g}", "gain", *gains]))
        shared = [cell(better(rows, d, "secure-dp", epsilon=epsilon)) for d in SETS]
        if set(shared) == {"–"}:
            continue
        lines.append(line([f"{epsilon:g}", "four sites that share the noise", *shared]))
        over = [gain_of_shares(rows, differences, d, epsilon) for d in SETS]
        lines.append(line([f"{epsilon:g}", "gain over four sites", *over]))
    return "\n".join(lines)


def breadth() -> str:
    """Return the table of measured sets and units: each alone, four sites, one site, no privacy."""
    rows, differences = _rows("utility.json"), _rows("utility_differences.json")
    lines = [
        "| test AUC | recipe chosen on it | each alone | four sites | gain, 95 % interval "
        "| one site | one site, no DP |",
        "|---" * 7 + "|",
    ]
    for words, dataset, behind, recipe in BREADTH:
        own = [row for row in rows if row["dataset"] == dataset]
        # Rows without privacy do not depend on the unit.
        plain = "central-plain-64" if behind == "-64" else "central-plain"
        cells = [
            {"public": "no", "not-covered": "yes"}.get(own[0]["tuning"], "–") if own else "–",
            cell(better(rows, dataset, f"local-dp{behind}", recipe)),
            cell(better(rows, dataset, f"federated-dp{behind}", recipe)),
            gain_over_alone(rows, differences, dataset, behind),
            cell(better(rows, dataset, f"central-dp{behind}", recipe)),
            cell(found(rows, dataset, plain, CEILING)),
        ]
        # Images without privacy have no unit, so that their cell alone says nothing of it.
        if set(cells[1:-1]) != {"–"}:
            lines.append(line([words, *cells]))
    return "\n".join(lines)


def parts() -> str:
    """Return the table of what each part brings: test AUC without it and with it."""
    rows, differences = _rows("utility.json"), _rows("utility_differences.json")
    lines = ["| part | set | without | with | gain, 95 % interval |", "|---" * 5 + "|"]
    for words, without, within in PARTS:
        for dataset, image in SETS.items():
            before, after = (
                better(rows, dataset, setting) if recipe == HEADS
                else found(rows, dataset, setting, recipe)
                for setting, recipe in (without, within)
            )  # fmt: skip
            if before and after:
                brought = _brought(differences, dataset, without, within) or "–"
                lines.append(line([words, image, cell(before), cell(after), brought]))
    return "\n".join(lines)


def _brought(differences: Rows, dataset: str, without: Way, within: Way) -> str | None:
    """Return the difference that a part makes, in whichever direction it was recorded."""
    (old, recipe), (new, line) = without, within
    if old != new:
        return gain(differences, dataset, new, f"{old}, better recipe" if recipe == HEADS else old)
    known = gain(differences, dataset, f"{new}: {line}", f"{old}: {recipe}")
    turned = [
        {**row, "ours": row["theirs"], "theirs": row["ours"], "mean": -row["mean"],
         "lower": -row["upper"], "upper": -row["lower"]}
        for row in differences
    ]  # fmt: skip
    return known or gain(turned, dataset, f"{new}: {line}", f"{old}: {recipe}")


def outlines() -> str:
    """Return the table of the task per pixel: two phantom sites, each alone and together."""
    rows = _rows("utility.json")
    lines = ["| | Dice | AUC of the lesion's class |", "|---|---|---|"]
    for words, setting in (
        ("each alone, epsilon 8", "outlines-local-dp"),
        ("two sites, epsilon 8", "outlines-dp"),
        ("each alone, without privacy", "outlines-local-plain"),
        ("two sites, without privacy", "outlines-plain"),
    ):
        if own := found(rows, "phantom-outlines", setting, OUTLINES):
            lines.append(line([words, cell(own, "dice"), cell(own)]))
    return "\n".join(lines) if len(lines) > 2 else "Nothing is measured yet."


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "results": ("README.md", in_short),
    "cost-of-noise": ("docs/results/summary.md", cost_of_noise),
    "smaller-epsilons": ("docs/results/summary.md", smaller_epsilons),
    "breadth": ("docs/results/summary.md", breadth),
    "parts": ("docs/results/summary.md", parts),
    "outlines": ("docs/results/summary.md", outlines),
}
"""Name of each table -> its page, and the function that makes it."""


def block(name: str) -> re.Pattern[str]:
    """Return the pattern of the table called `name`: opening comment, table, closing comment."""
    return re.compile(rf"(<!-- {name}: [^\n]* -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)


def main() -> None:
    """Write every table into its page."""
    for name, (page, table) in TABLES.items():
        file, made = ROOT / page, table()
        new = block(name).sub(lambda m, made=made: f"{m[1]}{made}\n{m[3]}", file.read_text())
        file.write_text(new)


if __name__ == "__main__":
    main()
