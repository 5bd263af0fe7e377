"""Rows of the result file: a trial's means over the sites that it judges."""

import statistics
from collections.abc import Mapping
from typing import Any

from simulations.benchmarks import record
from simulations.benchmarks.utility.settings import TUNED_ON

Row = dict[str, Any]
IN_DOMAIN = "in-domain "
"""Prefix of the name of a site that trained, where another site is judged: its AUC is a column of
its own, and its scores are kept beside those of the judged site."""


def row_of(
    facts: Mapping[str, Any], found: Mapping[str, list[Row]], seconds: float, dataset: str
) -> Row:
    """Make a data set's row of the result file from the rows of its sites.

    Args:
        facts: The trial: set, setting, recipe and its meaning, epsilon, seed.
        found: Site -> rows {split, metric, value}. The names of sites that trained while another
            one is judged begin with `IN_DOMAIN`.
        seconds: Processor time of the trial.
        dataset: The set of these sites.
    """
    within = {k.removeprefix(IN_DOMAIN): v for k, v in found.items() if k.startswith(IN_DOMAIN)}
    judged = {k: v for k, v in found.items() if not k.startswith(IN_DOMAIN)}
    return {
        **facts,
        "dataset": dataset,
        "trial": facts["dataset"],
        "tuning": "not-covered" if dataset in TUNED_ON else "public",
        "auc": _mean(judged, "test", "auc"),
        "accuracy": _mean(judged, "test", "accuracy"),
        "validation_auc": _mean(judged, "val", "auc"),
        **_dice(judged),
        "auc_by_site": _by_site(judged, "test"),
        **(_in_domain(within) if within else {}),
        "seconds": seconds,
        "commit": record.commit(),
    }


def _dice(judged: Mapping[str, list[Row]]) -> Row:
    """Return the columns of outlines; few rows have a dense task."""
    if (validated := _mean(judged, "val", "dice")) is None:
        return {}
    return {"dice": _mean(judged, "test", "dice"), "validation_dice": validated}


def _in_domain(within: Mapping[str, list[Row]]) -> Row:
    """Return the columns of the sites that trained, where another site is judged."""
    return {
        "in_domain_auc": _mean(within, "test", "auc"),
        "in_domain_validation_auc": _mean(within, "val", "auc"),
        "in_domain_auc_by_site": _by_site(within, "test"),
        "in_domain_validation_auc_by_site": _by_site(within, "val"),
    }


def _mean(found: Mapping[str, list[Row]], split: str, metric: str) -> float | None:
    """Return the mean of a metric over the sites that have one."""
    values = [
        r["value"] for rows in found.values() for r in rows
        if (r["split"], r["metric"]) == (split, metric) and r["value"] is not None
    ]  # fmt: skip
    return round(statistics.mean(values), 5) if values else None


def _by_site(found: Mapping[str, list[Row]], split: str) -> dict[str, float | None]:
    """Return each site's AUC on a split that was read."""
    return {
        name: None if r["value"] is None else round(r["value"], 5)
        for name, rows in sorted(found.items())
        for r in rows
        if (r["split"], r["metric"]) == (split, "auc")
    }


def said(row: Row) -> str:
    """Return a row's validation AUC as text."""
    within = row.get("in_domain_validation_auc")
    beside = "" if within is None else f" (in-domain {within:.4f})"
    return f"{row['dataset']} {row['validation_auc']:.4f}{beside}"
