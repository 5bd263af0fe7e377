"""Writes the facts about a consortium as an HTML page that keeps itself up to date."""

import base64
import hashlib
from datetime import datetime

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medformer.common.pages import STYLE
from medformer.common.rounding import digits_up, rounded_down, rounded_up
from server.watching.facts import RunSite, Status
from server.watching.text import (
    PARTS,
    STATES,
    clock_time,
    duration,
    in_bytes,
    member_words,
)

OWN = """
.stale-note { display: none; } .stale .stale-note { display: block; }
.part { min-width: 13em; } td .bar { min-width: 110px; }
"""
SCRIPT = """
"use strict";
async function again() {
  try {
    const answer = await fetch("/", { cache: "no-store" });
    if (!answer.ok) throw new Error("no page");
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(page.querySelector("main"));
    document.title = page.title;
    document.body.classList.remove("stale");
  } catch {
    document.body.classList.add("stale");
  }
  setTimeout(again, 5000);
}
setTimeout(again, 5000);
"""
"""Fetches the page again every five seconds, from the server that it came from. Scripts inside what
it fetches are not run, and the policy below allows no other script than this one."""
_DIGEST = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{_DIGEST}'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)
"""Content security policy of the page."""
TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<style>{{ style }}</style>
</head>
<body>
<main>
<h1>Consortium {{ s.consortium }}</h1>
<p class="soft small">{{ at(s.at) }}. <noscript>Reload the page for newer facts.</noscript></p>
<p class="warn stale-note" role="status">These facts are old: the page gets no answer any more. Start
<code>fedmedformer consortium status --serve</code> again.</p>
{% if not s.server_up %}<p class="warn">The server is down: <code>fedmedformer consortium up</code>.</p>{% endif %}
{% if run %}
<dl class="facts">
<div><dt>run</dt><dd>{{ run.name }} <small>{{ states[run.state] }}</small></dd></div>
<div><dt>rounds done</dt><dd>{{ run.rounds_done }} of {{ run.rounds }}{% if run.phase %} <small>phase {{ run.phase }}</small>{% endif %}</dd></div>
<div><dt>time left</dt><dd>{% if run.seconds_left is not none %}about {{ time(run.seconds_left) }}{% else %}&ndash;{% endif %}{% if run.basis %} <small>{{ run.basis }}</small>{% endif %}</dd></div>
<div><dt>waits for</dt><dd>{{ run.waits_for | join(", ") or ("nobody" if run.state == "running" else "–") }}{% if run.stage %} <small>{{ run.stage }}</small>{% endif %}</dd></div>
</dl>
{% if run.failure %}<p class="warn">{{ run.failure }}</p>{% endif %}
{% endif %}
<h2 id="members">Members</h2>
{% if s.members %}
<table aria-labelledby="members"><thead><tr><th scope="col">site</th><th scope="col">node</th></tr></thead><tbody>
{% for m in s.members %}
<tr><th scope="row">{{ m.name }}</th><td class="{{ 'yes' if m.connection == 'connected' and m.sources != 'other' else '' }}">{{ words(m) }}</td></tr>
{% endfor %}
</tbody></table>
{% else %}<p>None yet: name them in consortium.yaml.</p>{% endif %}
{% if run %}
<h2 id="sites">Sites of the run {{ run.name }}</h2>
<table aria-labelledby="sites" tabindex="0"><thead><tr><th scope="col">site</th><th scope="col">part</th><th scope="col" class="n">rounds</th>
<th scope="col">epsilon spent at most</th><th scope="col" class="n">of the run's</th><th scope="col" class="n">left</th>
<th scope="col" class="n">delta</th><th scope="col" class="n">sent</th><th scope="col" class="n">received</th></tr></thead><tbody>
{% for site in run.sites %}
<tr><th scope="row" class="who">{{ site.name }}</th>
<td class="part">{{ parts[site.part] }}{% if site.asked and site.part == "takes-part" %}, {{ "has answered" if site.answered else "is being waited for" }}{% endif %}
{% if site.reason %}<span class="soft">{{ site.reason }}</span>{% endif %}</td>
<td class="n">{{ site.rounds }}</td>
{% if site.epsilon is none or site.epsilon_so_far is none %}<td>nothing is reserved yet</td><td class="n"></td><td class="n"></td><td class="n"></td>
{% else %}<td>{{ up(site.epsilon_so_far) }} for one {{ site.unit }}<div class="bar"><i class="run" style="width:{{ share(site) }}%"></i></div></td>
<td class="n">{{ up(site.epsilon) }}</td><td class="n">{{ down(site.epsilon_left) }}</td><td class="n">{{ digits(site.delta) }}</td>
{% endif %}
<td class="n">{{ bytes(site.bytes_sent) if site.bytes_sent is not none else "unknown" }}</td>
<td class="n">{{ bytes(site.bytes_received) if site.bytes_received is not none else "unknown" }}</td></tr>
{% endfor %}
</tbody></table>
<p class="small soft">Each site's ledger has reserved the whole epsilon of the run. What was spent of it includes the round in progress.
Bytes are those of questions and answers, without what transport adds. {{ run.folder }}, Flower's id {{ run.flower_run_id or "unknown" }}.</p>
{% if run.newest_events %}
<h2>Newest events</h2>
<p>{% for kind, count in run.events.items() %}{{ ", " if not loop.first }}{{ count }} {{ kind }}{% endfor %} in all.</p>
<ul>{% for event in run.newest_events %}<li>round {{ event.round }}, {{ event.site or "server" }}: {{ event.kind }}: {{ event.text }}</li>{% endfor %}</ul>
{% endif %}
{% else %}<h2>Runs</h2><p>None was submitted yet: <code>fedmedformer consortium submit</code>.</p>{% endif %}
{% if s.others %}<h2>Other runs</h2><ul>{% for folder, state in s.others %}<li>{{ folder }} {{ states[state] }}</li>{% endfor %}</ul>{% endif %}
</main>
<script>{{ script }}</script>
</body></html>
"""


def page_of(status: Status) -> str:
    """Return the facts as a page; it loads nothing but itself again.

    Every value is escaped, because sites have written some of them.

    Args:
        status: The facts.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    now, run = datetime.fromisoformat(status.at), status.run
    doing = f": {run.name} {STATES[run.state]}, {run.rounds_done} of {run.rounds}" if run else ""
    return environment.from_string(TEMPLATE).render(
        s=status,
        run=run,
        title=f"Consortium {status.consortium}{doing}",
        policy=POLICY,
        style=Markup(STYLE + OWN),
        script=Markup(SCRIPT),
        states=STATES,
        parts=PARTS,
        words=lambda member: member_words(member, now),
        at=clock_time,
        time=duration,
        bytes=in_bytes,
        up=rounded_up,
        down=rounded_down,
        digits=digits_up,
        share=_share,
    )


def _share(site: RunSite) -> str:
    """Return the spent share of a site's epsilon in percent, for the bar's width."""
    if not site.epsilon or site.epsilon_so_far is None:
        return "0"
    return f"{100 * min(1.0, site.epsilon_so_far / site.epsilon):.1f}"
