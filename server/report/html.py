"""The report as one HTML page."""

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medformer.common.pages import STYLE
from medformer.common.rounding import exact, percent_up, rounded_down, rounded_up
from server.measures import POOLED
from server.protocol.receipt import COLLUSION, phase_fields
from server.protocol.vouchers import read_vouchers
from server.report import plots
from server.report.numbers import cell, scientific
from server.report.statistics import statistics_section
from server.report.template import TEMPLATE
from server.report.words.phrases import Phrases
from server.run.model_file import MODEL

TABLES = (
    ("table.auc", "auc", False),
    ("table.accuracy", "accuracy", False),
    ("table.dice", "dice", True),
    ("table.pixels", "accuracy", True),
)
"""Key of the title, metric, and True for dense tasks, whose values do not compare with others."""

ATTACK = ("detected", "mu", "lifetime_detected")
"""Fields of a site that say what an attacker could find."""
STATEMENTS = (
    "controllers",
    "contact",
    "purpose",
    "legal_basis",
    "intended_use",
    "region",
    "permit",
    "output_check",
    "name",
    "curators",
    "published",
    "sources",
)
"""Statements of people in a section of their own; the others stand where they belong."""
Row = dict[str, Any]


def render(report: dict[str, Any], images: Mapping[str, bytes] = {}, language: str = "en") -> str:
    """Return the report as one HTML page, which loads nothing and runs no script.

    Every value is escaped, because sites write some of them. Plots are inline SVG. Epsilons and
    deltas are rounded up, so that no shown guarantee is stronger than the computed one.

    Args:
        report: The content of report.json.
        images: File name -> PNG, for the pictures that are to be shown.
        language: `en` or `de`.
    """
    t = Phrases(language, report["unit"])
    # Undefined names are errors: a misspelt field must not look like an empty one.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters(t))
    columns = [m for m in plots.MODELS if any(r["model"] == m for r in report["results"])]
    return environment.from_string(TEMPLATE).render(
        r=report,
        t=t,
        q=t.quoted,
        style=Markup(STYLE),
        **_guarantees(report, t),
        **_results(report, columns, t),
        phase_columns=phase_fields(),
        sent=_sent(report),
        guards=_guards(report),
        rate=partial(_rate, t),
        promise=report.get("promise"),
        about=report.get("about", {}),
        statements=STATEMENTS,
        pictures=[
            {**p, "data": base64.b64encode(images[p["file"]]).decode()}
            for p in report["pictures"]
            # A picture that was deleted is left out.
            if p["file"] in images
        ],
        plots={name: Markup(t.drawn(svg)) for name, svg in _plots(report, columns, t).items()},
    )


def filters(t: Phrases) -> dict[str, Callable[..., Any]]:
    """Return the filters of a page: numbers as its language writes them, and quoted sentences.

    Args:
        t: The texts of the page.
    """

    def shown(write: Callable[..., str]) -> Callable[..., str]:
        return lambda *values: t.number(write(*values))

    return {
        "eps": shown(rounded_up),
        "down": shown(rounded_down),
        "sci": shown(scientific),
        "percent": shown(percent_up),
        "number": shown(exact),
        "share": lambda value: Markup("{}&nbsp;%").format(t.number(exact(100 * value))),
        "third": shown("{:.3f}".format),
        "first": shown("{:.1f}".format),
        "general": shown("{:g}".format),
        "thousands": shown("{:,}".format),
        "cell": lambda value, column: (
            value if isinstance(value, str) else t.number(cell(value, column))
        ),
        "day": t.day,
        "q": t.quoted,
    }


