"""The page: one self-contained HTML file without scripts. A string, because only sources travel in
an app bundle."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Privacy-budget report: {{ r.name }}</title>
<style>
:root { --ink: #0f172a; --soft: #475569; --line: #cbd5e1; --paper: #ffffff; --accent: #0b5fa5;
        --good: #166534; --bad: #9a3412; --wash: #f1f5f9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--wash); color: var(--ink);
       font: 15px/1.55 "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
main { max-width: 1060px; margin: 24px auto; background: var(--paper); padding: 36px 44px;
       border: 1px solid var(--line); }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 38px 0 10px; padding-top: 14px; border-top: 2px solid var(--ink); }
p, li { max-width: 84ch; }
.soft { color: var(--soft); }
.lead { font-size: 16px; }
.note { border-left: 4px solid var(--accent); background: #eff6ff; padding: 10px 16px; }
.warn { border-left: 4px solid var(--bad); background: #fff7ed; padding: 10px 16px; }
table { border-collapse: collapse; width: 100%; margin: 10px 0 6px; font-size: 14px; }
th, td { text-align: left; padding: 6px 10px 6px 0; border-bottom: 1px solid var(--line);
         vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.mean td { border-top: 2px solid var(--ink); font-weight: 600; }
.bar { width: 150px; height: 12px; background: #e2e8f0; border-radius: 3px; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--accent); }
.yes { color: var(--good); font-weight: 600; } .no { color: var(--bad); font-weight: 600; }
code { font: 13px/1.4 "DejaVu Sans Mono", Consolas, monospace; overflow-wrap: anywhere; }
figure { margin: 14px 0 4px; } figure svg { width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 13.5px; max-width: 90ch; }
@media print { body { background: none; } main { border: 0; margin: 0; padding: 0; }
               h2 { break-after: avoid; } table, figure { break-inside: avoid; } }
</style>
</head>
<body><main>
<h1>Privacy-budget report: {{ r.name }}</h1>
<p class="soft">{{ r.generated_by }} · {{ r.generated_at }} · run <code>{{ r.run_id }}</code></p>

<p class="lead">{{ taking_part|length }} of {{ r.sites|length }} sites trained one shared model in
{{ r.rounds }} rounds. No image left a site. Each site guarantees
(&epsilon;,&nbsp;&delta;)-differential privacy for <b>one {{ r.unit }}</b>: {{ r.adjacency }}
changes the probability of anything the site sent by at most a factor e<sup>&epsilon;</sup>, up to
&delta;.</p>
<p class="note"><b>A person with records at several of these sites</b> gets the sum of those sites'
epsilons; a person with several images at one site gets less protection than one image does.</p>
{% if r.simulation %}
<p class="warn"><b>This is a simulation.</b> Its noise is seeded, so that it can be repeated: whoever
has the seed can remove the noise. Losses and metrics below are exact; they would not leave a
hospital. Baselines are trained on the same records outside the ledger.</p>
{% endif %}

<h2>1. Budget of each site</h2>
<table>
<tr><th>site</th><th class="n">&epsilon; of this run</th><th class="n">&delta; of this run</th>
<th class="n">&epsilon; of all runs</th><th class="n">lifetime limit</th><th>spent</th>
<th>accountant</th></tr>
{% for s in r.sites %}
<tr><td><b>{{ s.name }}</b><br><span class="soft">{{ s.modality }}, {{ s.anatomy }}</span></td>
{% if s.participated %}
<td class="n">{{ "%.3f"|format(s.epsilon) }}</td><td class="n">{{ "%.0e"|format(s.delta) }}</td>
{% if s.epsilon_lifetime is none %}
<td colspan="3" class="soft">kept at the site</td>
{% else %}
<td class="n">{{ "%.3f"|format(s.epsilon_lifetime) }}</td>
<td class="n">{{ "%.3f"|format(s.epsilon_budget) }}</td>
<td><div class="bar"><i style="width: {{ share(s) }}%"></i></div>{{ share(s) }} %</td>
{% endif %}
<td>{{ s.accountant }}</td>
{% else %}
<td colspan="6"><span class="no">did not take part</span>: {{ s.refusal }}</td>
{% endif %}</tr>
{% if s.delta_warning %}<tr><td></td><td colspan="6" class="no">{{ s.delta_warning }}</td></tr>{% endif %}
{% endfor %}
</table>
<p>The whole schedule was reserved at each site before its first gradient. It is charged in full,
also if the run stops early; nothing is handed back. Across runs, epsilons and deltas add up.</p>

<h2>2. Epsilon by round</h2>
<figure>{{ plots.epsilon|safe }}<figcaption>Solid lines: progress of the plan, not a guarantee
(sites with equal plans share a line). Dashed black line: the guarantee, which also pays for the spare rounds that are kept for
retraining a lost round.</figcaption></figure>

<h2>3. Mechanism</h2>
<p>Each step is a Poisson-subsampled Gaussian mechanism (Abadi et al. 2016): every {{ r.unit }} joins
with probability <i>sample rate</i>, its gradient is clipped to <i>max. norm</i>, noise of standard
deviation <i>noise multiplier</i> × <i>max. norm</i> is added to the sum, which is divided by a
public constant.</p>
<table>
<tr><th>site</th><th>phase</th><th class="n">rounds</th><th class="n">steps</th>
<th class="n">sample rate</th><th class="n">noise multiplier</th><th class="n">max. norm</th>
<th class="n">divisor</th></tr>
{% for s in r.sites %}{% for p in s.phases %}
<tr><td>{{ s.name if loop.first else "" }}</td><td>{{ p.name }}</td><td class="n">{{ p.rounds }}</td>
<td class="n">{{ p.steps }}</td><td class="n">{{ "%.4f"|format(p.sample_rate) }}</td>
<td class="n">{{ "%.3f"|format(p.noise_multiplier) }}</td>
<td class="n">{{ "%.3f"|format(p.max_grad_norm) }}</td>
<td class="n">{{ "%g"|format(p.expected_batch_size) }}</td></tr>
{% endfor %}{% endfor %}
</table>

<h2>4. What left each site</h2>
{% for names, items in released %}
<p><b>{{ names|join(", ") }}</b></p>
{% if items %}
<table><tr><th>item</th><th>mechanism</th><th>covered by the ledger, or public</th></tr>
{% for item in items %}
<tr><td><code>{{ item.name }}</code></td><td>{{ item.mechanism }}</td>
<td>{% if item.covered %}<span class="yes">yes</span>{% else %}<span class="no">no</span>{% endif %}
</td></tr>
{% endfor %}</table>
{% else %}<p class="no">the site did not declare what may leave it</p>{% endif %}
{% endfor %}
<p><b>Not covered by any guarantee here:</b></p>
<ul>{% for text in not_covered %}<li>{{ text }}</li>{% endfor %}</ul>

{% if columns %}
<h2>5. Results</h2>
{% if r.exact_simulation %}<p class="soft">Exact values of the simulation, on the test split.</p>{% endif %}
{% for metric, rows in tables %}
<table><tr><th>{{ metric }}</th>{% for c in columns %}<th class="n">{{ c }}</th>{% endfor %}</tr>
{% for name, cells in rows %}
<tr{% if loop.last %} class="mean"{% endif %}><td>{{ name }}</td>
{% for cell in cells %}<td class="n">{{ "-" if cell is none else "%.3f"|format(cell) }}</td>{% endfor %}
</tr>{% endfor %}</table>
{% endfor %}
<figure>{{ plots.auc|safe }}<figcaption>federated-dp: this run. local-dp: each site alone, same
epsilon. local-plain, federated-plain, centralised-plain: without privacy.</figcaption></figure>
{% endif %}

{% if plots.losses %}
<h2>6. Training</h2>
<figure>{{ plots.losses|safe }}<figcaption>Exact training loss (simulation only). Phases mix other
objectives, so their losses are not comparable.</figcaption></figure>
{% endif %}

<h2>7. Refusals and lost rounds</h2>
{% if r.events %}<table><tr><th class="n">round</th><th>site</th><th>what</th><th>why</th></tr>
{% for e in r.events %}<tr><td class="n">{{ e.round }}</td><td>{{ e.site }}</td>
<td>{{ e.event or e.kind }}</td><td>{{ e.text }}</td></tr>{% endfor %}</table>
{% else %}<p>None.</p>{% endif %}
{% for s in retrained %}<p>{{ s.name }}: {{ s.steps_trained }} steps were started, retries included,
of {{ s.steps }} admitted.</p>{% endfor %}

<h2>8. To repeat this run</h2>
<table>
<tr><td>seed</td><td>{{ r.seed }} ({{ r.noise_source }} noise)</td></tr>
<tr><td>model</td><td>Medformer {{ r.preset }}</td></tr>
<tr><td>public pre-training (no epsilon)</td><td>{{ r.public_pretraining or "none" }}</td></tr>
<tr><td>sources</td><td><code>{{ r.source_hash }}</code></td></tr>
<tr><td>packages</td><td>{% for name, v in r.packages|dictsort %}{{ name }} {{ v }}{{ ", " if not loop.last }}{% endfor %}</td></tr>
</table>
</main></body></html>
"""
