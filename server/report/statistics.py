"""The part of the page that shows statistics of records: counts that left the sites with noise."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medformer.common.rounding import exact
from server.protocol.record_counts import GREYS, IMAGES, SIDES, SPLITS
from server.report.drawing import look, plot, short, svg
from server.report.words.phrases import Phrases

Report = dict[str, Any]
SURE = 1.96
"""Standard deviations within which a count lies with a probability of 95 %."""
PAGE = """
<h3 id="statistics">{{ t("statistics") }}</h3>
<p>{{ t("statistics.text", epsilon=own) }}{% if unit == "patient" %} {{ t("statistics.patients") }}{% endif %}</p>
{% for site, blocks in sites %}
<h4>{{ site }}</h4>
<table tabindex="0">
<thead><tr><th scope="col">{{ t("judged.records") }}</th>{% for split in splits %}<th scope="col" class="n">{{ t("statistics." + split) }}</th>{% endfor %}<th scope="col" class="n">{{ t("statistics.each") }}</th><th scope="col" class="n">{{ t("statistics.all") }}</th><th scope="col" class="n">{{ t("statistics.sure") }}</th></tr></thead>
<tbody>
{% for row in blocks %}
<tr><th scope="row" class="who">{{ row.name }}{% if row.of %}<span class="soft">{{ row.of }}</span>{% endif %}</th>{% for cell in row.cells %}<td class="n">{{ cell }}</td>{% endfor %}<td class="n soft">{{ row.each }}</td><td class="n">{{ row.total }}</td><td class="n soft">{{ row.sure }}</td></tr>
{% endfor %}
</tbody></table>
{% endfor %}
{% for title, columns, rows in spreads %}
<table tabindex="0">
<thead><tr><th scope="col">{{ title }}</th>{% for column in columns %}<th scope="col" class="n">{{ column }}</th>{% endfor %}<th scope="col" class="n">{{ t("statistics.each") }}</th></tr></thead>
<tbody>
{% for name, cells, sure in rows %}
<tr><th scope="row" class="who">{{ name }}</th>{% for cell in cells %}<td class="n">{{ cell }}</td>{% endfor %}<td class="n soft">{{ sure }}</td></tr>
{% endfor %}
</tbody></table>
{% endfor %}
<figure tabindex="0">{{ greys }}<figcaption>{{ t("statistics.figure") }}</figcaption></figure>
"""


class _Row(NamedTuple):
    """One line of a site's table."""

    name: str
    of: str
    """Name of the task, if it is one of a task's classes."""
    cells: Sequence[str]
    """The count of each split."""
    each: str
    total: str
    sure: str


def statistics_section(report: Report, t: Phrases | None = None) -> Markup:
    """Return the part of the page; empty for a run that trains.

    Args:
        report: The content of report.json.
        t: Texts of the page; English ones if left out.
    """
    t = t or Phrases("en", report["unit"])
    statistics = report.get("statistics")
    if statistics is None:
        return Markup()
    counts: Mapping[str, Report] = statistics["counts"]
    if not counts:
        return Markup("<p>{}</p>").format(t("statistics.none"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.from_string(PAGE).render(
        t=t,
        own=Markup("&epsilon;&nbsp;=&nbsp;{}").format(t.number(exact(statistics["epsilon"]))),
        unit=report["unit"],
        splits=SPLITS,
        sites=[(name, _rows(own, t)) for name, own in counts.items()],
        spreads=_spreads(counts, t),
        greys=Markup(t.drawn(_greys(counts, t))),
    )
    return Markup(text)


MOST = 200
"""Number of rows of one site's table."""


def _rows(own: Report, t: Phrases) -> list[_Row]:
    std = own["std"]
    rows = [_row(t("statistics.all"), "", own["records"], std)]
    for task in own["tasks"]:
        word = "statistics.label" if task["several"] else "statistics.class"
        rows += [
            _row(t(word, n=number), task["task"], row, std)
            for number, row in enumerate(task["rows"])
        ]
    if len(rows) <= MOST:
        return rows
    # A site decides how many classes it declares, and a page has to open.
    blank = [""] * len(SPLITS)
    return [*rows[:MOST], _Row(t("statistics.more", n=len(rows) - MOST), "", blank, "", "", "")]


def _row(name: str, of: str, counts: Sequence[float], std: float) -> _Row:
    sure = SURE * std
    return _Row(
        name,
        of,
        [_shown(count) for count in counts],
        _up(sure),
        _shown(sum(counts)),
        _up(sure * math.sqrt(len(SPLITS))),
    )


def _shown(count: float) -> str:
    """Return a noisy count as people read it: there are no fewer than none."""
    return str(max(0, round(count)))


def _up(sure: float) -> str:
    return str(math.ceil(sure))


def _spreads(counts: Mapping[str, Report], t: Phrases) -> list[tuple[str, list[str], list[Any]]]:
    """Return the tables that have a column for each range."""
    found = [("sides", _ranges(SIDES, t))]
    if any(own["images"] is not None for own in counts.values()):
        found.append(("images", _ranges(IMAGES, t)))
    tables: list[tuple[str, list[str], list[Any]]] = [
        (
            t(f"statistics.{key}"),
            columns,
            [
                (name, [_shown(count) for count in own[key]], _up(SURE * own["std"]))
                for name, own in counts.items()
                if own[key] is not None
            ],
        )
        for key, columns in found
    ]
    columns = [f"{100 * k / GREYS:.0f}" for k in range(GREYS)]
    rows = [
        (name, [f"{100 * max(0.0, share):.0f}" for share in shares], math.ceil(100 * reach))
        for name, (shares, reach) in _shares(counts).items()
    ]
    return [*tables, (t("statistics.greys"), columns, rows)]


def _shares(counts: Mapping[str, Report]) -> dict[str, tuple[list[float], float]]:
    """Return the shares of each range of grey values, and the reach of their noise, by site."""
    found = {}
    for name, own in counts.items():
        total = max(1.0, sum(own["greys"]))
        found[name] = [count / total for count in own["greys"]], SURE * own["std"] / total
    return found


def _ranges(ends: Sequence[int], t: Phrases) -> list[str]:
    """Return the names of ranges of whole numbers, the last one open."""
    starts = [1, *(end + 1 for end in ends)]
    named = [
        str(start) if start == end else t("statistics.range", low=start, high=end)
        for start, end in zip(starts, ends, strict=False)
    ]
    named[0] = str(ends[0]) if ends[0] == 1 else t("statistics.up-to", high=ends[0])
    return [*named, t("statistics.from", low=starts[-1])]


def _greys(counts: Mapping[str, Report], t: Phrases) -> str:
    """Draw the shares of grey values, a line for each site with a band of its noise."""
    places = [(k + 0.5) / GREYS for k in range(GREYS)]
    with plot(2.6, [short(name) for name in counts]) as (figure, axes):
        for i, (name, (shares, reach)) in enumerate(_shares(counts).items()):
            style = look(i)
            axes.plot(places, shares, label=short(name), **style)
            low = [max(0.0, share - reach) for share in shares]
            high = [share + reach for share in shares]
            axes.fill_between(places, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(t.plain("plot.grey"))
        axes.set_ylabel(t.plain("plot.pixels"))
        return svg(figure, "greys", t.plain("plot.greys"))