def _guarantees(report: Row, t: Phrases) -> Row:
    """Return what the page says of the sites: costs, steps, and everything that left them."""
    taking_part = [s for s in report["sites"] if s["participated"]]
    phases = [p for s in taking_part for p in s["phases"]]
    return {
        "taking_part": taking_part,
        "cohorts": _cohorts(taking_part),
        "guarantees": _grouped(taking_part, lambda s: {k: s[k] for k in ("epsilon", "delta")}),
        "factor": t.number(_factor(taking_part)),
        "attacks": _grouped(
            [s for s in taking_part if s["detected"]], lambda s: {k: s[k] for k in ATTACK}
        ),
        "collusion": _grouped(
            [s for s in taking_part if s["colluders"]], lambda s: {k: s[k] for k in COLLUSION}
        ),
        "shared_noise": any(p["honest"] > 1 for p in phases),
        # To these each site adds all of the noise, also where training shares it.
        "own_counts": sorted({p["name"] for p in phases if p["honest"] == 1 and p["steps"]}),
        "bar": partial(_bar, t),
        "accountants": _grouped(
            taking_part, lambda s: [(s["accountant"], s["epsilon"]), *map(tuple, s["others"])]
        ),
        "mechanisms": _grouped(taking_part, lambda s: s["phases"]),
        "egress": _grouped(
            report["sites"],
            lambda s: {"released": _items(s["released"]), "not_covered": s["not_covered"]},
        ),
    }


def _results(report: Row, columns: Sequence[str], t: Phrases) -> Row:
    """Return what the page says of the model."""
    return {
        "columns": columns,
        "tables": _tables(report, columns),
        "even": _even(report, t),
        "statistics": statistics_section(report, t),
        "pooled": POOLED,
        "place": lambda site: t("measured.all") if site == POOLED else site,
        "output_name": lambda row: plots.output_name(row, t),
        "judged": [row for row in plots.headline(report) if row["calibration"]],
    }


def _even(report: Row, t: Phrases) -> list[Row]:
    """Return lowest and highest value over the sites, of each metric and task of several sites."""
    values: dict[str, dict[str, float]] = {}
    for row in report["measurement"]["figures"] if report.get("measurement") else []:
        if row["auc"] and row["site"] != POOLED:
            name = f"AUC ({plots.output_name(row, t)})"
            values.setdefault(name, {})[row["site"]] = row["auc"]["value"]
    for metric, title in (("auc", "AUC"), ("dice", "Dice")):
        for row in plots.scores(report, metric):
            if row["model"] == "federated-dp":
                values.setdefault(f"{title} ({row['task']})", {})[row["site"]] = row["value"]
    found = []
    for name, by_site in values.items():
        if len(by_site) > 1:
            low, high = min(by_site, key=by_site.__getitem__), max(by_site, key=by_site.__getitem__)
            found.append({"metric": name, "low": by_site[low], "low_site": low,
                          "high": by_site[high], "high_site": high})  # fmt: skip
    return found


def _rate(t: Phrases, text: str) -> str:
    """Return the factor of the averaged update in words or as a number."""
    return str(t(f"rate.{text}")) if text in ("sites", "sqrt-sites") else t.number(text)


def _sent(report: dict[str, Any]) -> int:
    """Return the number of trained rounds in which sites sent anything."""
    done = sent = 0
    for phase in report["schedule"]:
        trained = min(phase["rounds"], max(0, report["rounds"] - done))
        sent += trained if phase["sends"] else 0
        done += phase["rounds"]
    return sent


def _items(released: Iterable[Row]) -> list[Row]:
    """Join the items that are the same in words, such as the site's name in every answer."""
    joined: dict[tuple[str, str, bool], list[str]] = {}
    for item in released:
        key = item["what"], item["mechanism"], item["covered"]
        joined.setdefault(key, []).append(item["name"])
    return [
        {"what": what, "names": names, "mechanism": mechanism, "covered": covered}
        for (what, mechanism, covered), names in joined.items()
    ]


