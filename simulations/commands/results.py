"""The results of a simulation as a table for a terminal, with a line on each column."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from medformer.common.rounding import digits_up, rounded_up

WIDTH = 80
"""Maximum number of columns of a line."""
MIN_CELL = 5
"""Minimum number of columns of a value."""
MAX_NAME = 28
"""Maximum number of columns of a site's name."""
MODELS = {
    "local-heads-only-dp": (
        ("heads", "alone"),
        "only heads, on the features of the public start, each site alone, with the same epsilon",
    ),
    "heads-only-dp": (
        ("heads", "only"),
        "only heads, on the features of the public start, trained together, with the same epsilon",
    ),
    "without-self-supervision-dp": (
        ("without", "self-sup."),
        "this run without the losses that need no labels, with the same epsilon",
    ),
    "without-adaptation-dp": (
        ("without", "adapt."),
        "this run without the losses that adapt to scanners and sites, with the same epsilon",
    ),
    "federated-dp": (
        ("federated", "dp"),
        "this run: the sites trained together under differential privacy",
    ),
    "local-dp": (("local", "dp"), "each site alone, with the same epsilon"),
    "local-plain": (("local", "plain"), "each site alone, without privacy"),
    "federated-plain": (("federated", "plain"), "trained together, without privacy"),
    "centralised-plain": (
        ("centralised", "plain"),
        "one model for the pooled records of sites with the same task, without privacy: the "
        "ceiling",
    ),
}
"""Model -> the two lines that head its column, and what it is; in the order of the columns."""
MAX_MODELS = 5
"""Maximum number of models beside each other; more take another table."""
FITTED = (
    "this site fitted a head of its own after the run, on the released model and {count} labelled "
    "images, without privacy: for its own use; nothing of it leaves, and no ledger counts it"
)
METRICS = {
    "auc": "area under the ROC curve: 1 ranks all images correctly, 0.5 is chance",
    "dice": "overlap of outlined and true area: 1 is perfect, 0 is none",
    "accuracy": "fraction of the images that are given the right class",
}
"""Metric on the test images -> what it says."""
EPSILON = (
    "privacy loss of one {unit} of the site over the whole run, spare rounds included, at delta "
    "{delta}; smaller is more private"
)


def result_table(report: dict[str, Any]) -> str:
    """Return test metrics and epsilons, a line for each site and task.

    A run without baselines has a column for each metric; with baselines there is a table for each
    metric, with a column for each model.

    Args:
        report: What report.json holds.
    """
    results = [r for r in report["results"] if r["split"] == "test"]
    models = [m for m in MODELS if any(r["model"] == m for r in results)]
    tasks = {(r["site"], r["task"]): r["metric"] for r in results if r["metric"] == "dice"}
    # Accuracy of pixels is not accuracy of images: an outlined task has its Dice alone.
    results = [r for r in results if (r["metric"] == "dice") == ((r["site"], r["task"]) in tasks)]
    metrics = [m for m in METRICS if any(r["metric"] == m for r in results)]
    epsilons = {s["name"]: rounded_up(s["epsilon"]) for s in report["sites"]}
    # Reports of earlier versions have no such heads.
    own = [r for r in report.get("fitted_heads", []) if r["split"] == "test"]
    if len(models) == 1:
        columns = [(m, models[0]) for m in metrics]
        blocks = [_block("test images", results, columns, epsilons, own)]
    else:
        # The run itself stands in each part of a table that is too wide, to compare with.
        others = [m for m in models if m != "federated-dp"]
        parts = [others[i : i + MAX_MODELS - 1] for i in range(0, len(others), MAX_MODELS - 1)]
        shown = [[m for m in models if m in part or m == "federated-dp"] for part in parts]
        blocks = [
            _block(f"test {metric}", results, [(metric, m) for m in part], epsilons, own)
            for metric in metrics
            for part in shown
        ]
    return "\n\n".join([*blocks, _legend(report, models, metrics)])


Column = tuple[str, str]
"""Metric and model."""


def _block(
    title: str,
    results: Sequence[dict[str, Any]],
    columns: Sequence[Column],
    epsilons: dict[str, str],
    own: Sequence[dict[str, Any]],
) -> str:
    # With one model its name would head every column and say nothing.
    one_model = len({model for _, model in columns}) == 1
    values = {(r["site"], r["task"], r["metric"], r["model"]): r["value"] for r in results}
    wanted = {metric for metric, _ in columns}
    rows = sorted({(r["site"], r["task"]) for r in results if r["metric"] in wanted})
    # The task is named only where a site has several, to leave room for the site.
    several = len({site for site, _ in rows}) < len(rows)
    heads = [("", metric) if one_model else MODELS[model][0] for metric, model in columns]
    heads.append(("", "epsilon"))
    widths = [max(MIN_CELL, *map(len, head)) + 2 for head in heads]
    lines = []
    if any(top for top, _ in heads):
        lines.append(_line("", [top for top, _ in heads], widths))
    lines.append(_line(title, [low for _, low in heads], widths))
    for site, task in rows:
        cells = [_cell(values.get((site, task, *column))) for column in columns]
        name = f"{site} {task}" if several else site
        lines.append(_line(name, [*cells, epsilons[site]], widths))
    means = [_mean([values.get((*row, *column)) for row in rows]) for column in columns]
    lines.append(_line("mean", [*map(_cell, means), ""], widths))
    # Below the mean, which is of the sites that the run trained.
    fitted = {(r["site"], r["task"], r["metric"], r["model"]): r["value"] for r in own}
    for site, task in sorted({(r["site"], r["task"]) for r in own if r["metric"] in wanted}):
        cells = [_cell(fitted.get((site, task, *column))) for column in columns]
        name = f"{site} {task}" if several else site
        lines.append(_line(f"{name} *", [*cells, "none"], widths))
    return "\n".join(lines)


def _line(name: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    first = min(MAX_NAME, WIDTH - sum(widths))
    row = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{name:<{first}.{first}}{row}".rstrip()


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def _legend(report: dict[str, Any], models: Sequence[str], metrics: Sequence[str]) -> str:
    words = {
        "unit": report["unit"],
        "delta": digits_up(max(s["delta"] for s in report["sites"])),
    }
    entries = [(metric, METRICS[metric]) for metric in metrics]
    # With one model no column bears its name, so that there is nothing to explain.
    if len(models) > 1:
        entries += [(_name(model), MODELS[model][1]) for model in models]
    entries.append(("epsilon", EPSILON))
    if counts := sorted({row["labelled"] for row in report.get("fitted_heads", [])}):
        entries.append(("*", FITTED.replace("{count}", " or ".join(map(str, counts)))))
    width = max(len(name) for name, _ in entries) + 2
    lines: list[str] = []
    for name, text in entries:
        lines += textwrap.wrap(
            text.format(**words), WIDTH, initial_indent=f"{name:<{width}}",
            subsequent_indent=" " * width,
        )  # fmt: skip
    return "\n".join(lines)


def _name(model: str) -> str:
    """Return the two lines of a column's head as one."""
    return " ".join(MODELS[model][0])


def read_report(folder: Path) -> dict[str, Any]:
    """Return report.json of a run folder."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report
