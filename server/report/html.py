"""The report as one HTML page."""

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined

from server.report import plots
from server.report.template import TEMPLATE

METRICS = {"auc": "test AUC", "accuracy": "test accuracy"}


def render(report: dict[str, Any]) -> str:
    """Self-contained HTML; every value is escaped, plots are inline SVG."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    columns = [m for m in plots.MODELS if any(r["model"] == m for r in report["results"])]
    sites = report["sites"]
    exact = any(row["exact_loss"] is not None for row in report["training"])
    drawn = {
        "epsilon": plots.epsilon_by_round(sites),
        "auc": plots.auc_by_site(report["results"]) if columns else "",
        "losses": plots.losses(report["training"]) if exact else "",
    }
    return environment.from_string(TEMPLATE).render(
        r=report,
        taking_part=[s for s in sites if s["participated"]],
        retrained=[s for s in sites if any(t["attempt"] for t in _rows(report, s["name"]))],
        share=_share,
        plots=drawn,
        released=_grouped(sites),
        not_covered=list(dict.fromkeys(text for s in sites for text in s["not_covered"])),
        columns=columns,
        tables=[(title, _table(report["results"], m, columns)) for m, title in METRICS.items()],
    )


def _rows(report: dict[str, Any], site: str) -> list[dict[str, Any]]:
    return [row for row in report["training"] if row["site"] == site]


def _share(site: dict[str, Any]) -> int:
    """Per cent of the lifetime epsilon that is spent, rounded up."""
    return min(100, -int(-100 * site["epsilon_lifetime"] // site["epsilon_budget"]))


def _grouped(sites: Sequence[dict[str, Any]]) -> list[tuple[list[str], list[dict[str, Any]]]]:
    """Sites with the same list of released items together."""
    groups: list[tuple[list[str], list[dict[str, Any]]]] = []
    for site in sites:
        for names, items in groups:
            if items == site["released"]:
                names.append(site["name"])
                break
        else:
            groups.append(([site["name"]], site["released"]))
    return groups


def _table(
    results: Sequence[dict[str, Any]], metric: str, columns: Sequence[str]
) -> list[tuple[str, list[float | None]]]:
    """A row a site and a last one with the means."""
    values = {
        (r["site"], r["model"]): r["value"]
        for r in results
        if r["metric"] == metric and r["split"] == "test"
    }
    names = sorted({site for site, _ in values})
    rows = [(name, [values.get((name, c)) for c in columns]) for name in names]
    means: list[float | None] = []
    for column in columns:
        known = [v for n in names if (v := values.get((n, column))) is not None]
        means.append(sum(known) / len(known) if known else None)
    return [*rows, ("mean", means)]