def _guards(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return site and fingerprint of each guard that has signed its receipt."""
    found = []
    for site, one in sorted(read_vouchers(report["vouchers"]).items()):
        try:
            found.append((site, one.fingerprint))
        except ValueError:  # not a key: `verify` says so
            continue
    return found


def _cohorts(sites: Iterable[Row]) -> list[tuple[str, list[str]]]:
    """Return file and sites of each kind's model; nothing where all sites share one model."""
    grouped = _grouped(sites, lambda s: s["model_file"])
    # A run that asks for statistics makes no model.
    return [(file, names) for names, file in grouped if file not in (None, MODEL)]


def _plots(report: dict[str, Any], columns: Sequence[str], t: Phrases) -> dict[str, str]:
    """Draw the plots: name -> SVG, empty where there is nothing to draw."""
    # A deployment has no exact loss, so it gets no plot of losses.
    exact = any(row["exact_loss"] is not None for row in report["training"])
    return {
        "epsilon": plots.epsilon_by_round(report, t),
        "curve": plots.privacy_curve(report, t),
        "attack": plots.best_attack(report, t),
        "auc": plots.scores_by_task(report, "auc", t),
        "dice": plots.scores_by_task(report, "dice", t),
        "measured": plots.measured_auc(report, t),
        "losses": plots.losses(report, t) if exact else "",
    }


def _factor(sites: Iterable[Row]) -> str:
    """Return the largest e^epsilon of the run, with few digits."""
    # exp overflows at 710; whatever is above 50 protects nobody.
    largest = math.exp(min(50.0, max((s["epsilon"] for s in sites), default=0.0)))
    return f"{largest:.1f}" if largest < 100 else f"{largest:,.0f}"


def _bar(t: Phrases, site: Row) -> Row:
    """Return the shares of the lifetime budget, for a bar: earlier runs and this run, in per cent.

    Under a Renyi filter all runs fill the budget together, so this run has no share of its own.
    """
    # Divergences add up under this rule, not epsilons.
    if site["rule"] == "rdp":
        used = percent_up(site["budget_used"], 0)
        return {
            "earlier": used.split()[0],
            "run": 0,
            "words": t("budget.filter", used=t.number(used)),
        }
    budget, spent = site["epsilon_budget"], site["epsilon_lifetime"]
    # Never more than all runs together, whatever the files hold.
    run = min(site["epsilon"], spent)
    left = max(0.0, budget - spent)
    shares = {"earlier": 100 * (spent - run) / budget, "run": 100 * run / budget}
    return {
        **{name: f"{min(100.0, share):.2f}" for name, share in shares.items()},
        "words": t(
            "budget.spent",
            spent=t.number(percent_up(spent / budget, 0)),
            left=t.number(rounded_down(left)),
        ),
    }


def _grouped(sites: Iterable[Row], part: Callable[[Row], Any]) -> list[tuple[list[str], Any]]:
    """Group the sites with an equal part, so that a table says it once; the order is kept."""
    groups: list[tuple[list[str], Any]] = []
    for site in sites:
        value = part(site)
        # Parts are dicts, which cannot be keys.
        for names, known in groups:
            if known == value:
                names.append(site["name"])
                break
        else:
            groups.append(([site["name"]], value))
    return groups


def _tables(report: Row, columns: Sequence[str]) -> list[tuple[str, Row]]:
    """Return title and content of the tables that have a row."""
    every = [(title, _table(report, metric, dense, columns)) for title, metric, dense in TABLES]
    return [(title, table) for title, table in every if table["rows"]]


def _table(report: Row, metric: str, dense: bool, columns: Sequence[str]) -> Row:
    """Return one row per site and task, and the mean of each column over its values."""
    # A task with a Dice overlap is a dense one; its accuracy counts pixels.
    outlines = {(r["site"], r["task"]) for r in report["results"] if r["metric"] == "dice"}
    rows = [
        r for r in plots.scores(report, metric) if ((r["site"], r["task"]) in outlines) == dense
    ]
    values = {(r["site"], r["task"], r["model"]): r["value"] for r in rows}
    places = plots.places(report, rows)
    # Over the rows that have a value: baselines may lack some.
    means = []
    for column in columns:
        known = [values[(*place, column)] for place in places if (*place, column) in values]
        mean = sum(known) / len(known) if known else None
        means.append({"value": mean, "count": len(known)})
    return {
        "rows": [(*place, [values.get((*place, c)) for c in columns]) for place in places],
        "means": means,
        "of": "sites" if len({site for site, _ in places}) == len(places) else "tasks",
    }
