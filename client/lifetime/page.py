"""The lifetime of a site's record set as one HTML page for its data-protection officer."""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from client.lifetime.facts import utc
from client.lifetime.plot import budget_over_time
from client.privacy.meaning import percent
from medformer.common.pages import STYLE
from medformer.common.rounding import (
    digits_down,
    digits_up,
    exact,
    percent_down,
    percent_up,
    rounded_down,
    rounded_up,
)

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{{ d.site }}: lifetime of the privacy ledger</title>
<style>{{ style }}
td.t, td.t span { white-space: nowrap; } tbody th { min-width: 9em; }</style>
</head>
<body><main>
<header><h1>{{ d.site }}: lifetime of the privacy ledger</h1>
<p class="soft small">{{ d.rows }} rows since {{ time(d.began) }}; written {{ time(d.made) }} from the ledger alone: no record was read. All times are in UTC.
The page holds names of accounts at this site: it stays here.</p></header>

<h2>1. Summary</h2>
<dl class="facts">
<div><dt>runs admitted</dt><dd>{{ d.runs|length }}<small>{{ waiting|length }} more wait for an answer</small></dd></div>
<div><dt>budget used, for ever</dt><dd>{{ used(b.used) }}<small>of epsilon {{ exact(b.epsilon) }}, delta {{ exact(b.delta) }}</small></dd></div>
<div><dt>left</dt><dd>{% if d.rule == "basic" %}epsilon {{ down(left) }}<small>delta {{ delta_down(left_delta) }}</small>{% else %}{{ left_share }}<small>of the divergence that the budget allows</small>{% endif %}</dd></div>
<div><dt>unit of privacy</dt><dd>one {{ d.unit }}<small>rule across runs: {{ d.rule }}</small></dd></div>
</dl>
{% if d.runs %}<p class="lead">Everything that all runs together have sent guarantees differential privacy with
<b>&epsilon;&nbsp;=&nbsp;{{ up(b.epsilon_spent) }}, &delta;&nbsp;=&nbsp;{{ delta_up(b.delta_spent) }}</b> for one {{ d.unit }}.
{% if d.rule == "rdp" %}Under the rule <code>rdp</code> that is the whole budget from the first run on: while runs may still be chosen, a filter promises its limit and nothing smaller.{% endif %}
An attacker who accepts 1&nbsp;% of false alarms can correctly identify at most {{ found(b.detected_at_most) }} of the {{ d.unit }}s that were used.
This bound follows from &epsilon; and &delta; alone; that of a single run is on the coordinator's report and on the screen of <code>site approve</code>, and is tighter.</p>
{% else %}<p class="lead">No run was admitted: nothing was charged, and nothing computed from records has left.</p>{% endif %}
{% if worst %}<p class="warn"><b>{{ worst }} of these runs {{ "relies" if worst == 1 else "rely" }} on other sites.</b> What is charged holds as long as no more sites collude with the coordinator than the table in section 3 says.
If all others do, all runs together have epsilon {{ up(worst_epsilon) }}.</p>{% endif %}

<h2>2. The budget over time</h2>
{% if plot %}<figure tabindex="0">{{ plot }}<figcaption>Share of the lifetime budget that was used. A run is charged as a whole when it is admitted, before its first round, and nothing is given back if it stops early. The table in section 3 has the same numbers.</figcaption></figure>{% endif %}
<table tabindex="0"><thead><tr><th scope="col">registered</th><th scope="col" class="n">limit of epsilon</th><th scope="col" class="n">limit of delta</th></tr></thead><tbody>
{% for one in b.registered %}<tr><th scope="row">{{ short(one.time) }}</th><td class="n">{{ exact(one.epsilon) }}</td><td class="n">{{ exact(one.delta) }}</td></tr>
{% endfor %}</tbody></table>
<p class="small soft">A limit can be lowered, never raised: the smallest one counts.</p>

