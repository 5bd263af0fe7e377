"""Plots of maps of public images, for a page. Loads no torch."""

from collections.abc import Sequence
from typing import NamedTuple

from medformer.common.pages import COLOURS, PLOTS, inline
from server.report.drawing import MARKERS, WIDTH, short

PHANTOMS = "phantoms"
"""Name of the images that a program draws."""
MAX_SHOWN = 4
"""Maps of the same images beside each other."""


class ImageMap(NamedTuple):
    """Public images as a shared model sees them."""

    images: str
    """Name of the images, such as `chest phantoms`."""
    classes: tuple[str, ...]
    points: tuple[tuple[float, float], ...]
    """Place of each image on the two principal axes of its embedding."""
    labels: tuple[int, ...]
    """Class of each image."""
    explained: tuple[float, float]
    """Share of the variance of the embeddings along each axis."""
    neighbours_agree: float
    """Share of the images whose class is that of most of their five nearest ones, in all
    dimensions."""


def drawn(maps: Sequence[tuple[str, ImageMap]], name: str) -> str:
    """Draw maps of the same images beside each other.

    Args:
        maps: Title and map, at most `MAX_SHOWN`.
        name: Name of the plot, unique on its page.
    Returns:
        SVG.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(PLOTS):
        figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        every = figure.subplots(1, len(maps), squeeze=False)[0]
        for axes, (title, one) in zip(every, maps, strict=True):
            for label, class_ in enumerate(one.classes):
                mine = [p for p, own in zip(one.points, one.labels, strict=True) if own == label]
                axes.plot(
                    [x for x, _ in mine], [y for _, y in mine], label=class_, linestyle="none",
                    color=COLOURS[label % 8], marker=MARKERS[label % 8], markersize=3, alpha=0.7,
                )  # fmt: skip
            axes.set_title(short(title), fontsize=10)
            axes.set_xticks([])
            axes.set_yticks([])
        handles, classes = every[0].get_legend_handles_labels()
        figure.legend(handles, classes, loc="outside lower center", ncols=min(5, len(classes)))
        return inline(figure, name, f"Map of {maps[0][1].images} as each shared model sees them")
