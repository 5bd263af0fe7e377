"""The consortium's report as a page."""

from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medformer.common.pages import STYLE
from server.report.html import filters
from server.report.words.phrases import Phrases

FILE = "consortium-report.json"
PAGES = {"en": "consortium-report.html", "de": "consortium-report.de.html"}
"""Language -> page. The English one is always written."""

TEMPLATE = """<!doctype html>
<html lang="{{ t.language }}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ t("joint.title", name=r.name) }}</title>
<style>{{ style }}</style>
</head>
<body><main>
{% macro code(text) %}<code>{{ text }}</code>{% endmacro %}
{% macro unit(word) %}{{ t("joint.per", unit=t.named("unit." + word, word)) }}{% endmacro %}
{% macro state(cost) %}<span class="{{ {"wrong": "no", "unsigned": "soft"}.get(cost.state, "yes") }}">{{ t("joint.is-wrong" if cost.state == "wrong" else "joint." + cost.state) }}</span>{% endmacro %}
<header><h1>{{ t("joint.title", name=r.name) }}</h1>
<p class="soft small">{{ t("head.written", program=r.generated_by, time=r.generated_at) }}</p></header>
{% if r.simulation %}<p class="warn">{{ t("joint.simulation") }}</p>{% endif %}

<h2>{{ t("joint.summary") }}</h2>
<p class="lead">{{ t("joint.text", runs=r.runs|length, unfinished=r.runs|selectattr("state", "equalto", "unfinished")|list|length) }}</p>
<table tabindex="0"><thead><tr><th scope="col">{{ t("site") }}</th><th scope="col" class="n">{{ t("joint.runs") }}</th><th scope="col" class="n">{{ t("joint.epsilon") }}</th>
{% if shared %}<th scope="col" class="n">{{ t("joint.collude") }}</th>{% endif %}<th scope="col" class="n">{{ t("joint.delta") }}</th><th scope="col">{{ t("joint.state") }}</th></tr></thead>
<tbody>
{% for s in r.sites %}{% set good = s.costs|selectattr("state", "in", ("signed", "countersigned"))|list|length %}{% set bad = s.costs|selectattr("state", "equalto", "wrong")|list|length %}
<tr><th scope="row" class="who">{{ s.name }}<span class="soft">{{ unit(s.unit) }}</span></th><td class="n">{{ s.together.runs }}</td><td class="n">{{ s.together.epsilon|eps }}</td>
{% if shared %}<td class="n">{{ s.together.epsilon_all_collude|eps }}</td>{% endif %}<td class="n">{{ s.together.delta|sci }}</td>
<td>{% if good == s.together.runs %}<span class="yes">{{ t("joint.state.all", n=good) }}</span>{% else %}{{ t("joint.state.some", n=good, all=s.together.runs) }}{% endif %}{% if bad %}, <span class="no">{{ t("joint.wrong", n=bad) }}</span>{% endif %}
{% if s.guards|length > 1 %}<br><span class="no">{{ t("joint.keys", n=s.guards|length) }}</span>{% endif %}</td></tr>
{% endfor %}
</tbody></table>
<p class="note">{{ t("joint.bounds") }}</p>

<h2>{{ t("joint.by-site") }}</h2>
{% for s in r.sites %}
<h3>{{ s.name }} <span class="soft">({{ unit(s.unit) }})</span></h3>
<p class="soft small">{% if s.guards %}{% for key in s.guards %}{{ t("joint.guard", key=code(key)) }}{{ "; " if not loop.last }}{% endfor %}{% else %}{{ t("joint.no-guard") }}{% endif %}</p>
<table tabindex="0"><thead><tr><th scope="col">{{ t("joint.run") }}</th><th scope="col">{{ t("joint.begun") }}</th><th scope="col">{{ t("joint.ended") }}</th><th scope="col" class="n">&epsilon;</th><th scope="col" class="n">&delta;</th><th scope="col">{{ t("joint.state") }}</th></tr></thead>
<tbody>
{% for c in s.costs %}{% set run = runs[c.run_id] %}
<tr><th scope="row" class="who">{{ run.name }}<span class="soft">{{ c.run_id[:12] }}</span></th><td>{{ run.began_at[:10]|day if run.began_at else "–" }}</td><td>{{ run.ended_at[:10]|day if run.ended_at else (t("joint.unfinished") if run.state == "unfinished" else "–") }}</td>
<td class="n">{{ c.epsilon|eps }}</td><td class="n">{{ c.delta|sci }}</td><td>{{ state(c) }}</td></tr>
{% endfor %}
</tbody><tfoot><tr><th scope="row" colspan="3">{{ t("joint.sum") }}</th><td class="n">{{ s.together.epsilon|eps }}</td><td class="n">{{ s.together.delta|sci }}</td><td></td></tr></tfoot></table>
{% endfor %}

<h2>{{ t("joint.all-runs") }}</h2>
<table tabindex="0"><thead><tr><th scope="col">{{ t("joint.run") }}</th><th scope="col">{{ t("joint.folder") }}</th><th scope="col">{{ t("joint.unit") }}</th><th scope="col">{{ t("joint.report") }}</th></tr></thead>
<tbody>
{% for run in r.runs %}
<tr><th scope="row" class="who">{{ run.name }}<span class="soft">{{ run.run_id[:12] }}</span></th><td><code>{{ run.folder }}</code></td><td>{{ t.named("unit." + run.unit, run.unit) }}</td>
<td>{% if run.state == "unfinished" %}{{ t("joint.unfinished") }}{% elif run.signed_by %}{{ t("joint.report-signed", key=code(run.signed_by)) }}{% else %}<span class="no">{{ t("joint.report-unsigned") }}</span>{% endif %}</td></tr>
{% endfor %}
</tbody></table>

<h2>{{ t("joint.refusals") }}</h2>
{% if r.refusals %}
<table tabindex="0"><thead><tr><th scope="col">{{ t("joint.run") }}</th><th scope="col" class="n">{{ t("events.round") }}</th><th scope="col">{{ t("site") }}</th><th scope="col">{{ t("events.event") }}</th><th scope="col">{{ t("joint.reason") }}</th></tr></thead>
<tbody>
{% for e in r.refusals %}<tr><td>{{ runs[e.run_id].name }}<span class="soft">{{ e.run_id[:12] }}</span></td><td class="n">{{ e.round }}</td><td class="who">{{ e.site }}</td><td>{{ t.named("event." + e.kind, e.kind) }}</td><td>{{ e.text|q }}</td></tr>
{% endfor %}
</tbody></table>
{% else %}<p>{{ t("joint.no-refusals") }}</p>{% endif %}

<h2>{{ t("joint.left-out") }}</h2>
{% if r.left_out %}
<p>{{ t("joint.left-out.text") }}</p>
<table tabindex="0"><thead><tr><th scope="col">{{ t("joint.folder") }}</th><th scope="col">{{ t("joint.reason") }}</th></tr></thead>
<tbody>
{% for one in r.left_out %}<tr><td><code>{{ one.folder }}</code></td><td>{{ one.reason|q }}</td></tr>
{% endfor %}
</tbody></table>
{% else %}<p>{{ t("joint.nothing-left-out") }}</p>{% endif %}
<p class="soft small">{{ t("joint.end", json=code(file), verify=code("fedmedformer verify " + file), show=code("site guard-key")) }}</p>
</main></body></html>
"""


def render_joint(report: dict[str, Any], language: str = "en") -> str:
    """Return the consortium's report as a page, which loads nothing and runs no script.

    Args:
        report: As `build_joint` returns it.
        language: `en` or `de`.
    """
    t = Phrases(language)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters(t))
    costs = [cost for site in report["sites"] for cost in site["costs"]]
    return environment.from_string(TEMPLATE).render(
        r=report,
        t=t,
        q=t.quoted,
        file=FILE,
        style=Markup(STYLE),
        runs={run["run_id"]: run for run in report["runs"]},
        shared=any(cost["epsilon_all_collude"] > cost["epsilon"] for cost in costs),
    )
