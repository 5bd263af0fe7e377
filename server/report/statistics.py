"""The part of the page that shows statistics of records: counts that left the sites with noise."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medformer.common.rounding import exact
from server.protocol.record_counts import GREYS, IMAGES, SIDES, SPLITS
from server.report.drawing import look, plot, short, svg

Report = dict[str, Any]
SURE = 1.96
"""Standard deviations within which a count lies with a probability of 95 %."""
HEADS = {"train": "training", "val": "validation", "test": "testing"}

PAGE = """
<h3 id="statistics">Statistics of the records, with noise</h3>
<p>Each site counted its records once and sent the counts with noise: together
&epsilon;&nbsp;=&nbsp;{{ epsilon }}, which is the &epsilon; in section 1. Nothing was trained. The column
&plusmn; says how far a count is from the true one at most, with a probability of 95&nbsp;%: a count that
is smaller than that may be nothing but noise. A record is one {{ unit }}{% if unit == "patient" %}; the
images of a patient share its count equally{% endif %}.</p>
{% for site, blocks in sites %}
<h4>{{ site }}</h4>
<table tabindex="0">
<thead><tr><th scope="col">records</th>{% for head in heads %}<th scope="col" class="n">{{ head }}</th>{% endfor %}<th scope="col" class="n">&plusmn;<br>each</th><th scope="col" class="n">all</th><th scope="col" class="n">&plusmn;<br>all</th></tr></thead>
<tbody>
{% for row in blocks %}
<tr><th scope="row" class="who">{{ row.name }}{% if row.of %}<span class="soft">{{ row.of }}</span>{% endif %}</th>{% for cell in row.cells %}<td class="n">{{ cell }}</td>{% endfor %}<td class="n soft">{{ row.each }}</td><td class="n">{{ row.total }}</td><td class="n soft">{{ row.sure }}</td></tr>
{% endfor %}
</tbody></table>
{% endfor %}
{% for title, columns, rows in spreads %}
<table tabindex="0">
<thead><tr><th scope="col">{{ title }}</th>{% for column in columns %}<th scope="col" class="n">{{ column }}</th>{% endfor %}<th scope="col" class="n">&plusmn;<br>each</th></tr></thead>
<tbody>
{% for name, cells, sure in rows %}
<tr><th scope="row" class="who">{{ name }}</th>{% for cell in cells %}<td class="n">{{ cell }}</td>{% endfor %}<td class="n soft">{{ sure }}</td></tr>
{% endfor %}
</tbody></table>
{% endfor %}
<figure tabindex="0">{{ greys }}<figcaption>Share of the pixels by grey value, from black (0) to white (1): of
the values of a byte, or between an image's own darkest and brightest pixel where it has other values. The
bands contain the noise with a probability of 95&nbsp;% at each point.</figcaption></figure>
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


def statistics_section(report: Report) -> Markup:
    """Return the part of the page; empty for a run that trains.

    Args:
        report: The content of report.json.
    """
    statistics = report.get("statistics")
    if statistics is None:
        return Markup()
    counts: Mapping[str, Report] = statistics["counts"]
    if not counts:
        return Markup("<p>No site sent counts; section 8 says why.</p>")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.from_string(PAGE).render(
        epsilon=exact(statistics["epsilon"]),
        unit=report["unit"],
        heads=list(HEADS.values()),
        sites=[(name, _rows(own)) for name, own in counts.items()],
        spreads=_spreads(counts),
        greys=Markup(_greys(counts)),
    )
    return Markup(text)


def _rows(own: Report) -> list[_Row]:
    std = own["std"]
    rows = [_row("all", "", own["records"], std)]
    for task in own["tasks"]:
        word = "label" if task["several"] else "class"
        rows += [
            _row(f"{word} {number}", task["task"], row, std)
            for number, row in enumerate(task["rows"])
        ]
    return rows


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


def _spreads(counts: Mapping[str, Report]) -> list[tuple[str, list[str], list[Any]]]:
    """Return the tables that have a column for each range."""
    found = [("longest side, pixels", _ranges(SIDES), "sides")]
    if any(own["images"] is not None for own in counts.values()):
        found.append(("images of a patient", _ranges(IMAGES), "images"))
    tables: list[tuple[str, list[str], list[Any]]] = [
        (
            title,
            columns,
            [
                (name, [_shown(count) for count in own[key]], _up(SURE * own["std"]))
                for name, own in counts.items()
                if own[key] is not None
            ],
        )
        for title, columns, key in found
    ]
    columns = [f"{100 * k / GREYS:.0f}" for k in range(GREYS)]
    rows = [
        (name, [f"{100 * max(0.0, share):.0f}" for share in shares], math.ceil(100 * reach))
        for name, (shares, reach) in _shares(counts).items()
    ]
    return [*tables, ("share of the pixels from so many % grey value on, %", columns, rows)]


def _shares(counts: Mapping[str, Report]) -> dict[str, tuple[list[float], float]]:
    """Return the shares of each range of grey values, and the reach of their noise, by site."""
    found = {}
    for name, own in counts.items():
        total = max(1.0, sum(own["greys"]))
        found[name] = [count / total for count in own["greys"]], SURE * own["std"] / total
    return found


def _ranges(ends: Sequence[int]) -> list[str]:
    """Return the names of ranges of whole numbers, the last one open."""
    starts = [1, *(end + 1 for end in ends)]
    named = [
        f"{start}" if start == end else f"{start} to {end}"
        for start, end in zip(starts, ends, strict=False)
    ]
    named[0] = f"{ends[0]}" if ends[0] == 1 else f"up to {ends[0]}"
    return [*named, f"{starts[-1]} or more"]


def _greys(counts: Mapping[str, Report]) -> str:
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
        axes.set_xlabel("grey value")
        axes.set_ylabel("share of the pixels")
        return svg(figure, "greys", "Share of the pixels by grey value, of each site")
