"""A comparison as one HTML page, which loads nothing and runs no script."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medformer.common.pages import STYLE
from medformer.common.rounding import rounded_up
from server.report.numbers import scientific
from simulations.comparing import plots
from simulations.comparing.comparison import Comparison
from simulations.comparing.groups import Group
from simulations.comparing.learning import Point, mixes
from simulations.comparing.reading import OWN_HEAD
from simulations.comparing.roc import SHOWN_AT, OperatingPoint
from simulations.comparing.settings import shown
from simulations.comparing.student import LEVEL
from simulations.comparing.template import TEMPLATE
from simulations.comparing.utility import ALL, MODELS, Mean, by_key
from simulations.judging.map_plot import MAX_SHOWN, ImageMap, drawn

NAMES = {"auc": "AUC", "dice": "Dice overlap", "accuracy": "accuracy"}
"""Metric -> its name."""


def render(
    comparison: Comparison,
    *,
    title: str,
    now: str,
    missing: Mapping[str, str] = {},
    maps: Mapping[int, Sequence[ImageMap]] = {},
) -> str:
    """Return the page. Every value is escaped; epsilons and deltas are rounded up.

    Args:
        comparison: The comparison.
        title: Heading of the page.
        now: ISO time.
        missing: Name of a run that was wanted and failed -> the reason.
        maps: Number of a group -> maps of public images by its first run.
    """
    # Undefined names are errors: a misspelt field must not look like an empty one.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(eps=rounded_up, sci=scientific)
    over = {metric: plots.by_epsilon(comparison, metric) for metric in comparison.metrics}
    means = by_key(comparison.means)
    figures = {
        f"utility-{metric}": svg or plots.by_group(comparison, metric)
        for metric, svg in over.items()
    }
    figures |= {"validation": plots.validation(comparison), "loss": plots.losses(comparison)}
    figures["roc"] = plots.roc(comparison)
    mixed = {group.number: mixes(group) for group in comparison.groups}
    return environment.from_string(TEMPLATE).render(
        c=comparison,
        title=title,
        now=now,
        missing=missing,
        maps=_maps(comparison, maps),
        max_maps=MAX_SHOWN,
        version=version("fedmedformer"),
        style=Markup(STYLE),
        level=LEVEL,
        few=any(len(group.runs) == 2 for group in comparison.groups),
        delta=_delta,
        differs=_differences(comparison.groups),
        names=NAMES,
        labels={group.number: group.label for group in comparison.groups},
        means=means,
        having={(model, metric) for _, model, metric in means},
        own_heads=[model for model in MODELS if model.endswith(OWN_HEAD)],
        over=[metric for metric, svg in over.items() if svg],
        many={metric: plots.too_many(comparison, metric) for metric in comparison.metrics},
        sites=_sites(comparison.means),
        same_mixes=len({str(mix) for mix in mixed.values()}) == 1,
        points=_points(comparison.operating_points),
        rates=SHOWN_AT,
        ends=[(point, mixed[point.group][point.phase]) for point in _ends(comparison.curves)],
        plots={name: Markup(svg) for name, svg in figures.items()},
    )


def _delta(group: Group) -> float:
    return max(run.delta for run in group.runs)


def _differences(groups: Iterable[Group]) -> list[tuple[str, list[tuple[str, list[int]]]]]:
    """Return key -> [(value, numbers of the settings that have it)]."""
    found: dict[str, dict[str, list[int]]] = {}
    for group in groups:
        for key, value in group.differs.items():
            found.setdefault(key, {}).setdefault(shown(value), []).append(group.number)
    return [(key, list(values.items())) for key, values in found.items()]


def _sites(means: Iterable[Mean]) -> list[tuple[tuple[str, str, str, str], dict[int, Mean]]]:
    """Return (site, task, model, metric) -> group -> mean, in the order of sites and models."""
    found: dict[tuple[str, str, str, str], dict[int, Mean]] = {}
    for row in means:
        if row.site != ALL or row.task:
            key = row.site, row.task, row.model, row.metric
            found.setdefault(key, {})[row.group] = row
    order = sorted(
        found, key=lambda key: (key[0], key[1], list(NAMES).index(key[3]), MODELS.index(key[2]))
    )
    return [(key, found[key]) for key in order]


def _points(
    points: Iterable[OperatingPoint],
) -> list[tuple[int, str, str, list[OperatingPoint]]]:
    """Return group, site, task and the points of each row of the table."""
    found: dict[tuple[int, str, str], list[OperatingPoint]] = {}
    for point in points:
        found.setdefault((point.group, point.site, point.task), []).append(point)
    return [(*key, own) for key, own in found.items()]


def _maps(
    comparison: Comparison, maps: Mapping[int, Sequence[ImageMap]]
) -> list[tuple[str, Markup, list[tuple[Group, ImageMap]]]]:
    """Return name of the images, plot, and the map of each group."""
    by_images: dict[str, list[tuple[Group, ImageMap]]] = {}
    for group in comparison.groups:
        for one in maps.get(group.number, ()):
            by_images.setdefault(one.images, []).append((group, one))
    return [
        (images, Markup(drawn([(f"{g.number}: {g.label}", m) for g, m in own[:MAX_SHOWN]],
                              f"map-{number}")), own)
        for number, (images, own) in enumerate(by_images.items())
    ]  # fmt: skip


def _ends(curves: Iterable[Point]) -> list[Any]:
    """Return the last round of each phase."""
    last = {(point.group, point.phase): point for point in curves}
    return list(last.values())
