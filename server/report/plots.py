"""Plots of the report as inline SVG, the same bytes for the same report."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from medformer.common.pages import COLOURS, LINE, SOFT
from medformer.common.rounding import rounded_up
from server.measures import POOLED
from server.report.drawing import look as _look
from server.report.drawing import plot as _plot
from server.report.drawing import short as _short
from server.report.drawing import svg as _svg
from server.report.words.phrases import Phrases

MODELS = (
    "federated-dp",
    "local-heads-only-dp",
    "heads-only-dp",
    "without-self-supervision-dp",
    "without-adaptation-dp",
    "local-dp",
    "local-plain",
    "federated-plain",
    "centralised-plain",
)
Report = dict[str, Any]


def epsilon_by_round(report: Report, t: Phrases | None = None) -> str:
    """Draw the running epsilon of each site, and the guarantee as a dashed line.

    Args:
        report: The content of report.json.
        t: Texts of the page; English ones if left out.
    Returns:
        SVG; empty for a run without rounds.
    """
    if not report["schedule"]:
        return ""
    t = t or Phrases("en", report["unit"])
    equal: dict[tuple[Any, ...], list[str]] = {}
    for site in report["sites"]:  # equal plans draw one line
        if site["participated"]:
            points = tuple((round_, value) for round_, value in site["progress"])
            equal.setdefault((site["epsilon"], points), []).append(site["name"])
    labels = ["\n".join(textwrap.wrap(", ".join(names), 100)) for names in equal.values()]
    with _plot(3.3, labels) as (figure, axes):
        # No site took part: an empty plot with an axis.
        top = max((epsilon for epsilon, _ in equal), default=1.0)
        axes.set_ylim(0, 1.08 * top)
        # Guarantees that are close would be written over each other.
        heights = _apart([epsilon for epsilon, _ in equal], 0.075 * top)
        for i, (epsilon, points) in enumerate(equal):
            look = _look(i)
            rounds, values = [p[0] for p in points], [p[1] for p in points]
            axes.plot(rounds, values, markersize=4, label=labels[i], **look)
            axes.axhline(epsilon, color=look["color"], linestyle=(0, (6, 3)), linewidth=1.3)
            if points:
                # The dotted line shows what the spare rounds cost.
                axes.vlines(rounds[-1], values[-1], epsilon, color=look["color"], linestyle=":")
            said = t.plain("plot.guarantee", epsilon=rounded_up(epsilon))
            axes.annotate(
                said, (1.01, heights[i]), va="center",
                xycoords=("axes fraction", "data"), color=look["color"], annotation_clip=False,
            )  # fmt: skip
        _mark_phases(axes, report["schedule"])
        axes.set_xlabel(t.plain("plot.round"))
        axes.set_ylabel(t.plain("plot.so-far"))
        return _svg(figure, "epsilon", t.plain("plot.epsilon"))


def privacy_curve(report: Report, t: Phrases | None = None) -> str:
    """Draw the epsilon of each site's run at every delta.

    Args:
        report: The content of report.json.
        t: Texts of the page; English ones if left out.
    Returns:
        SVG; empty if no receipt holds a curve.
    """
    t = t or Phrases("en", report["unit"])
    equal: dict[tuple[Any, ...], list[str]] = {}
    for site in report["sites"]:  # equal plans draw one line
        if points := tuple((delta, value) for delta, value in site["curve"]):
            equal.setdefault((points, site["delta"], site["epsilon"]), []).append(site["name"])
    if not equal:
        return ""
    labels = ["\n".join(textwrap.wrap(", ".join(names), 100)) for names in equal.values()]
    with _plot(2.6, labels) as (figure, axes):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:.0e}")  # the plots read no TeX
        for i, (points, delta, epsilon) in enumerate(equal):
            look = _look(i)
            deltas, values = [p[0] for p in points], [p[1] for p in points]
            axes.plot(deltas, values, markersize=3, label=labels[i], **look)
            # The pair that is charged need not be a point of the curve.
            axes.plot([delta], [epsilon], markersize=9, **{**look, "linestyle": "none"})
        axes.set_ylim(bottom=0)
        axes.set_xlabel(t.plain("plot.delta"))
        axes.set_ylabel(t.plain("plot.of-one"))
        return _svg(figure, "curve", t.plain("plot.curve"))


def best_attack(report: Report, t: Phrases | None = None) -> str:
    """Draw what the best attack on each site's run finds at every rate of false alarms.

    Args:
        report: The content of report.json.
        t: Texts of the page; English ones if left out.
    Returns:
        SVG; empty if no receipt holds it.
    """
    t = t or Phrases("en", report["unit"])
    equal: dict[tuple[Any, ...], list[str]] = {}
    for site in report["sites"]:  # equal plans draw one line
        if points := tuple((alarms, found) for alarms, found in site["roc"]):
            equal.setdefault(points, []).append(site["name"])
    if not equal:
        return ""
    labels = ["\n".join(textwrap.wrap(", ".join(names), 100)) for names in equal.values()]
    with _plot(2.6, labels) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=SOFT, linestyle=":", linewidth=1.2)
        for i, points in enumerate(equal):
            look = {**_look(i), "marker": ""}
            axes.plot([p[0] for p in points], [p[1] for p in points], label=labels[i], **look)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        axes.set_xlabel(t.plain("plot.alarms"))
        axes.set_ylabel(t.plain("plot.found"))
        return _svg(figure, "attack", t.plain("plot.attack"))


def scores(report: Report, metric: str) -> list[Report]:
    """Return the test results of one metric that have a value.

    Args:
        report: The content of report.json.
        metric: `auc`, `accuracy` or `dice`.
    """
    return [
        r
        for r in report["results"]
        if r["split"] == "test" and r["metric"] == metric and r["value"] is not None
    ]


def places(report: Report, rows: Sequence[Report]) -> list[tuple[str, str]]:
    """Return each (site, task) of some results once.

    Args:
        report: The content of report.json, whose order of sites is kept.
        rows: Results.
    """
    order = [site["name"] for site in report["sites"]]
    found = dict.fromkeys((r["site"], r["task"]) for r in rows if r["site"] in order)
    return sorted(found, key=lambda place: order.index(place[0]))


def scores_by_task(report: Report, metric: str, t: Phrases | None = None) -> str:
    """Draw one metric of every model, site and task.

    Args:
        report: The content of report.json.
        metric: `auc` or `dice`.
        t: Texts of the page; English ones if left out.
    Returns:
        SVG; empty if no task has the metric.
    """
    t = t or Phrases("en", report["unit"])
    rows = scores(report, metric)
    if not rows:
        return ""
    tasks = places(report, rows)
    sites = [site for site, _ in tasks]
    labels = [s if sites.count(s) == 1 else f"{s}: {task}" for s, task in tasks]
    models = [m for m in MODELS if any(r["model"] == m for r in rows)]
    with _plot(0.4 + 0.55 * max(len(tasks), 2), models) as (figure, axes):
        # Sites are not on a scale: lines are drawn between them, not through them.
        axes.grid(False, axis="y")
        for border in range(1, len(tasks)):
            axes.axhline(border - 0.5, color=LINE, linewidth=1)
        for i, model in enumerate(models):
            mine = [r for r in rows if r["model"] == model]
            points = [(r["value"], tasks.index((r["site"], r["task"]))) for r in mine]
            # Models side by side, so that equal values do not cover each other.
            offset = min(0.16, 0.8 / len(models)) * (i - (len(models) - 1) / 2)
            axes.plot(
                [x for x, _ in points], [y + offset for _, y in points], label=model,
                markersize=6.5 if i == 0 else 5.5, **{**_look(i), "linestyle": "none"},
            )  # fmt: skip
        axes.set_yticks(range(len(tasks)), [_short(label) for label in labels])
        axes.tick_params(axis="y", length=0)
        # Downwards, as in the table.
        axes.set_ylim(len(tasks) - 0.5, -0.5)
        lowest = min(r["value"] for r in rows)
        # From the tenth below the smallest value, to tell models apart.
        axes.set_xlim(max(-0.02, math.floor(10 * lowest - 0.2) / 10), 1.0)
        axes.set_xlabel(t.plain(f"plot.{metric}"))
        return _svg(figure, metric, t.plain(f"plot.{metric}.label"))


def measured_auc(report: Report, t: Phrases | None = None) -> str:
    """Draw the measured AUC of every class or label with its interval.

    Args:
        report: The content of report.json.
        t: Texts of the page; English ones if left out.
    Returns:
        SVG; empty without a measurement.
    """
    t = t or Phrases("en", report["unit"])
    rows = [r for r in headline(report) if r["auc"]]
    if not rows:
        return ""
    names = [t.plain("measured.all") if r["site"] == POOLED else r["site"] for r in rows]
    labels = [_short(f"{n}: {output_name(r, t)}") for n, r in zip(names, rows, strict=True)]
    with _plot(0.5 + 0.3 * max(len(rows), 2), []) as (figure, axes):
        axes.grid(False, axis="y")
        for y, row in enumerate(rows):
            found = row["auc"]
            axes.plot([found["low"], found["high"]], [y, y], color=COLOURS[0], linewidth=2)
            axes.plot([found["value"]], [y], color=COLOURS[0], marker="o", markersize=6)
        axes.set_yticks(range(len(rows)), labels)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        lowest = min(r["auc"]["low"] for r in rows)
        axes.set_xlim(math.floor(10 * lowest - 0.2) / 10, 1.0)
        axes.set_xlabel(t.plain("plot.measured"))
        return _svg(figure, "measured", t.plain("plot.measured.label"))


def headline(report: Report) -> list[Report]:
    """Return the figures of each class or label once: of all sites of a kind, or of its only one.

    Args:
        report: The content of report.json.
    """
    rows = report["measurement"]["figures"] if report["measurement"] else []
    joined = {(r["kind"], r["task"], r["output"]) for r in rows if r["site"] == POOLED}
    return [
        r for r in rows
        if r["site"] == POOLED or (r["kind"], r["task"], r["output"]) not in joined
    ]  # fmt: skip


def output_name(row: Report, t: Phrases | None = None) -> str:
    """Return the name of an output of a measurement, as people read it.

    Args:
        row: A row of `report["measurement"]["figures"]`.
        t: Texts of the page; English ones if left out.
    """
    if not row["several"]:
        return str(row["task"])
    return (t or Phrases()).plain("measured.class", task=row["task"], n=row["output"])


def losses(report: Report, t: Phrases | None = None) -> str:
    """Draw the exact training loss of each site by round.

    Args:
        report: The content of report.json, of a simulation.
        t: Texts of the page; English ones if left out.
    Returns:
        SVG.
    """
    t = t or Phrases("en", report["unit"])
    rows = [r for r in report["training"] if r["exact_loss"] is not None]
    names = _in_order(report, rows)
    with _plot(2.8, names) as (figure, axes):
        for i, site in enumerate(names):
            label: str | None = site
            for phase in report["schedule"]:  # no line from one kind of loss to another
                mine = [r for r in rows if r["site"] == site and r["phase"] == phase["name"]]
                axes.plot(
                    [r["round"] for r in mine], [r["exact_loss"] for r in mine], label=label,
                    markersize=3.5, **_look(i),
                )  # fmt: skip
                # One entry in the legend for all phases of a site.
                label = None
        _mark_phases(axes, report["schedule"])
        axes.set_xlabel(t.plain("plot.round"))
        axes.set_ylabel(t.plain("plot.loss"))
        return _svg(figure, "losses", t.plain("plot.loss.label"))


def _in_order(report: Report, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the sites that have a row, in the order of the report."""
    having = {row["site"] for row in rows}
    return [site["name"] for site in report["sites"] if site["name"] in having]


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """Return the heights of labels, moved down where two would overlap."""
    placed: dict[int, float] = {}
    last = float("inf")
    # From the top down.
    for i in sorted(range(len(values)), key=lambda i: -values[i]):
        last = placed[i] = min(values[i], last - gap)
    return [placed[i] for i in range(len(values))]


def _mark_phases(axes: Any, schedule: Sequence[dict[str, Any]]) -> None:
    """Draw lines between phases and write their names above the plot, on two levels if narrow."""
    from matplotlib.ticker import MaxNLocator

    total = sum(phase["rounds"] for phase in schedule)
    axes.set_xlim(0.5, total + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # there are no half rounds
    # A name of so many letters is wider than its phase.
    narrow = any(len(p["name"]) > 110 * p["rounds"] / total for p in schedule)
    done = 0
    for i, phase in enumerate(schedule):
        if done:
            axes.axvline(done + 0.5, color="#94a3b8", linewidth=1)
        axes.annotate(
            phase["name"], (done + phase["rounds"] / 2 + 0.5, 1.0), ha="center", va="bottom",
            xytext=(0, 17 if narrow and i % 2 else 4), textcoords="offset points", color=SOFT,
            xycoords=("data", "axes fraction"), annotation_clip=False,
        )  # fmt: skip
        done += phase["rounds"]
