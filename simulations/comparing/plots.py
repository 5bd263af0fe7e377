"""Plots of a comparison as inline SVG; the page has a table beside each."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from medformer.common.pages import LINE, SOFT
from server.report.drawing import look, plot, short, svg
from simulations.comparing.comparison import Comparison
from simulations.comparing.curve import RUN
from simulations.comparing.groups import Group
from simulations.comparing.learning import Point
from simulations.comparing.roc import mean_curve, places_of
from simulations.comparing.utility import Mean, by_key, utility

AXES = {
    "auc": "test AUC (0.5: guessing; 1: perfect)",
    "dice": "test Dice overlap (0: nowhere right; 1: every pixel)",
    "accuracy": "test accuracy",
}
"""Metric -> label of its axis."""
MAX_LINES = 12
"""Lines of a plot at most; more could not be told apart."""

ASIDE = 1.012
"""Factor of epsilon by which lines are drawn beside each other."""


class Line(NamedTuple):
    """One model of the groups that differ in epsilon alone."""

    label: str
    model: str
    points: tuple[tuple[float, Mean], ...]
    """(epsilon, mean), ascending."""


def lines(comparison: Comparison, metric: str) -> list[Line]:
    """Return the lines of utility over epsilon.

    Args:
        comparison: The comparison.
        metric: `auc`, `dice` or `accuracy`.
    """
    means = by_key(comparison.means)
    by_line: dict[str, list[Group]] = {}
    for group in comparison.groups:
        by_line.setdefault(group.line, []).append(group)
    found = []
    for model in comparison.models:
        for name, groups in by_line.items():
            points = [
                (group.epsilon, means[group.number, model, metric])
                for group in groups
                if (group.number, model, metric) in means
            ]
            if points:
                label = model if len(by_line) == 1 else f"{short(name)}: {model}"
                found.append(Line(label, model, tuple(sorted(points, key=lambda p: p[0]))))
    return found


def by_epsilon(comparison: Comparison, metric: str) -> str:
    """Draw a metric of every model against epsilon.

    Args:
        comparison: The comparison.
        metric: `auc`, `dice` or `accuracy`.
    Returns:
        SVG; empty if all groups have the same epsilon.
    """
    found = _few(lines(comparison, metric))
    epsilons = {epsilon for line in found for epsilon, _ in line.points}
    # Epsilons that differ in their last digits are one point of the axis.
    if len({_tick(value) for value in epsilons}) < 2:
        return ""
    with plot(3.4, [line.label for line in found]) as (figure, axes):
        if min(epsilons) > 0:
            axes.set_xscale("log")
            ticks = _spaced(sorted(epsilons))
            axes.set_xticks(ticks, [_tick(tick) for tick in ticks])
            axes.minorticks_off()
        for i, line in enumerate(found):
            # Side by side, so that intervals do not cover each other.
            aside = ASIDE ** (i - (len(found) - 1) / 2)
            x = [epsilon * aside for epsilon, _ in line.points]
            _drawn(axes, x, [mean for _, mean in line.points], look(i), line.label)
            if line.model == RUN:
                _seeds(axes, comparison, line, metric, (aside, look(i)["color"]))
        _limits(axes.set_ylim, [mean for line in found for _, mean in line.points])
        axes.set_xlabel("largest epsilon of a site")
        axes.set_ylabel(AXES[metric])
        return svg(figure, f"epsilon-{metric}", f"Test {metric} of every model against epsilon")


def by_group(comparison: Comparison, metric: str) -> str:
    """Draw a metric of every model and group, side by side.

    Args:
        comparison: The comparison.
        metric: `auc`, `dice` or `accuracy`.
    Returns:
        SVG.
    """
    means = by_key(comparison.means)
    groups, models = comparison.groups, comparison.models
    with plot(0.4 + 0.55 * max(len(groups), 2), models) as (figure, axes):
        axes.grid(False, axis="y")
        for border in range(1, len(groups)):
            axes.axhline(border - 0.5, color=LINE, linewidth=1)
        for i, model in enumerate(models):
            # Models side by side, so that equal values do not cover each other.
            offset = min(0.16, 0.8 / len(models)) * (i - (len(models) - 1) / 2)
            label: str | None = model
            for y, group in enumerate(groups):
                if not (mean := means.get((group.number, model, metric))):
                    continue
                style = {**look(i), "linestyle": "none"}
                axes.plot([mean.mean], [y + offset], label=label, markersize=6, **style)
                label = None
                if mean.low is not None:
                    axes.hlines(y + offset, mean.low, mean.high, color=style["color"])
        names = [f"{group.number}: {short(group.label)}" for group in groups]
        axes.set_yticks(range(len(groups)), names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        _limits(axes.set_xlim, [mean for key, mean in means.items() if key[2] == metric])
        axes.set_xlabel(AXES[metric])
        return svg(figure, f"groups-{metric}", f"Test {metric} of every model and setting")


def validation(comparison: Comparison) -> str:
    """Draw the validation AUC of each group at the ends of phases.

    Args:
        comparison: The comparison.
    Returns:
        SVG; empty if no run was validated.
    """
    points = [point for point in comparison.curves if point.validation_auc is not None]
    return _by_round(comparison, points, "validation AUC", "validation")


def losses(comparison: Comparison) -> str:
    """Draw the training loss of each group by round.

    Args:
        comparison: The comparison.
    Returns:
        SVG; empty if no loss is known.
    """
    points = [point for point in comparison.curves if point.loss is not None]
    return _by_round(comparison, points, "mean training loss", "loss")


def roc(comparison: Comparison) -> str:
    """Draw the mean ROC curve of each group; of each site, where there is one group.

    Args:
        comparison: The comparison.
    Returns:
        SVG; empty if no run has curves.
    """
    places = places_of(comparison.groups)
    found = [
        (f"{group.number}: {short(group.label)}", group, places[group.number])
        for group in comparison.groups
        if places[group.number]
    ]
    if len(comparison.groups) == 1 and found:
        _, group, own = found[0]
        found = [(short(f"{site}: {task}"), group, [(site, task)]) for site, task in own]
    if not found:
        return ""
    found = found[:MAX_LINES]
    with plot(3.4, [label for label, _, _ in found]) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=SOFT, linestyle=":", linewidth=1.2)
        for i, (label, group, own) in enumerate(found):
            style = {**look(i), "marker": ""}
            axes.plot(group.runs[0].roc.grid, mean_curve(group, own), label=label, **style)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("false-positive rate (1 - specificity)")
        axes.set_ylabel("sensitivity")
        return svg(figure, "roc", "Mean ROC curves on test images")


def _by_round(comparison: Comparison, points: Sequence[Point], axis: str, name: str) -> str:
    if not points:
        return ""
    from matplotlib.ticker import MaxNLocator

    groups = [g for g in comparison.groups if any(p.group == g.number for p in points)][:MAX_LINES]
    with plot(2.8, [f"{g.number}: {short(g.label)}" for g in groups]) as (figure, axes):
        for i, group in enumerate(groups):
            own = [point for point in points if point.group == group.number]
            label: str | None = f"{group.number}: {short(group.label)}"
            # No line from one kind of loss to another; AUC is one measure throughout.
            phases = dict.fromkeys(p.phase for p in own) if name == "loss" else {"": None}
            for phase in phases:
                mine = [p for p in own if not phase or p.phase == phase]
                values = [p.loss if name == "loss" else p.validation_auc for p in mine]
                axes.plot([p.round for p in mine], values, label=label, markersize=3.5, **look(i))
                label = None
            for point in own if name == "validation" else []:
                if point.low is not None:
                    axes.vlines(point.round, point.low, point.high, color=look(i)["color"])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("round")
        axes.set_ylabel(axis)
        if name == "validation":
            known = [p.validation_auc for p in points if p.validation_auc is not None]
            axes.set_ylim(max(0.0, math.floor(10 * min(known) - 0.5) / 10), 1.0)
        return svg(figure, name, f"{axis[:1].upper()}{axis[1:]} of each setting by round")


def _few(found: list[Line]) -> list[Line]:
    """Return the lines that a plot can hold: those of the runs' own models if there are many."""
    if len(found) <= MAX_LINES:
        return found
    return [line for line in found if line.model == RUN][:MAX_LINES]


