"""The report as one HTML page."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from server.report import plots
from server.report.numbers import rounded_up, scientific
from server.report.template import STYLE, TEMPLATE

METRICS = {"auc": "Test AUC", "accuracy": "Test accuracy"}

Row = dict[str, Any]


def render(report: dict[str, Any]) -> str:
    """Self-contained HTML without scripts.

    Every value is escaped; plots are inline SVG; epsilons and deltas are rounded up, so that no
    shown guarantee is stronger than the computed one.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(eps=rounded_up, sci=scientific)
    sites, results = report["sites"], report["results"]
    columns = [m for m in plots.MODELS if any(r["model"] == m for r in results)]
    taking_part = [s for s in sites if s["participated"]]
    return environment.from_string(TEMPLATE).render(
        r=report,
        style=Markup(STYLE),
        taking_part=taking_part,
        guarantees=_grouped(taking_part, lambda s: {k: s[k] for k in ("epsilon", "delta")}),
        factor=_factor(taking_part),
        bar=_bar,
        mechanisms=_grouped(taking_part, lambda s: s["phases"]),
        egress=_grouped(sites, lambda s: {k: s[k] for k in ("released", "not_covered")}),
        columns=columns,
        tables=[(title, _table(report, metric, columns)) for metric, title in METRICS.items()],
        tasks={r["site"]: r["task"] for r in results},
        plots={name: Markup(svg) for name, svg in _plots(report, columns).items()},
    )


def _plots(report: dict[str, Any], columns: Sequence[str]) -> dict[str, str]:
    """SVG by name; empty where there is nothing to draw."""
    exact = any(row["exact_loss"] is not None for row in report["training"])
    return {
        "epsilon": plots.epsilon_by_round(report),
        "auc": plots.auc_by_site(report) if columns else "",
        "losses": plots.losses(report) if exact else "",
    }


def _factor(sites: Iterable[Row]) -> str:
    """The largest e^epsilon of the run, in words that a reader can take in."""
    largest = math.exp(min(50.0, max((s["epsilon"] for s in sites), default=0.0)))
    return f"{largest:.1f}" if largest < 100 else f"{largest:,.0f}"


def _bar(site: Row) -> Row:
    """Shares of the lifetime budget in per cent: earlier runs, this run; and what is left."""
    budget, spent = site["epsilon_budget"], site["epsilon_lifetime"]
    run = min(site["epsilon"], spent)
    shares = {"earlier": 100 * (spent - run) / budget, "run": 100 * run / budget}
    return {
        **{name: f"{min(100.0, share):.2f}" for name, share in shares.items()},
        "spent": math.ceil(100 * spent / budget - 1e-9),
        "left": max(0.0, math.floor(1000 * (budget - spent)) / 1000),
    }


def _grouped(sites: Iterable[Row], part: Callable[[Row], Any]) -> list[tuple[list[str], Any]]:
    """Names of sites with an equal part together, in the order of the sites."""
    groups: list[tuple[list[str], Any]] = []
    for site in sites:
        value = part(site)
        for names, known in groups:
            if known == value:
                names.append(site["name"])
                break
        else:
            groups.append(([site["name"]], value))
    return groups


def _table(report: Row, metric: str, columns: Sequence[str]) -> Row:
    """A row a site, and the mean of each column over the sites that have a value."""
    values = {
        (r["site"], r["model"]): r["value"]
        for r in report["results"]
        if r["metric"] == metric and r["split"] == "test" and r["value"] is not None
    }
    known_sites = {site for site, _ in values}
    names = [s["name"] for s in report["sites"] if s["name"] in known_sites]
    means = []
    for column in columns:
        known = [values[name, column] for name in names if (name, column) in values]
        mean = sum(known) / len(known) if known else None
        means.append({"value": mean, "sites": len(known)})
    return {
        "rows": [(name, [values.get((name, c)) for c in columns]) for name in names],
        "means": means,
    }
