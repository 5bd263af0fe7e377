"""Plots of an evaluation, as SVG inside its page."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from client.local.measures import BINS, GRID
from client.local.results import Bin, ClassRow, TaskResult
from medformer.common.pages import COLOURS, INK, PLOTS, SOFT, inline

SIDE = 2.6
"""Inches of a plot."""
COLUMNS = 4
DIAGONAL = {"color": SOFT, "linewidth": 1, "linestyle": (0, (4, 4))}


def roc(task: TaskResult) -> str:
    """Draw a curve with its band for each class; empty where none is defined.

    Args:
        task: The results of one task.
    Returns:
        SVG, or "".
    """
    rows = [row for row in task.classes if row.roc is not None]
    if not rows:
        return ""
    with _grid(len(rows)) as (figure, places):
        for place, row in zip(places, rows, strict=True):
            _curve(place, row, "" if len(rows) == 1 else row.name)
        label = f"ROC curves of {task.name} with 95 % bands"
        return inline(figure, f"roc-{task.name}", label)


def reliability(task: TaskResult) -> str:
    """Draw observed against stated probability, with intervals and the number of answers.

    Args:
        task: The results of one task.
    Returns:
        SVG, or "".
    """
    if not task.reliability:
        return ""
    with _grid(1) as (figure, (axes,)):
        axes.plot([0, 1], [0, 1], **DIAGONAL)
        _bars(axes, task.reliability)
        axes.set_xlabel("stated probability")
        axes.set_ylabel("observed frequency")
        label = f"Observed frequency against stated probability of {task.name}"
        return inline(figure, f"reliability-{task.name}", label)


def _curve(axes: Any, row: ClassRow, title: str) -> None:
    """Draw the ROC curve of one class."""
    assert row.roc is not None
    axes.plot([0, 1], [0, 1], **DIAGONAL)
    axes.fill_between(GRID, row.roc.low, row.roc.high, color=COLOURS[0], alpha=0.22, linewidth=0)
    axes.plot([0, *GRID], [0, *row.roc.tpr], color=COLOURS[0])
    axes.set_title(title if len(title) <= 24 else f"{title[:22]}…", fontsize=10)
    axes.set_xlabel("false-positive rate")
    axes.set_ylabel("true-positive rate")


def _bars(axes: Any, bins: Sequence[Bin]) -> None:
    """Draw the observed frequency of each bin, and below it how many answers the bin has."""
    most = max(b.count for b in bins)
    for b in bins:
        value, place = b.observed.value, min(int(b.stated * BINS), BINS - 1) / BINS
        axes.bar(
            place, 0.16 * b.count / most, width=1 / BINS, align="edge", color="#cbd5e1",
            edgecolor="white",
        )  # fmt: skip
        if value is None:
            continue
        if b.observed.low is not None and b.observed.high is not None:
            axes.vlines(b.stated, b.observed.low, b.observed.high, color=COLOURS[0], linewidth=1.4)
        axes.plot([b.stated], [value], marker="o", markersize=5, color=COLOURS[0])


@contextmanager
def _grid(count: int) -> Iterator[tuple[Any, list[Any]]]:
    """Lay out that many square plots from 0 to 1, side by side."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(count, COLUMNS)
    rows = math.ceil(count / columns)
    side = SIDE if count > 1 else 4.0
    with mpl.rc_context(PLOTS):
        figure = Figure(figsize=(side * columns, (side + 0.2) * rows), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
        # A grid has whole rows; the last places may be unused.
        for spare in places[count:]:
            spare.remove()
        for axes in places[:count]:
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
            axes.tick_params(colors=INK)
            axes.set_xticks([0, 0.5, 1])
            axes.set_yticks([0, 0.5, 1])
        yield figure, places[:count]