def _drawn(axes: Any, x: Sequence[float], means: Sequence[Mean], style: Any, label: str) -> None:
    axes.plot(x, [mean.mean for mean in means], label=label, markersize=6, **style)
    for place, mean in zip(x, means, strict=True):
        if mean.low is not None:
            axes.vlines(place, mean.low, mean.high, color=style["color"], linewidth=1.3)


def _seeds(
    axes: Any, comparison: Comparison, line: Line, metric: str, style: tuple[float, str]
) -> None:
    """Draw a small dot for each run; `style` is a factor of epsilon and a colour."""
    aside, color = style
    places = {
        (mean.site, mean.task) for mean in comparison.means
        if mean.task and (mean.model, mean.metric) == (line.model, metric)
    }  # fmt: skip
    numbers = {mean.group for _, mean in line.points}
    for group in comparison.groups:
        if group.number in numbers:
            values = [utility(run, line.model, metric, places) for run in group.runs]
            known = [value for value in values if value is not None]
            x = [group.epsilon * aside] * len(known)
            axes.plot(x, known, color=color, marker=".", alpha=0.5, linestyle="none")


def _tick(value: float) -> str:
    """Return the name of a place on the axis, which is no guarantee."""
    return f"{value:.2g}"


def _spaced(values: Sequence[float]) -> list[float]:
    """Return the values whose labels do not cover each other on a logarithmic axis."""
    kept: list[float] = []
    for value in values:
        if not kept or value / kept[-1] > (values[-1] / values[0]) ** 0.06:
            kept.append(value)
    return kept


def _limits(set_: Any, means: Iterable[Mean]) -> None:
    """Set the limits of an axis to the means and most of their intervals.

    An interval of two seeds is often wider than the scale of the metric: it leaves the plot.
    """
    means = list(means)
    lowest = min(mean.mean for mean in means)
    ends = [mean.low for mean in means if mean.low is not None]
    low = max(min([lowest, *ends]), lowest - 0.2)
    set_(max(-0.02, math.floor(20 * low - 0.2) / 20), 1.0)


def too_many(comparison: Comparison, metric: str) -> bool:
    """Tell whether the plot over epsilon leaves lines out.

    Args:
        comparison: The comparison.
        metric: `auc`, `dice` or `accuracy`.
    """
    return len(lines(comparison, metric)) > MAX_LINES