<h2>3. Runs</h2>
{% if d.runs %}<table tabindex="0"><thead><tr><th scope="col">run</th><th scope="col">admitted</th><th scope="col">approved by</th><th scope="col" class="n">epsilon</th><th scope="col" class="n">delta</th><th scope="col" class="n">used by all so far</th><th scope="col" class="n">rounds trained</th><th scope="col" class="n">repeated</th><th scope="col">last round</th></tr></thead><tbody>
{% for r in d.runs %}<tr><th scope="row">{{ loop.index }}. {{ r.run_id }}</th><td class="t">{{ short(r.admitted) }}</td><td class="t">{% if r.approved_by %}{{ r.approved_by }}<span class="soft">{{ short(r.approved) }}</span>{% else %}nobody: the policy admitted it{% endif %}</td>
<td class="n">{{ up(r.epsilon) }}</td><td class="n">{{ delta_up(r.delta) }}</td><td class="n">{{ used(r.used_so_far) }}{% if d.rule == "basic" %}<span class="soft">epsilon {{ up(r.epsilon_so_far) }}</span>{% endif %}</td>
<td class="n">{{ r.rounds_trained }} of {{ r.rounds }}</td><td class="n">{{ r.spare_rounds_used }} of {{ r.spare_rounds }}</td><td class="t">{{ short(r.last_round) if r.last_round else "none" }}</td></tr>
{% endfor %}</tbody></table>
{% if worst %}<table tabindex="0"><thead><tr><th scope="col">run that relies on other sites</th><th scope="col" class="n">may collude</th><th scope="col" class="n">epsilon if all others collude</th></tr></thead><tbody>
{% for r in d.runs if r.epsilon_all_collude %}<tr><th scope="row">{{ r.run_id }}</th><td class="n">{{ r.colluders }}</td><td class="n">{{ up(r.epsilon_all_collude) }}</td></tr>{% endfor %}</tbody></table>{% endif %}
{% else %}<p>None.</p>{% endif %}

<h2>4. Questions to a person, and the answers</h2>
{% if d.questions %}<table tabindex="0"><thead><tr><th scope="col">run</th><th scope="col">asked</th><th scope="col" class="n">epsilon it would cost</th><th scope="col">answer</th><th scope="col">by</th><th scope="col">when</th><th scope="col">reason</th></tr></thead><tbody>
{% for q in d.questions %}<tr{% if not q.answer %} class="open"{% endif %}><th scope="row">{{ q.run_id }}</th><td class="t">{{ short(q.since) }}</td><td class="n">{{ up(q.epsilon) if q.epsilon is not none else "not recorded" }}</td><td>{% if q.answer == "approved" %}<span class="yes">approved</span>{% elif q.answer %}<span class="no">refused</span>{% else %}waits{% endif %}</td><td>{{ q.who }}</td><td class="t">{{ short(q.answered) if q.answer else "" }}</td><td>{{ q.why }}</td></tr>
{% endfor %}</tbody></table>
{% else %}<p>Nobody was asked: no run needed a person's approval.</p>{% endif %}

<h2>5. Refused requests</h2>
{% if d.refusals %}<table tabindex="0"><thead><tr><th scope="col">run</th><th scope="col">request</th><th scope="col">code</th><th scope="col" class="n">times at least</th><th scope="col">first</th><th scope="col">last recorded</th><th scope="col">reason</th></tr></thead><tbody>
{% for r in d.refusals %}<tr><th scope="row">{{ r.run_id or "unknown" }}</th><td>{{ r.request }}</td><td>{{ r.code }}</td><td class="n">{{ r.count }}</td><td class="t">{{ short(r.first) }}</td><td class="t">{{ short(r.last) }}</td><td>{{ r.reason }}</td></tr>
{% endfor %}</tbody></table>
<p class="small soft">A row is written whenever the number has doubled. Reasons can quote the request, which the coordinator's server wrote.</p>
{% else %}<p>None.</p>{% endif %}

