"""Figures of pages: axes of a given height, the look of each line, and a legend below them."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from medformer.common.pages import COLOURS, PLOTS, inline

MARKERS = "osD^vP*X"
WIDTH = 9.6
"""Width of a plot in inches; the page scales it."""
LEGEND_ROW = 0.21
"""Height of a row of the legend in inches."""


@contextmanager
def plot(height: float, labels: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    """Open a figure whose axes are `height` inches tall, with room for the legend below them.

    Args:
        height: Height of the axes in inches.
        labels: Entries of the legend.
    """
    # Imported late: it costs a second, and only reports draw.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The figure grows with its legend, so that the axes keep their height.
    lines = math.ceil(sum(1 + label.count("\n") for label in labels) / _columns(labels))
    with mpl.rc_context(PLOTS):
        size = (WIDTH, height + 0.6 + LEGEND_ROW * lines)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        yield figure, axes


def _columns(labels: Sequence[str]) -> int:
    """Return how many columns of a legend fit the width."""
    longest = max((len(label) for label in labels), default=1)
    return max(1, min(5, 118 // (longest + 6)))


def look(i: int) -> dict[str, Any]:
    """Return colour, marker and dash of the i-th line; 32 lines differ.

    Args:
        i: Number of the line from 0.
    """
    return {
        "color": COLOURS[i % 8],
        "marker": MARKERS[(i + i // 8) % 8],
        "linestyle": ("-", "--", "-.", ":")[i // 8 % 4],
    }


def short(name: str) -> str:
    """Shorten a name to 32 letters by leaving out its middle; the table shows all of it.

    Args:
        name: A name that a site or user chose.
    """
    return name if len(name) <= 32 else f"{name[:18]}…{name[-13:]}"


def svg(figure: Any, name: str, label: str) -> str:
    """Return the figure as inline SVG, with the legend below it.

    Args:
        figure: The figure.
        name: Name of the plot, unique on its page.
        label: Description for readers who cannot see it.
    """
    if labels := figure.axes[0].get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower center", ncols=_columns(labels))
    return inline(figure, name, label)
