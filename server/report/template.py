"""The text of the page. It is a string in a module, because app bundles hold Python files only."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Privacy-budget report: {{ r.name }}</title>
<style>{{ style }}
@page { @bottom-left { content: "run {{ r.run_id }}"; font: 9pt Arial, sans-serif; } }</style>
</head>
<body><main>

{% macro names(list) %}{{ list|join(", ") }}{% endmacro %}
{% macro exact() %}{% if r.exact_simulation %}<span class="tag">exact, simulation only</span>{% endif %}{% endmacro %}

<header>
<h1>Privacy-budget report: {{ r.name }}</h1>
<p class="soft small">run <code>{{ r.run_id }}</code>{% if r.began_at and r.ended_at %}, from {{ r.began_at }} to
{{ r.ended_at }}{% endif %}; written by {{ r.generated_by }}, {{ r.generated_at }}</p>
</header>

{% set baselines = r.results | rejectattr("model", "equalto", "federated-dp") | list %}
{% if r.simulation %}
<p class="warn"><b>This is a simulation, not a deployment.</b> All sites ran on one machine. The noise
comes from a seed so that the run can be repeated: anyone who has the seed can remove the noise. The
guarantees below are those that the same run would give with secret noise. Losses and metrics are
exact, and no guarantee covers them.{% if baselines %} Baselines were trained on the same records,
outside the privacy ledger.{% endif %}</p>
{% endif %}

<h2>1. Summary</h2>
<p class="lead">{{ taking_part|length }} of {{ r.sites|length }} sites {% if statistics %}counted their records once; nothing was trained:
{% else %}trained {{ "one shared model" if not cohorts else "a shared model for each of %d kinds of image"|format(cohorts|length) }} in
{{ r.rounds }} round{{ "s" if r.rounds != 1 }}{% if sent < r.rounds %}, in {{ sent }} of which anything was sent{% endif %}:
{% endif %}
{% for s in taking_part %}<b>{{ s.name }}</b> ({{ s.modality }}, {{ s.anatomy }}){{ ", " if not loop.last }}{% endfor %}.
Images and labels stayed at the sites; section 5 lists everything that left them. Each site guarantees
differential privacy for <b>one {{ r.unit }}</b>. If one {{ r.unit }} is added or removed, the
probability of anything that the site's messages may show changes by at most a factor of
e<sup>&epsilon;</sup>, plus &delta;. Smaller &epsilon; and &delta; mean a stronger guarantee. The
largest &epsilon; of this run allows a factor of {{ factor }}.</p>
{% if cohorts or taking_part|selectattr("own_copy")|list %}
<p class="lead" id="models">{% if cohorts %}{# Heads of unlike kinds share no tensor. #}{% if r.schedule|selectattr("shared_with", "equalto", "all")|selectattr("trains", "equalto", "all")|list %}All sites shared the first rounds of the encoder. After that, each{% else %}Each{% endif %} site shared with the sites that have its kind of image and with no other:
{% for file, who in cohorts %}<code>{{ file }}</code> is the model of {{ names(who) }}{{ "; " if not loop.last else ". " }}{% endfor %}{% endif %}
{% if taking_part|selectattr("own_copy")|list %}At the end each site trained its own copy, which never left it.{% endif %}</p>
{% endif %}
<ul class="lead">
{% for who, g in guarantees %}
<li><b>&epsilon;&nbsp;=&nbsp;{{ g.epsilon|eps }}, &delta;&nbsp;=&nbsp;{{ g.delta|sci }}</b> per
{{ r.unit }} at {{ names(who) }}</li>
{% endfor %}
{% for s in r.sites if not s.participated %}
<li><b>{{ s.name }} did not take part</b>: {{ s.refusal or "no reason was given" }}</li>
{% endfor %}
</ul>
{% if attacks %}
<h3 id="attack">What an attacker could find</h3>
<p>An attacker wants to know whether one {{ r.unit }} was used. It knows everything about all others and
sees every message of the site. Whatever it does, some {{ r.unit }}s that were not used are reported as used:
false alarms. The table says how many of those that <b>were</b> used the best possible attack finds at most.
Someone who sees no message at all finds as many as there are false alarms.</p>
<table tabindex="0">
<thead><tr><th scope="col">found, of the {{ r.unit }}s that were used</th>{% for alarms, _ in attacks[0][1].detected %}<th scope="col" class="n">at {{ (100 * alarms)|plain }}&nbsp;%<br>false alarms</th>{% endfor %}<th scope="col" class="n">&mu;</th></tr></thead>
<tbody>
{% for who, a in attacks %}
<tr><th scope="row" class="who">{{ names(who) }}</th>
{% for _, found in a.detected %}<td class="n">{{ found|percent }}</td>{% endfor %}
<td class="n">{{ a.mu|eps if a.mu is not none else "" }}</td></tr>
{% if a.lifetime_detected %}
<tr><td class="soft">all runs of its lifetime budget, a looser bound</td>
{% for _, found in a.lifetime_detected %}<td class="n soft">{{ found|percent }}</td>{% endfor %}<td></td></tr>
{% endif %}
{% endfor %}
</tbody></table>
{% if plots.attack %}
<figure tabindex="0">{{ plots.attack }}<figcaption>No attack on this run lies above its line (computed from the whole
privacy curve of all admitted steps, in both directions). The dotted line is a guess without any message.
&mu; sums up a line in one number: no attack finds more than the best one on a single release with Gaussian
noise in which one {{ r.unit }} moves the result by &mu; standard deviations, but for one {{ r.unit }} in a million.{% if shared_noise %}
The lines hold as long as no more sites collude than the next table says.{% endif %}</figcaption></figure>
{% endif %}
{% endif %}
{% if taking_part|selectattr("colluders")|list %}
<h3 id="honest">Who has to be honest</h3>
<p>{% if shared_noise %}Each site added only its share of the noise. <b>The &epsilon; above, which the
ledgers are charged, holds as long as no more sites than in the first column collude with the
coordinator.</b> If all other sites did, the last column would hold instead. A site relies on the
others for the difference, and its policy.yaml limits it (<code>max_epsilon_all_collude</code>).{% else %}Each
site added all of its noise, so that the &epsilon; above holds whoever colludes with the coordinator.
Against the coordinator and few sites, who see sums over all sites alone, &epsilon; is
smaller.{% endif %}</p>
<table tabindex="0">
<thead><tr><th scope="col">sites</th><th scope="col" class="n">colluding<br>sites</th><th scope="col" class="n">&epsilon; against the coordinator<br>and so many sites</th>
<th scope="col" class="n">&epsilon; against the coordinator<br>and all other sites</th></tr></thead>
<tbody>
{% for who, c in collusion %}
<tr><th scope="row" class="who">{{ names(who) }}</th><td class="n">{{ c.colluders }}</td>
<td class="n">{{ c.epsilon_few_collude|eps }}</td><td class="n">{{ c.epsilon_all_collude|eps }}</td></tr>
{% endfor %}
</tbody></table>
{% endif %}
{% if shared_noise %}<p class="note"><b>A person with records at several sites has weaker protection, and not the sum
of the sites' epsilons and deltas</b>: the sites share the noise, so that m {{ r.unit }}s at m sites count like m at one
site. For m of them &epsilon; is m times as large, and &delta; grows faster than m.</p>
{% else %}<p class="note"><b>For a person with records at several sites, the epsilons of these sites add
up</b>, and so do the deltas. One {{ r.unit }} at each of the {{ taking_part|length }} sites adds up to
&epsilon;&nbsp;=&nbsp;{{ taking_part|sum(attribute="epsilon")|eps }},
&delta;&nbsp;=&nbsp;{{ taking_part|sum(attribute="delta")|sci }}.
{% if r.unit == "image" %}A person with several images at one site has weaker protection than a single
image: for m images &epsilon; is m times as large, and &delta; grows faster than m.{% endif %}</p>
{% endif %}
<dl class="facts">
<div><dt>unit of privacy</dt><dd>one {{ r.unit }}<small>{{ r.adjacency }}</small></dd></div>
<div><dt>largest at one site</dt>
<dd>&epsilon; = {{ taking_part|map(attribute="epsilon")|max|eps }}<small>&delta; =
{{ taking_part|map(attribute="delta")|max|sci }}</small></dd></div>
{% if not shared_noise %}<div><dt>one {{ r.unit }} at every site</dt>
<dd>&epsilon; = {{ taking_part|sum(attribute="epsilon")|eps }}<small>&delta; =
{{ taking_part|sum(attribute="delta")|sci }}</small></dd></div>{% endif %}
<div><dt>noise</dt><dd>{{ r.noise_source }}<small>{{ "can be removed with the seed" if r.noise_source == "seeded" else "from a cryptographic generator" }}</small></dd></div>
</dl>

<h2>2. Budget of each site</h2>
<table tabindex="0">
<thead><tr><th scope="col">site</th><th scope="col" class="n">&epsilon;<br>this run</th><th scope="col" class="n">&epsilon;<br>all runs</th>
<th scope="col" class="n">&epsilon;<br>lifetime limit</th><th scope="col" class="gauge">lifetime &epsilon;,<br>spent and left</th>
<th scope="col" class="n">&delta;<br>this run</th><th scope="col" class="n">&delta;<br>all runs</th>
<th scope="col" class="n">&delta;<br>lifetime limit</th></tr></thead>
<tbody>
{% for s in r.sites %}
<tr><th scope="row" class="who">{{ s.name }}<span class="soft">{{ s.modality }}, {{ s.anatomy }}</span></th>
{% if s.participated %}<td class="n">{{ s.epsilon|eps }}</td>
{% else %}<td class="n soft">none</td>{% endif %}
{% if s.epsilon_lifetime is none or s.epsilon_budget is none %}
<td colspan="3" class="soft">kept at the site</td>
{% else %}{% set b = bar(s) %}
<td class="n">{{ s.epsilon_lifetime|eps }}</td><td class="n">{{ s.epsilon_budget|eps }}</td>
<td class="gauge"><div class="bar"><i class="earlier" style="width: {{ b.earlier }}%"></i><i class="run" style="width: {{ b.run }}%"></i></div>
<span class="soft">{{ b.words }}</span></td>
{% endif %}
{% if s.participated %}<td class="n">{{ s.delta|sci }}</td>
{% else %}<td class="n soft">none</td>{% endif %}
{% if s.delta_lifetime is none or s.delta_budget is none %}
<td colspan="2" class="soft">kept at the site</td>
{% else %}
<td class="n">{{ s.delta_lifetime|sci }}</td><td class="n">{{ s.delta_budget|sci }}</td>
{% endif %}</tr>
{% if s.delta_warning %}<tr><td></td><td colspan="7"><span class="no">Warning:</span>
{{ s.delta_warning }}</td></tr>{% endif %}
{% endfor %}
</tbody></table>
<p class="soft small"><i class="key first earlier"></i>earlier runs<i class="key run"></i>this run
<i class="key left"></i>left. Epsilons and deltas are rounded up; the rest of a budget is rounded down.
Accountant:
{% for a in taking_part|map(attribute="accountant")|unique %}{{ a }}{{ ", " if not loop.last }}{% endfor %}.
{% if taking_part|selectattr("others")|list %}The same steps by other accountants, which share no code with it:
{% for who, found in accountants %}{{ names(who) }}: {% for name, epsilon in found %}{{ name.split(" ")[0] }}&nbsp;{{ epsilon|eps }}{{ ", " if not loop.last }}{% endfor %}{{ "; " if not loop.last }}{% endfor %}.
All are upper bounds; the first is charged, and a site refuses a run in which another proves more.{% endif %}</p>
<p>Each site reserved the budget of the whole schedule before its first gradient. The run is charged in
full even if it stops early; nothing is handed back. Over several runs, whichever server asked for
them, epsilons and deltas add up{% if r.sites|selectattr("rule", "equalto", "rdp")|list %}; at
{{ names(r.sites|selectattr("rule", "equalto", "rdp")|map(attribute="name")) }} the
R&eacute;nyi divergences of the runs add up instead, at one order that was fixed before the first run
(Feldman and Zrnic 2021). The guarantee for all runs together is then the lifetime limit, however few
runs there were{% endif %}.</p>

<h2>3. Epsilon by round</h2>
{% if statistics %}<p>There was no round: all counts left in one answer.</p>
{% else %}<figure tabindex="0">{{ plots.epsilon }}<figcaption><b>Lines with markers: progress of the plan, not a
guarantee.</b> Sites with equal plans share a line. Dashed: the guaranteed &epsilon; of the whole
run. It lies above the last round (dotted line) because spare rounds, which are kept for repeating a
lost round, are charged whether they are used or not.</figcaption></figure>
{% endif %}

{% if plots.curve %}
<h3>Epsilon at other deltas</h3>
<figure tabindex="0">{{ plots.curve }}<figcaption>Every point of a line is a guarantee of the whole run, and all
points hold at once: a smaller &delta; goes with a larger &epsilon;. The large marker is the pair that
is charged to the site's budget. All points are computed from the plan alone.</figcaption></figure>
{% endif %}

<h2>4. Mechanism</h2>
{% if statistics %}<p>All counts of a site are released together, with the noise of one Gaussian mechanism without
sampling; its standard deviation is the <i>noise multiplier</i> times the <i>max. norm</i>, by which one
{{ r.unit }} changes the counts at most (L2).</p>
{% else %}<p>Each step is a Poisson-subsampled Gaussian mechanism (Abadi et al. 2016). Every {{ r.unit }} joins a
step at random, with the <i>sample rate</i> as its probability. Its gradient is scaled down to at most
the <i>max. norm</i>. Noise is added to the sum of the gradients; its standard deviation is the
<i>noise multiplier</i> times the <i>max. norm</i>. The sum is divided by the <i>expected batch</i>, a
public constant.{% if shared_noise %} Where noise is <i>shared by</i> several sites, each adds noise of one part in so
many of that variance, and the noise of all honest sites adds up to it.{% endif %} The phase <i>spare</i> may repeat any round and is charged like the most expensive
one.
{% if taking_part|map(attribute="phases")|sum(start=[])|selectattr("name", "equalto", "class-balance")|list %}
<i>class-balance</i> means that a site counted its classes once, before the first round, with noise of
that standard deviation on each count. It weights its losses with these counts and sent no count.{% endif %}
{% if r.measurement %}<i>evaluation</i> is the measurement of the final model (section 6): the counts of all classes and
scores are released together, with the noise of one Gaussian mechanism without sampling. Its records are charged like all
others, so that nothing depends on how a site divides them.{% endif %}</p>{% endif %}
<table tabindex="0">
<thead><tr><th scope="col">sites</th>{% for c in phase_columns %}<th scope="col"{% if c.is_number %} class="n"{% endif %}>{{ c.column.title }}</th>
{% endfor %}</tr></thead>
<tbody>
{% for who, phases in mechanisms %}{% for p in phases %}
<tr{% if p.name == "spare" %} class="spare"{% endif %}>{% if loop.first %}<th scope="row" class="who" rowspan="{{ phases|length }}">{{ names(who) }}</th>{% endif %}
{% for c in phase_columns %}<td class="{{ "n" if c.is_number else "phase" }}">{{ p[c.name]|cell(c.column) }}</td>{% endfor %}</tr>
{% endfor %}{% endfor %}
</tbody></table>
<h3>Admitted and trained</h3>
<table tabindex="0">
<thead><tr><th scope="col">site</th><th scope="col" class="n">steps admitted and charged</th><th scope="col" class="n">steps trained</th>
<th scope="col" class="n">rounds trained</th><th scope="col" class="n">rounds repeated</th></tr></thead>
<tbody>
{% for s in taking_part %}
<tr><th scope="row" class="who">{{ s.name }}</th><td class="n">{{ s.steps }}</td><td class="n">{{ s.steps_trained }}</td>
<td class="n">{{ s.rounds_trained }}</td><td class="n">{{ s.rounds_repeated }}</td></tr>
{% endfor %}
</tbody></table>

{% if r.audits %}
<h3 id="audit">Attacks that were tried</h3>
{% for a in r.audits.canaries %}
<p><b>{{ names(a.sites) }}: <span class="{{ "yes" if a.passed else "no" }}">{{ "not refuted" if a.passed else "REFUTED" }}.</span></b> {{ a.verdict }}</p>
{% endfor %}
<p class="soft small">Canaries: the schedule was trained once more, on phantoms and made-up gradients, each of which was in with
probability &frac12;; an auditor who sees every step guesses which were in ({{ r.audits.canaries|map(attribute="method")|unique|join(", ") }}).</p>
{% if r.audits.membership %}
<table tabindex="0">
<thead><tr><th scope="col">site</th><th scope="col" class="n">trained on / not</th>{% for f in r.audits.membership[0].found %}<th scope="col" class="n">found at {{ (100 * f.false_alarms)|plain }}&nbsp;%<br>false alarms</th>{% endfor %}<th scope="col" class="n">AUC of<br>the attack</th></tr></thead>
<tbody>
{% for m in r.audits.membership %}
<tr><th scope="row" class="who">{{ m.site }}<span class="soft">{{ m.task }}</span></th><td class="n">{{ m.members }} / {{ m.others }}</td>
{% for f in m.found %}<td class="n">{{ "%.1f"|format(100 * f.rate) }}&nbsp;%{% if f.refutes %} <span class="no">refutes</span>{% endif %}{% if f.bound is not none %}<span class="soft">allowed {{ f.bound|percent }}</span>{% endif %}</td>{% endfor %}
<td class="n">{{ "%.3f"|format(m.auc) }}</td></tr>
{% endfor %}
</tbody></table>
<p class="soft small">A membership attack on each site's final model, its own heads included: {{ r.audits.membership|map(attribute="attack")|unique|join(", ") }}.
It is the simplest attack, and far from the best. The AUC of one that only guesses is 0.5.{{ exact() }}</p>
{% endif %}
{% endif %}

<h2>5. What left each site, and what is not covered</h2>
{% if r.model.concepts %}
<p><b>The shared model can answer a question.</b> {% for c in r.model.concepts %}{{ names(c.sites) }}
{{ "have" if c.sites|length > 1 else "has" }} images of the kind <code>{{ c.kind }}</code>{{ "; " if not loop.last }}{% endfor %}.
Sites of such a kind train the layer that answers their question together (concepts): coordinator and
members can answer it with the shared model, without any site's own heads, which never leave. About a
record they learn nothing beyond &epsilon;. A site whose policy.yaml says <code>concepts: own-heads</code>
sent no part of that layer.</p>
{% elif not statistics %}
<p>No layer that answers a site's question left it. The shared model alone answers nothing; who has it
and labelled images can fit heads of their own.</p>
{% endif %}
{% for who, list in egress %}
<h3>{{ names(who) }}</h3>
{% if list.released %}
<table tabindex="0"><thead><tr><th scope="col">item</th><th scope="col">mechanism</th><th scope="col">covered by the ledger, or public</th></tr></thead>
<tbody>
{% for item in list.released %}
<tr{% if not item.covered %} class="open"{% endif %}><td class="item">{{ item.what }}<span class="soft names">{{ item.names|join(", ") }}</span></td>
<td>{{ item.mechanism }}</td>
<td class="yesno">{% if item.covered %}<span class="yes">yes</span>{% else %}<span class="no">not covered</span>{% endif %}</td></tr>
{% endfor %}
</tbody></table>
{% else %}<p class="no">The site did not declare what may leave it.</p>{% endif %}
{% if list.not_covered %}
<p><b>Not covered by any guarantee in this report:</b></p>
<ul>{% for text in list.not_covered %}<li>{{ text }}</li>{% endfor %}</ul>
{% else %}<p class="no">The site did not declare what is not covered.</p>{% endif %}
{% endfor %}

<h2>6. Results{{ exact() if columns and not r.measurement }}</h2>
{{ statistics }}
{% if r.measurement %}
<h3 id="measured">Measured at the sites, with noise</h3>
<p>At the end each site measured the final model once on its {{ {"val": "validation", "test": "test"}[r.measurement.split] }} records, which no
step was trained on. For each class or label it sent how many records have which score, with noise: by itself
&epsilon;&nbsp;=&nbsp;{{ r.measurement.epsilon|plain }}, a part of the &epsilon; in section 1. All figures follow
from these counts. An interval holds its value with a probability of at least 95&nbsp;%, over the choice of the
records and the noise. No figure stands where there are too few records: fewer than {{ r.measurement.min_count }}, or
fewer than the noise hides; nor where most scores are so similar that they fall into one bin.</p>
{% if r.measurement.figures %}
<table tabindex="0">
<thead><tr><th scope="col">site</th><th scope="col">question</th><th scope="col" class="n">records that<br>show it / do not</th><th scope="col" class="n">AUC</th>
<th scope="col" class="n">sensitivity<br>at probability &frac12;</th><th scope="col" class="n">specificity<br>at probability &frac12;</th><th scope="col" class="n">sensitivity at<br>90&nbsp;% specificity</th></tr></thead>
<tbody>
{% for f in r.measurement.figures %}
<tr><th scope="row" class="who">{{ f.site }}</th><td>{{ output_name(f) }}{% if r.measurement.figures|map(attribute="kind")|unique|list|length > 1 %}<span class="soft">{{ f.kind }}</span>{% endif %}</td>
<td class="n">{% if f.shown is none %}too few{% else %}{{ f.shown }} / {{ f.absent }}{% endif %}</td>
{% for e in (f.auc, f.sensitivity, f.specificity, f.sensitivity_at) %}<td class="n">{% if e is none %}–{% else %}{{ "%.3f"|format(e.value) }}<span class="soft">{{ "%.3f"|format(e.low) }} to {{ "%.3f"|format(e.high) }}</span>{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table>
{% if plots.measured %}<figure tabindex="0">{{ plots.measured }}<figcaption>AUC of each class against all others, or of each label{% if r.measurement.figures|selectattr("site", "equalto", "all sites")|list %},
at all sites of a kind of image together{% endif %}.</figcaption></figure>{% endif %}
{% if judged %}
<h3>Are the probabilities right?</h3>
<p>Of the records to which the model gives a probability in a range, the share that shows the finding. Where the
interval does not hold the mean probability, the model says too much or too little.</p>
<table tabindex="0">
<thead><tr><th scope="col">site</th><th scope="col">question</th><th scope="col" class="n">records</th><th scope="col" class="n">mean probability</th><th scope="col" class="n">share that shows it</th></tr></thead>
<tbody>
{% for f in judged %}{% for c in f.calibration %}
<tr>{% if loop.first %}<th scope="row" class="who" rowspan="{{ f.calibration|length }}">{{ f.site }}</th><td rowspan="{{ f.calibration|length }}">{{ output_name(f) }}</td>{% endif %}
<td class="n">{{ c.images }}</td><td class="n">{{ "%.3f"|format(c.predicted) }}</td>
<td class="n">{{ "%.3f"|format(c.observed.value) }}<span class="soft">{{ "%.3f"|format(c.observed.low) }} to {{ "%.3f"|format(c.observed.high) }}</span></td></tr>
{% endfor %}{% endfor %}
</tbody></table>
{% endif %}
{% else %}<p>No site sent counts; section 8 says why.</p>{% endif %}
{% endif %}
{% if columns %}
{% if r.measurement %}<h3>Exact values{{ exact() }}</h3>{% endif %}
{% for metric, table in tables %}
<table tabindex="0"><thead><tr><th scope="col">{{ metric }}</th>{% for c in columns %}<th scope="col" class="n">{{ c }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name, task, cells in table.rows %}
<tr><th scope="row" class="who">{{ name }}<span class="soft">{{ task }}</span></th>
{% for cell in cells %}<td class="n">{{ "–" if cell is none else "%.3f"|format(cell) }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
<tfoot><tr><th scope="row">mean over {{ table.of }}</th>
{% for m in table.means %}<td class="n">{% if m.value is none %}–{% else %}{{ "%.3f"|format(m.value) }}{% if m.count < table.rows|length %} <span class="soft">{{ m.count }} of {{ table.rows|length }} {{ table.of }}</span>{% endif %}{% endif %}</td>{% endfor %}</tr></tfoot>
</table>
{% endfor %}
<figure tabindex="0">{{ plots.auc }}{{ plots.dice }}<figcaption>Results on the test split of each site. <b>federated-dp</b>: this run.{% if baselines %}
<b>heads-only-dp</b>, <b>local-heads-only-dp</b>: only heads, on the features of the public start,
together or each site alone; <b>without-...-dp</b>: this run without a part; <b>local-dp</b>: each site
alone; all of them at the same &epsilon;. <b>local-plain</b>, <b>federated-plain</b> and
<b>centralised-plain</b> (all records pooled): without privacy. All models but the first are baselines,
outside the privacy ledger.{% if shared_noise %} Baselines have no masks, so that each site adds all of its noise: a
difference to this run holds what sharing the noise brings, too.{% endif %}{% endif %}</figcaption></figure>
{% elif not r.measurement and not statistics %}<p>Metrics stayed at the sites. A run with <code>evaluation: {epsilon: 1}</code> measures its final
model there and reports it with noise.</p>{% endif %}
{% if r.fitted_heads %}
<h3>Heads that sites fitted for themselves</h3>
<p>After the run these sites fitted a head of their own on the released model, with the given number of
labelled images, as <code>fedmedformer site finetune</code> does. <b>These heads have no differential
privacy.</b> They are for the site's own use, nothing of them left the site, and no ledger counts them.</p>
<table tabindex="0"><thead><tr><th scope="col">site</th><th scope="col">fitted on</th><th scope="col" class="n">labelled images</th><th scope="col">metric</th><th scope="col" class="n">test</th></tr></thead>
<tbody>
{% for h in r.fitted_heads if h.split == "test" %}
<tr><th scope="row" class="who">{{ h.site }}<span class="soft">{{ "took no part in the training" if h.joined else "took part" }}; {{ h.task }}</span></th>
<td>{{ h.model }}</td><td class="n">{{ h.labelled }}</td><td>{{ h.metric }}</td>
<td class="n">{{ "–" if h.value is none else "%.3f"|format(h.value) }}</td></tr>
{% endfor %}
</tbody></table>
{% endif %}

<h2>7. Training loss{{ exact() if plots.losses }}</h2>
{% if plots.losses %}
<figure tabindex="0">{{ plots.losses }}<figcaption>Mean loss of each round, measured without noise. Each phase
has its own mix of objectives, so losses of different phases cannot be compared.</figcaption></figure>
{% else %}<p>No training loss left a site.</p>{% endif %}

<h2>8. Refusals, absences, late joins and damaged checkpoints</h2>
{% if r.events %}
<table tabindex="0"><thead><tr><th scope="col" class="n">round</th><th scope="col">site</th><th scope="col">event</th><th scope="col">reason</th></tr></thead><tbody>
{% for e in r.events %}<tr><td class="n">{{ e.round }}</td><td class="who">{{ e.site }}</td>
<td class="narrow">{{ e.kind }}</td><td>{{ e.text }}</td></tr>{% endfor %}
</tbody></table>
{% else %}<p>The coordinator noted none. What a site refused by itself, before it took part or in another
run, stands on its own ledger (<code>site ledger show</code>).</p>{% endif %}

<h2>9. The promise in full</h2>
{% if r.promise is defined %}{% set p = r.promise.post_processing %}
<table tabindex="0"><tbody>
<tr><th scope="row" class="who">variant</th><td>(&epsilon;, &delta;)-differential privacy, also called approximate differential privacy</td></tr>
<tr><th scope="row">neighbouring sets</th><td>{{ r.adjacency }}; the records of each site are a set of their own</td></tr>
<tr><th scope="row">unit of privacy</th><td>one {{ r.unit }} at a site</td></tr>
<tr><th scope="row">one release</th><td>everything that a site sends in this run, repeated rounds included, and everything that is made of it, such as the
model: &epsilon; and &delta; are for all of it together</td></tr>
<tr><th scope="row">other runs</th><td>each costs its own &epsilon;; the lifetime limit in section 2 is for all of them</td></tr>
<tr><th scope="row">trust model</th><td>federated: each site keeps its own records and adds noise before anything leaves it.
{% if r.promise.max_colluders is none %}The coordinator, all other sites and whoever has the model may work together against a record; &epsilon; holds against them.
{% else %}The sites share the noise, so that &epsilon; holds as long as no more than {{ r.promise.max_colluders }} of them
collude{{ "s" if r.promise.max_colluders == 1 }} with the coordinator.{% endif %}</td></tr>
<tr><th scope="row">who must be honest</th><td>at each site: its staff, its machine, and the guard, the only program that reads records.
{% if r.promise.max_colluders is not none %}Of the other sites: all but {{ r.promise.max_colluders }}.{% else %}Nobody else.{% endif %}</td></tr>
<tr><th scope="row">data</th><td>static: the records of each site at the time of the run. A record that is withdrawn or corrected between two rounds is
left out or read anew from the next round on; nothing that was sent is taken back</td></tr>
<tr><th scope="row">queries</th><td>none by other people: the schedule was fixed before the run</td></tr>
<tr><th scope="row">post-processing</th><td>the coordinator averages what the sites send{% if p.summed_under_masks %}, of which it learns the sum alone{% endif %}, with momentum
{{ p.server_momentum|plain }} and rate {{ p.server_learning_rate }}{% if p.average_last %}, and averages the models of the last {{ p.average_last|percent(0) }} of a phase's rounds{% else %};
the last model of a phase is taken as it is{% endif %}{% if p.measured %}; figures are fitted to noisy counts{% endif %}. It costs no &epsilon;</td></tr>
<tr><th scope="row">randomness</th><td>discrete Gaussian noise and Poisson sampling, from ChaCha20 with {{ {"seed": "a key from the run's seed, which is not secret", "operating-system": "a key from the operating system, which no file holds"}[r.promise.randomness.key] }}</td></tr>
<tr><th scope="row">accountant</th><td>{{ taking_part|map(attribute="accountant")|unique|join(", ") }}</td></tr>
<tr><th scope="row">versions</th><td>{% for k, v in r.packages|dictsort %}{{ k }}&nbsp;{{ v }}{{ ", " if not loop.last }}{% endfor %} where this report was made; every
site ran the sources with the SHA-256 in section 12</td></tr>
<tr><th scope="row">audit</th><td>{% if r.audits %}section 4{% else %}none in this run{% endif %}</td></tr>
<tr><th scope="row">choice of the settings</th><td>{{ r.recipe or "the run lists its phases itself" }}{% if "settings_chosen_by" in about %}; see also section 10{% endif %}</td></tr>
</tbody></table>
{% else %}<p>The report is of a version that did not state it.</p>{% endif %}

<h2>10. Statements of the coordinator</h2>
<p>No file of a run knows what stands here. It is the word of the coordinator, who wrote it; nothing in this report proves it.</p>
<table tabindex="0"><tbody>
{% for name, title in statements %}
<tr><th scope="row" class="who">{{ title }}</th><td class="stated">{% if name not in about %}<span class="no">not stated</span>{% elif about[name] is string %}{{ about[name] }}{% else %}{{ about[name]|join(", ") }}{% endif %}</td></tr>
{% endfor %}
</tbody></table>

<h2>11. How the shared model sees images</h2>
{% if pictures %}
<p>The server drew these pictures from the final shared model{% if cohorts %} of each kind of image{% endif %} and from phantom images, which a program
made. They show no patient and reveal nothing about any record. Every site {% if cohorts %}with that kind of image {% endif %}has this model.</p>
<div class="pictures">
{% for p in pictures %}
<figure><img alt="{{ p.title }}" src="data:image/png;base64,{{ p.data }}"><figcaption><b>{{ p.title }}.</b>
{{ p.caption }}</figcaption></figure>
{% endfor %}
</div>
{% else %}<p>No pictures were drawn.</p>{% endif %}

<h2>12. Details for repeating this run</h2>
<table tabindex="0"><tbody>
<tr><th scope="row" class="who">run</th><td><code>{{ r.run_id }}</code></td></tr>
<tr><th scope="row">seed</th><td>{{ r.seed }}</td></tr>
<tr><th scope="row">model</th><td>{{ r.model.network if r.model.network is defined else "Medformer " ~ r.model.preset }}{% if r.model.shared_parameters is defined %},
{{ "{:,}".format(r.model.shared_parameters) }} shared parameters{% endif %}</td></tr>
<tr><th scope="row">schedule</th><td>{% for p in r.schedule %}{{ p.name }}: {{ p.rounds }} round{{ "s" if p.rounds != 1 }}{% if p.trains == "heads" %}, heads only{% elif p.trains == "own-heads" %}, each site's own heads only{% endif %}{% if p.sends and p.shared_with == "kind" %}, shared with sites of the same kind of image only{% endif %}{% if not p.sends %}, each site alone and nothing sent{% endif %}{% if p.freeze_own %}, each site's own tensors frozen{% endif %}; losses:
{% for o, w in p.objectives|dictsort %}{{ "%g"|format(w) }} {{ o }}{{ " + " if not loop.last }}{% endfor %}{% if not loop.last %}<br>{% endif %}{% endfor %}</td></tr>
{% if r.masked %}<tr><th scope="row">answers</th><td>masked: the server learned the sum over all sites of a round, and no site's part of it; {{ "each site added a share of the noise" if shared_noise else "each site's noise and epsilon are as without masks" }}</td></tr>
{% endif %}{% if r.recipe %}<tr><th scope="row">reason for it</th><td>{{ r.recipe }}</td></tr>
{% endif %}<tr><th scope="row">public pre-training</th><td>{% if r.public_pretraining %}{% for k, v in r.public_pretraining|dictsort %}{{ k }}:
{% if v is mapping %}{% for o, w in v|dictsort %}{{ "%g"|format(w) }} {{ o }}{{ " + " if not loop.last }}{% endfor %}{% else %}{{ v }}{% endif %}{{ ", " if not loop.last }}{% endfor %} (costs no epsilon){% else %}none{% endif %}</td></tr>
{% if r.model.features is defined %}<tr><th scope="row">frozen features</th><td>{{ r.model.features }}</td></tr>
{% endif %}{% if r.started_from %}<tr><th scope="row">started from</th><td>{{ r.started_from }}</td></tr>
{% endif %}{% if r.extensions is defined and r.extensions %}<tr><th scope="row">code from outside</th><td>{% for name, h in r.extensions|dictsort %}<code>{{ name }}</code>, sources with SHA-256
<code>{{ h }}</code>{{ "; " if not loop.last }}{% endfor %}. FedMedformer's tests do not cover it</td></tr>
{% endif %}<tr><th scope="row">sources, SHA-256</th><td><code>{{ r.source_hash }}</code></td></tr>
{% if r.ledger_hashes %}<tr><th scope="row">newest ledger rows reported</th><td>{% for name, h in r.ledger_hashes|dictsort %}{{ name }}
<code>{{ h[:16] }}</code>{{ ", " if not loop.last }}{% endfor %}; a site checks that its ledger still holds its row with
<code>fedmedformer site ledger verify STATE --report report.json --site NAME</code></td></tr>
{% endif %}{% if guards %}<tr><th scope="row">receipts signed by</th><td>{% for name, f in guards %}the guard of {{ name }}
<code>{{ f }}</code>{{ ", " if not loop.last }}{% endfor %}. <code>fedmedformer verify report.json</code> checks every
signature and recomputes every &epsilon;; compare the fingerprints with what the hospitals' <code>site guard-key</code>
shows</td></tr>
{% endif %}<tr><th scope="row">packages that made this report</th><td>{% for name, v in r.packages|dictsort %}{{ name }}&nbsp;{{ v }}{{ ", " if not loop.last }}{% endfor %}</td></tr>
</tbody></table>
<p class="soft small">The file <code>report.json</code> beside this page holds the same numbers for
programs; its schema is <code>report.schema.json</code>.</p>
</main></body></html>
"""