<h2>6. What left this site</h2>
{% if d.runs %}<table tabindex="0"><thead><tr><th scope="col">run</th><th scope="col" class="n">answers with noise</th><th scope="col">classes counted, with noise</th><th scope="col">final model measured, with noise</th><th scope="col">records counted, with noise</th></tr></thead><tbody>
{% for r in d.runs %}<tr><th scope="row">{{ r.run_id }}</th><td class="n">at most {{ r.answers_kept_for_sending }}</td><td class="t">{{ short(r.classes_counted) if r.classes_counted else "no" }}</td><td class="t">{{ short(r.model_measured) if r.model_measured else "no" }}</td><td class="t">{{ short(r.records_counted) if r.records_counted else "no" }}</td></tr>
{% endfor %}</tbody></table>
<p>All of it is covered by the epsilon of its run. An answer holds weights of the shared model with noise; rounds in which a site trains for itself answer without any.</p>
{% for r in d.runs %}{% for one in r.reports_confirmed %}<p class="small">{{ time(one.time) }}: the guard compared a report of run {{ r.run_id }} with this ledger and countersigned it; SHA-256 <code>{{ one.sha256 }}</code></p>
{% endfor %}{% endfor %}<p>Beside this the guard sends public words of the site's declaration, plans and signatures, hashes of ledger rows, and refusals with their reason. None of them is computed from a record.</p>
{% else %}<p>Nothing that was computed from a record.</p>{% endif %}

<h2>7. The ledger itself</h2>
<ul>{% for one in d.moved %}<li>{{ time(one.time) }}: {% if one.kind == "restored" %}taken into use at another place (on {{ one.host }}) by {{ one.who }}: {{ one.why }}{% elif one.kind == "home" %}in use at one place (on {{ one.host }}): a copy elsewhere is refused{% else %}from here on the newest row is kept in an anchor, too{% endif %}</li>
{% endfor %}{% for one in d.clock_went_back %}<li>the clock went back before row {{ one.row }}: {{ time(one.before) }} to {{ time(one.after) }}</li>
{% endfor %}<li>newest hash <code>{{ d.newest_hash }}</code>; the chain of {{ d.rows }} rows is intact</li></ul>

<h2>8. What this page cannot know</h2>
<ul>{% for line in unknown %}<li>{{ line }}</li>
{% endfor %}</ul>
</main></body></html>
"""


def page(found: dict[str, Any]) -> str:
    """Return the page, which loads nothing and runs no script; every value is escaped.

    Args:
        found: As `client.lifetime.document.document` returns it.
    """
    # Undefined names are errors: a misspelt field must not look like an empty one.
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    budget = found["budget"]
    worst = [run for run in found["runs"] if run["epsilon_all_collude"]]
    formats: dict[str, Callable[..., str]] = {
        "up": rounded_up, "down": rounded_down, "delta_up": digits_up, "delta_down": digits_down,
        "exact": exact, "used": percent_up, "found": percent,
        "time": utc, "short": lambda time: utc(time).removesuffix(" UTC"),
    }  # fmt: skip
    return environment.from_string(TEMPLATE).render(
        d=found,
        b=budget,
        style=Markup(STYLE),
        plot=Markup(budget_over_time(found)),
        waiting=[one for one in found["questions"] if not one["answer"]],
        left=max(0.0, budget["epsilon"] - budget["epsilon_spent"]),
        left_delta=max(0.0, budget["delta"] - budget["delta_spent"]),
        left_share=percent_down(1 - budget["used"]),
        unknown=[_with_code(line) for line in found["cannot_know"]],
        worst=len(worst),
        # Runs that rely on nobody count with their own epsilon.
        worst_epsilon=sum(run["epsilon_all_collude"] or run["epsilon"] for run in found["runs"]),
        **formats,
    )


def _with_code(text: str) -> Markup:
    """Return a text whose words between backticks are set as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(parts)
    )
