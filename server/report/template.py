"""The page, in the order of NIST SP 800-226. A module, because app bundles hold Python files only.

Every text comes from the catalogue (`server.report.words`): `t` returns it by its key, `q` quotes a
sentence of a site or of its code.
"""

TEMPLATE = """<!doctype html>
<html lang="{{ t.language }}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ t("title", name=r.name) }}</title>
<style>{{ style }}
@page { @bottom-left { content: "{{ t("head.run") }} {{ r.run_id }}"; font: 9pt Arial, sans-serif; } }</style>
</head>
<body><main>

{% macro names(list) %}{{ list|join(", ") }}{% endmacro %}
{% macro code(text) %}<code>{{ text }}</code>{% endmacro %}
{% macro exact() %}{% if r.exact_simulation %}<span class="tag">{{ t("tag.exact") }}</span>{% endif %}{% endmacro %}
{% macro pair(epsilon, delta) %}&epsilon;&nbsp;=&nbsp;{{ epsilon|eps }}, &delta;&nbsp;=&nbsp;{{ delta|sci }}{% endmacro %}
{% macro said(name) %}{% if name not in about %}<span class="no">{{ t("not-stated") }}</span>{% else %}<span class="stated">{% if name == "published" %}{{ about[name]|day }}{% elif about[name] is string %}{{ about[name] }}{% else %}{{ names(about[name]) }}{% endif %}</span>{% endif %}{% endmacro %}
{% macro statement(name, own=false) %}<tr><th scope="row" class="who">{{ t("about." + name) }}{% if not own %}<span class="soft">{{ t("word") }}</span>{% endif %}</th><td>{{ said(name) }}</td></tr>{% endmacro %}
{% macro row(key, text) %}<tr><th scope="row" class="who">{{ t(key) }}</th><td>{{ text }}</td></tr>{% endmacro %}

<header>
<h1>{{ t("title", name=r.name) }}</h1>
<p class="soft small">{{ t("head.run") }} <code>{{ r.run_id }}</code>{% if r.began_at and r.ended_at %}{{ t("head.times", began=r.began_at, ended=r.ended_at) }}{% endif %}; {{ t("head.written", program=r.generated_by, time=r.generated_at) }}</p>
</header>

{% set baselines = r.results | rejectattr("model", "equalto", "federated-dp") | list %}
{% if r.simulation %}
<p class="warn">{{ t("simulation") }}{% if baselines %} {{ t("simulation.baselines") }}{% endif %}</p>
{% endif %}

<h2>{{ t("summary") }}</h2>
<p class="lead">{% set sites %}{% for s in taking_part %}<b>{{ s.name }}</b> ({{ s.modality }}, {{ s.anatomy }}){{ ", " if not loop.last }}{% endfor %}{% endset %}
{% if statistics %}{{ t("statistics.counted", took=taking_part|length, all=r.sites|length, sites=sites) }}
{% else %}{{ t("summary.trained", took=taking_part|length, all=r.sites|length, sites=sites,
     what=t("summary.models", n=cohorts|length) if cohorts else t("summary.one-model"),
     rounds=t.rounds(r.rounds, "round.dative"), sent=t("summary.sent", n=sent) if sent < r.rounds else "") }}
{% endif %}
{{ t("summary.promise", factor=factor) }}</p>
{% if cohorts or taking_part|selectattr("own_copy")|list %}
<p class="lead" id="models">{% if cohorts %}{# Heads of unlike kinds share no tensor. #}
{% set models %}{% for file, who in cohorts %}{{ t("summary.model-of", file=code(file), sites=names(who)) }}{{ "; " if not loop.last }}{% endfor %}{% endset %}
{{ t("summary.kinds-later" if r.schedule|selectattr("shared_with", "equalto", "all")|selectattr("trains", "equalto", "all")|list else "summary.kinds", models=models) }}{% endif %}
{% if taking_part|selectattr("own_copy")|list %} {{ t("summary.own-copy") }}{% endif %}</p>
{% endif %}
<ul class="lead">
{% for who, g in guarantees %}
<li>{{ t("summary.epsilon", pair=pair(g.epsilon, g.delta), sites=names(who)) }}</li>
{% endfor %}
{% for s in r.sites if not s.participated %}
<li>{{ t("summary.away", site=s.name, reason=q(s.refusal) if s.refusal else t("summary.no-reason")) }}</li>
{% endfor %}
</ul>
{% if attacks %}
<h3 id="attack">{{ t("attack") }}</h3>
<p>{{ t("attack.text") }}</p>
<table tabindex="0">
<thead><tr><th scope="col">{{ t("attack.found") }}</th>{% for alarms, _ in attacks[0][1].detected %}<th scope="col" class="n">{{ t("attack.at", alarms=alarms|share) }}</th>{% endfor %}<th scope="col" class="n">&mu;</th></tr></thead>
<tbody>
{% for who, a in attacks %}
<tr><th scope="row" class="who">{{ names(who) }}</th>
{% for _, found in a.detected %}<td class="n">{{ found|percent }}</td>{% endfor %}
<td class="n">{{ a.mu|eps if a.mu is not none else "" }}</td></tr>
{% if a.lifetime_detected %}
<tr><td class="soft">{{ t("attack.lifetime") }}</td>
{% for _, found in a.lifetime_detected %}<td class="n soft">{{ found|percent }}</td>{% endfor %}<td></td></tr>
{% endif %}
{% endfor %}
</tbody></table>
{% if plots.attack %}
<figure tabindex="0">{{ plots.attack }}<figcaption>{{ t("attack.figure") }}{% if shared_noise %} {{ t("attack.figure-shared") }}{% endif %}</figcaption></figure>
{% endif %}
{% endif %}
{% if taking_part|selectattr("colluders")|list %}
<h3 id="honest">{{ t("honest") }}</h3>
<p>{{ t("honest.shared" if shared_noise else "honest.own") }}</p>
<table tabindex="0">
<thead><tr><th scope="col">{{ t("sites") }}</th><th scope="col" class="n">{{ t("honest.colluding") }}</th><th scope="col" class="n">{{ t("honest.few") }}</th>
<th scope="col" class="n">{{ t("honest.all") }}</th></tr></thead>
<tbody>
{% for who, c in collusion %}
<tr><th scope="row" class="who">{{ names(who) }}</th><td class="n">{{ c.colluders }}</td>
<td class="n">{{ c.epsilon_few_collude|eps }}</td><td class="n">{{ c.epsilon_all_collude|eps }}</td></tr>
{% endfor %}
</tbody></table>
{% endif %}
{% set total = pair(taking_part|sum(attribute="epsilon"), taking_part|sum(attribute="delta")) %}
<p class="note">{% if shared_noise %}{{ t("several.shared") }}{% if own_counts %} {{ t("several.counts", phases=names(own_counts)) }}{% endif %}
{% else %}{{ t("several.sum", n=taking_part|length, pair=total) }}
{% if r.unit == "image" %}{{ t("several.images") }}{% endif %}{% endif %}</p>
<dl class="facts">
<div><dt>{{ t("facts.unit") }}</dt><dd>{{ t("facts.one") }}<small>{{ r.adjacency|q }}</small></dd></div>
<div><dt>{{ t("facts.largest") }}</dt>
<dd>&epsilon; = {{ taking_part|map(attribute="epsilon")|max|eps }}<small>&delta; =
{{ taking_part|map(attribute="delta")|max|sci }}</small></dd></div>
{% if not shared_noise %}<div><dt>{{ t("facts.every") }}</dt>
<dd>&epsilon; = {{ taking_part|sum(attribute="epsilon")|eps }}<small>&delta; =
{{ taking_part|sum(attribute="delta")|sci }}</small></dd></div>{% endif %}
<div><dt>{{ t("facts.noise") }}</dt><dd>{{ t("noise." + r.noise_source) }}<small>{{ t("noise." + r.noise_source + ".note") }}</small></dd></div>
</dl>

<h2>{{ t("epsilon") }}</h2>
<h3>{{ t("full") }}</h3>
<table tabindex="0"><tbody>
{{ row("full.variant", t("full.variant.text")) }}
{{ row("full.neighbours", t("full.neighbours.text", adjacency=r.adjacency|q)) }}
{{ row("facts.unit", t("full.unit.text")) }}
{{ row("full.release", t("full.release.text")) }}
{{ row("full.runs", t("full.runs.text")) }}
{{ row("full.accountant", names(taking_part|map(attribute="accountant")|unique)) }}
{{ statement("epsilon_chosen_because") }}
</tbody></table>

<h3>{{ t("budget") }}</h3>
<table tabindex="0">
<thead><tr><th scope="col">{{ t("site") }}</th>{% for symbol in ("&epsilon;"|safe, "&delta;"|safe) %}<th scope="col" class="n">{{ t("budget.run", symbol=symbol) }}</th><th scope="col" class="n">{{ t("budget.all", symbol=symbol) }}</th>
<th scope="col" class="n">{{ t("budget.limit", symbol=symbol) }}</th>{% if loop.first %}<th scope="col" class="gauge">{{ t("budget.gauge") }}</th>{% endif %}{% endfor %}</tr></thead>
<tbody>
{% for s in r.sites %}
<tr><th scope="row" class="who">{{ s.name }}<span class="soft">{{ s.modality }}, {{ s.anatomy }}</span></th>
{% if s.participated %}<td class="n">{{ s.epsilon|eps }}</td>
{% else %}<td class="n soft">{{ t("none") }}</td>{% endif %}
{% if s.epsilon_lifetime is none or s.epsilon_budget is none %}
<td colspan="3" class="soft">{{ t("home") }}</td>
{% else %}{% set b = bar(s) %}
<td class="n">{{ s.epsilon_lifetime|eps }}</td><td class="n">{{ s.epsilon_budget|eps }}</td>
<td class="gauge"><div class="bar"><i class="earlier" style="width: {{ b.earlier }}%"></i><i class="run" style="width: {{ b.run }}%"></i></div>
<span class="soft">{{ b.words }}</span></td>
{% endif %}
{% if s.participated %}<td class="n">{{ s.delta|sci }}</td>
{% else %}<td class="n soft">{{ t("none") }}</td>{% endif %}
{% if s.delta_lifetime is none or s.delta_budget is none %}
<td colspan="2" class="soft">{{ t("home") }}</td>
{% else %}
<td class="n">{{ s.delta_lifetime|sci }}</td><td class="n">{{ s.delta_budget|sci }}</td>
{% endif %}</tr>
{% if s.delta_warning %}<tr><td></td><td colspan="7"><span class="no">{{ t("budget.warning") }}</span>
{{ s.delta_warning|q }}</td></tr>{% endif %}
{% endfor %}
</tbody></table>
<p class="soft small"><i class="key first earlier"></i>{{ t("budget.key.earlier") }}<i class="key run"></i>{{ t("budget.key.run") }}
<i class="key left"></i>{{ t("budget.key.left") }}. {{ t("budget.rounding", accountants=names(taking_part|map(attribute="accountant")|unique)) }}
{% if taking_part|selectattr("others")|list %}{% set found %}{% for who, list in accountants %}{{ names(who) }}: {% for name, epsilon in list %}{{ name.split(" ")[0] }}&nbsp;{{ epsilon|eps }}{{ ", " if not loop.last }}{% endfor %}{{ "; " if not loop.last }}{% endfor %}{% endset %}
{{ t("budget.others", found=found) }}{% endif %}</p>
{% set rdp = r.sites|selectattr("rule", "equalto", "rdp")|map(attribute="name")|list %}
<p>{{ t("budget.reserved", filter=t("budget.rdp", sites=names(rdp)) if rdp else "") }}</p>

<h3>{{ t("by-round") }}</h3>
{% if statistics %}<p>{{ t("statistics.no-round") }}</p>
{% else %}<figure tabindex="0">{{ plots.epsilon }}<figcaption>{{ t("by-round.figure") }}</figcaption></figure>
{% endif %}
{% if plots.curve %}
<h3>{{ t("curve") }}</h3>
<figure tabindex="0">{{ plots.curve }}<figcaption>{{ t("curve.figure") }}</figcaption></figure>
{% endif %}

<h2>{{ t("algorithm") }}</h2>
<h3>{{ t("mechanism") }}</h3>
{% if statistics %}<p>{{ t("statistics.mechanism") }}</p>
{% else %}<p>{{ t("mechanism.text") }}{% if shared_noise %} {{ t("mechanism.shared") }}{% endif %} {{ t("mechanism.spare") }}{% if taking_part|map(attribute="phases")|sum(start=[])|selectattr("name", "equalto", "class-balance")|list %} {{ t("mechanism.balance") }}{% endif %}
{% if r.measurement %} {{ t("mechanism.evaluation") }}{% endif %}</p>{% endif %}
<table tabindex="0">
<thead><tr><th scope="col">{{ t("sites") }}</th>{% for c in phase_columns %}<th scope="col"{% if c.is_number %} class="n"{% endif %}>{{ t.named("column." + c.name, c.column.title) }}</th>
{% endfor %}</tr></thead>
<tbody>
{% for who, phases in mechanisms %}{% for p in phases %}
<tr{% if p.name == "spare" %} class="spare"{% endif %}>{% if loop.first %}<th scope="row" class="who" rowspan="{{ phases|length }}">{{ names(who) }}</th>{% endif %}
{% for c in phase_columns %}<td class="{{ "n" if c.is_number else "phase" }}">{{ p[c.name]|cell(c.column) }}</td>{% endfor %}</tr>
{% endfor %}{% endfor %}
</tbody></table>
<h3>{{ t("work") }}</h3>
<table tabindex="0">
<thead><tr><th scope="col">{{ t("site") }}</th><th scope="col" class="n">{{ t("work.charged") }}</th><th scope="col" class="n">{{ t("work.steps") }}</th>
<th scope="col" class="n">{{ t("work.rounds") }}</th><th scope="col" class="n">{{ t("work.repeated") }}</th></tr></thead>
<tbody>
{% for s in taking_part %}
<tr><th scope="row" class="who">{{ s.name }}</th><td class="n">{{ s.steps }}</td><td class="n">{{ s.steps_trained }}</td>
<td class="n">{{ s.rounds_trained }}</td><td class="n">{{ s.rounds_repeated }}</td></tr>
{% endfor %}
</tbody></table>
{{ statistics }}
{% if not statistics %}
<h3>{{ t("after") }}</h3>
<table tabindex="0"><tbody>
{% if promise %}{% set p = promise.post_processing %}
{{ row("after.processing", t("after.text", momentum=p.server_momentum|number, rate=rate(p.server_learning_rate),
       masked=t("after.masked") if p.summed_under_masks else "", measured=t("after.measured") if p.measured else "",
       last=t("after.last", share=p.average_last|percent(0)) if p.average_last else t("after.no-last"))) }}
{% endif %}
{{ row("after.settings", r.recipe|q if r.recipe else t("after.listed")) }}
{{ statement("settings_chosen_by") }}
</tbody></table>

<h3>{{ t("results") }}{{ exact() if columns and not r.measurement }}</h3>
{% if r.measurement %}
<h4 id="measured">{{ t("measured") }}</h4>
<p>{% set own %}&epsilon;&nbsp;=&nbsp;{{ r.measurement.epsilon|number }}{% endset %}{{ t("measured.text", split=t("split." + r.measurement.split), epsilon=own, least=r.measurement.min_count) }}</p>
{% if r.measurement.figures %}
<table tabindex="0">
<thead><tr><th scope="col">{{ t("site") }}</th><th scope="col">{{ t("measured.question") }}</th><th scope="col" class="n">{{ t("measured.records") }}</th><th scope="col" class="n">AUC</th>
<th scope="col" class="n">{{ t("measured.sensitivity") }}</th><th scope="col" class="n">{{ t("measured.specificity") }}</th><th scope="col" class="n">{{ t("measured.sensitivity-at") }}</th></tr></thead>
<tbody>
{% for f in r.measurement.figures %}
<tr><th scope="row" class="who">{{ place(f.site) }}</th><td>{{ output_name(f) }}{% if r.measurement.figures|map(attribute="kind")|unique|list|length > 1 %}<span class="soft">{{ f.kind }}</span>{% endif %}</td>
<td class="n">{% if f.shown is none %}{{ t("measured.few") }}{% else %}{{ f.shown }} / {{ f.absent }}{% endif %}</td>
{% for e in (f.auc, f.sensitivity, f.specificity, f.sensitivity_at) %}<td class="n">{% if e is none %}–{% else %}{{ e.value|third }}<span class="soft">{{ t("interval", low=e.low|third, high=e.high|third) }}</span>{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table>
{% if plots.measured %}<figure tabindex="0">{{ plots.measured }}<figcaption>{{ t("measured.figure-all" if r.measurement.figures|selectattr("site", "equalto", pooled)|list else "measured.figure") }}</figcaption></figure>{% endif %}
{% if judged %}
<h4>{{ t("judged") }}</h4>
<p>{{ t("judged.text") }}</p>
<table tabindex="0">
<thead><tr><th scope="col">{{ t("site") }}</th><th scope="col">{{ t("measured.question") }}</th><th scope="col" class="n">{{ t("judged.records") }}</th><th scope="col" class="n">{{ t("judged.mean") }}</th><th scope="col" class="n">{{ t("judged.share") }}</th></tr></thead>
<tbody>
{% for f in judged %}{% for c in f.calibration %}
<tr>{% if loop.first %}<th scope="row" class="who" rowspan="{{ f.calibration|length }}">{{ place(f.site) }}</th><td rowspan="{{ f.calibration|length }}">{{ output_name(f) }}</td>{% endif %}
<td class="n">{{ c.images }}</td><td class="n">{{ c.predicted|third }}</td>
<td class="n">{{ c.observed.value|third }}<span class="soft">{{ t("interval", low=c.observed.low|third, high=c.observed.high|third) }}</span></td></tr>
{% endfor %}{% endfor %}
</tbody></table>
{% endif %}
{% elif not r.measurement.overlaps %}<p>{{ t("measured.none") }}</p>{% endif %}
{% if r.measurement.overlaps %}
<h4>{{ t("outlined") }}</h4>
<p>{{ t("outlined.text") }}</p>
<table tabindex="0">
<thead><tr><th scope="col">{{ t("site") }}</th><th scope="col">{{ t("outlined.task") }}</th><th scope="col" class="n">{{ t("outlined.images") }}</th><th scope="col" class="n">{{ t("outlined.mean") }}</th></tr></thead>
<tbody>
{% for f in r.measurement.overlaps %}
<tr><th scope="row" class="who">{{ place(f.site) }}</th><td>{{ f.task }}{% if r.measurement.overlaps|map(attribute="kind")|unique|list|length > 1 %}<span class="soft">{{ f.kind }}</span>{% endif %}</td>
<td class="n">{% if f.images is none %}{{ t("measured.few") }}{% else %}{{ f.images }}{% endif %}</td>
<td class="n">{% if f.dice is none %}–{% else %}{{ f.dice.value|third }}<span class="soft">{{ t("interval", low=f.dice.low|third, high=f.dice.high|third) }}</span>{% endif %}</td></tr>
{% endfor %}
</tbody></table>
{% endif %}
{% endif %}
{% if columns %}
{% if r.measurement %}<h4>{{ t("exact") }}{{ exact() }}</h4>{% endif %}
{% for metric, table in tables %}
<table tabindex="0"><thead><tr><th scope="col">{{ t(metric) }}</th>{% for c in columns %}<th scope="col" class="n">{{ c }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name, task, cells in table.rows %}
<tr><th scope="row" class="who">{{ name }}<span class="soft">{{ task }}</span></th>
{% for cell in cells %}<td class="n">{{ "–" if cell is none else cell|third }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
<tfoot><tr><th scope="row">{{ t("table.mean-" + table.of) }}</th>
{% for m in table.means %}<td class="n">{% if m.value is none %}–{% else %}{{ m.value|third }}{% if m.count < table.rows|length %} <span class="soft">{{ t("table.of-" + table.of, n=m.count, all=table.rows|length) }}</span>{% endif %}{% endif %}</td>{% endfor %}</tr></tfoot>
</table>
{% endfor %}
<figure tabindex="0">{{ plots.auc }}{{ plots.dice }}<figcaption>{{ t("results.figure") }}{% if baselines %} {{ t("results.baselines") }}{% if shared_noise %} {{ t("results.shared") }}{% endif %}{% endif %}</figcaption></figure>
{% elif not r.measurement %}<p>{{ t("results.none", setting=code("evaluation: {epsilon: 1}")) }}</p>{% endif %}
<h4>{{ t("even") }}</h4>
<p>{% for e in even %}{{ t("even.text", metric=e.metric, low=e.low|third, low_site=e.low_site, high=e.high|third, high_site=e.high_site) }} {% else %}{{ t("even.unknown") }} {% endfor %}
{{ t("even.groups", groups=said("groups")) }}</p>
{% if r.fitted_heads %}
<h4>{{ t("fitted") }}</h4>
<p>{{ t("fitted.text") }}</p>
<table tabindex="0"><thead><tr><th scope="col">{{ t("site") }}</th><th scope="col">{{ t("fitted.on") }}</th><th scope="col" class="n">{{ t("fitted.labelled") }}</th><th scope="col">{{ t("fitted.metric") }}</th><th scope="col" class="n">{{ t("split.test") }}</th></tr></thead>
<tbody>
{% for h in r.fitted_heads if h.split == "test" %}
<tr><th scope="row" class="who">{{ h.site }}<span class="soft">{{ t("fitted.joined" if h.joined else "fitted.took") }}; {{ h.task }}</span></th>
<td>{{ h.model }}</td><td class="n">{{ h.labelled }}</td><td>{{ h.metric }}</td>
<td class="n">{{ "–" if h.value is none else h.value|third }}</td></tr>
{% endfor %}
</tbody></table>
{% endif %}
<h3>{{ t("loss") }}{{ exact() if plots.losses }}</h3>
{% if plots.losses %}
<figure tabindex="0">{{ plots.losses }}<figcaption>{{ t("loss.figure") }}</figcaption></figure>
{% else %}<p>{{ t("loss.none") }}</p>{% endif %}
<h3>{{ t("pictures") }}</h3>
{% if pictures %}
<p>{{ t("pictures.kinds" if cohorts else "pictures.text") }}</p>
<div class="pictures">
{% for p in pictures %}
<figure><img alt="{{ t.title(p.title) }}" src="data:image/png;base64,{{ p.data }}"><figcaption><b>{{ p.title|q }}.</b>
{{ p.caption|q }}</figcaption></figure>
{% endfor %}
</div>
{% else %}<p>{{ t("pictures.none") }}</p>{% endif %}
{% endif %}

<h2>{{ t("trust") }}</h2>
{% if promise %}{% set few = promise.max_colluders %}
<table tabindex="0"><tbody>
{{ row("trust.model", t("trust.federated")) }}
{{ row("trust.against", t("trust.all") if few is none else t("trust.few", n=few)) }}
{{ row("trust.honest", t("trust.own") if few is none else t("trust.others", n=few)) }}
{{ row("trust.queries", t("trust.queries.text")) }}
</tbody></table>
{% else %}<p>{{ t("full.old") }}</p>{% endif %}
<h3>{{ t("left") }}</h3>
{% if r.model.concepts %}
{% set kinds %}{% for c in r.model.concepts %}{{ t("left.kind.many" if c.sites|length > 1 else "left.kind.one", sites=names(c.sites), kind=code(c.kind)) }}{{ "; " if not loop.last }}{% endfor %}{% endset %}
<p>{{ t("left.concepts", kinds=kinds) }}</p>
{% elif not statistics %}
<p>{{ t("left.no-concepts") }}</p>
{% endif %}
{% for who, list in egress %}
<h4>{{ names(who) }}</h4>
{% if list.released %}
<table tabindex="0"><thead><tr><th scope="col">{{ t("left.item") }}</th><th scope="col">{{ t("left.mechanism") }}</th><th scope="col">{{ t("left.covered") }}</th></tr></thead>
<tbody>
{% for item in list.released %}
<tr{% if not item.covered %} class="open"{% endif %}><td class="item">{{ item.what|q }}<span class="soft names">{{ names(item.names) }}</span></td>
<td>{{ item.mechanism|q }}</td>
<td class="yesno">{% if item.covered %}<span class="yes">{{ t("left.yes") }}</span>{% else %}<span class="no">{{ t("left.no") }}</span>{% endif %}</td></tr>
{% endfor %}
</tbody></table>
{% else %}<p class="no">{{ t("left.undeclared") }}</p>{% endif %}
{% if list.not_covered %}
<p><b>{{ t("left.gaps") }}</b></p>
<ul>{% for text in list.not_covered %}<li>{{ text|q }}</li>{% endfor %}</ul>
{% else %}<p class="no">{{ t("left.no-gaps") }}</p>{% endif %}
{% endfor %}

<h2>{{ t("implementation") }}</h2>
<h3>{{ t("random") }}</h3>
<table tabindex="0"><tbody>
{% if promise %}{{ row("random.title", t("random.text" if promise.randomness.sampling == "poisson" else "random.counted", key=t("key." + promise.randomness.key))) }}{% endif %}
{% set versions %}{% for k, v in r.packages|dictsort %}{{ k }}&nbsp;{{ v }}{{ ", " if not loop.last }}{% endfor %}{% endset %}
{{ row("versions", versions) }}
{{ row("sources", code(r.source_hash)) }}
</tbody></table>
<h3 id="audit">{{ t("audit") }}</h3>
{% if r.audits %}
{% for a in r.audits.canaries %}
<p><b>{{ names(a.sites) }}: <span class="{{ "yes" if a.passed else "no" }}">{{ t("audit.passed" if a.passed else "audit.failed") }}.</span></b> {{ t("audit.verdict", verdict=a.verdict, correct=a.correct, guesses=a.guesses, low=a.epsilon_lower_bound|down, claimed=a.claimed_epsilon|eps, half=a.expected_at_half_noise|down) }}{% if not a.passed and t.language != "en" %} {{ a.verdict|q }}{% endif %}</p>
{% endfor %}
<p class="soft small">{{ t("audit.canaries", methods=r.audits.canaries|map(attribute="method")|unique|map("q")|join(", ")) }}</p>
{% if r.audits.membership %}
<table tabindex="0">
<thead><tr><th scope="col">{{ t("site") }}</th><th scope="col" class="n">{{ t("audit.members") }}</th>{% for f in r.audits.membership[0].found %}<th scope="col" class="n">{{ t("audit.found", alarms=f.false_alarms|share) }}</th>{% endfor %}<th scope="col" class="n">{{ t("audit.auc") }}</th></tr></thead>
<tbody>
{% for m in r.audits.membership %}
<tr><th scope="row" class="who">{{ m.site }}<span class="soft">{{ m.task }}</span></th><td class="n">{{ m.members }} / {{ m.others }}</td>
{% for f in m.found %}<td class="n">{{ (100 * f.rate)|first }}&nbsp;%{% if f.refutes %} <span class="no">{{ t("audit.refutes") }}</span>{% endif %}{% if f.bound is not none %}<span class="soft">{{ t("audit.allowed", share=f.bound|percent) }}</span>{% endif %}</td>{% endfor %}
<td class="n">{{ m.auc|third }}</td></tr>
{% endfor %}
</tbody></table>
<p class="soft small">{{ t("audit.membership", attacks=r.audits.membership|map(attribute="attack")|unique|map("q")|join(", ")) }}{{ exact() }}</p>
{% endif %}
{% else %}<p>{{ t("audit.none") }}</p>{% endif %}
<p>{{ t("audit.people", text=said("audit")) }}</p>
<h3>{{ t("repeat") }}</h3>
<table tabindex="0"><tbody>
{{ row("repeat.run", code(r.run_id)) }}
{{ row("repeat.seed", r.seed) }}
{{ row("repeat.model", (r.model.network if r.model.network is defined else "Medformer " ~ r.model.preset) ~ (t("repeat.parameters", n=r.model.shared_parameters|thousands) if r.model.shared_parameters is defined else "")) }}
<tr><th scope="row" class="who">{{ t("repeat.schedule") }}</th><td>{% for p in r.schedule %}{{ p.name }}: {{ t.rounds(p.rounds) }}{% if p.trains != "all" %}{{ t("repeat." + p.trains) }}{% endif %}{% if p.sends and p.shared_with == "kind" %}{{ t("repeat.kind") }}{% endif %}{% if not p.sends %}{{ t("repeat.alone") }}{% endif %}{% if p.freeze_own %}{{ t("repeat.frozen") }}{% endif %}; {{ t("repeat.losses") }}
{% for o, w in p.objectives|dictsort %}{{ w|general }} {{ o }}{{ " + " if not loop.last }}{% endfor %}{% if not loop.last %}<br>{% endif %}{% endfor %}</td></tr>
{% if r.masked %}{{ row("repeat.answers", t("repeat.masked-shared" if shared_noise else "repeat.masked")) }}
{% endif %}{% if r.recipe %}{{ row("repeat.recipe", r.recipe|q) }}
{% endif %}<tr><th scope="row" class="who">{{ t("repeat.public") }}</th><td>{% if r.public_pretraining %}<span lang="en">{% for k, v in r.public_pretraining|dictsort %}{{ k }}:
{% if v is mapping %}{% for o, w in v|dictsort %}{{ w|general }} {{ o }}{{ " + " if not loop.last }}{% endfor %}{% else %}{{ v }}{% endif %}{{ ", " if not loop.last }}{% endfor %}</span> {{ t("repeat.free") }}{% else %}{{ t("repeat.no-public") }}{% endif %}</td></tr>
{% if r.model.features is defined %}{{ row("repeat.features", r.model.features|q) }}
{% endif %}{% if r.started_from %}{{ row("repeat.start", r.started_from|q) }}
{% endif %}{% if r.extensions is defined and r.extensions %}{% set own %}{% for name, h in r.extensions|dictsort %}{{ t("repeat.outside.one", name=code(name), sha=code(h)) }}{{ "; " if not loop.last }}{% endfor %}{% endset %}
{{ row("repeat.outside", t("repeat.outside.text", code=own)) }}
{% endif %}
</tbody></table>

<h2>{{ t("security") }}</h2>
<h3>{{ t("security.seals") }}</h3>
{% if r.ledger_hashes or guards %}
<table tabindex="0"><tbody>
{% if r.ledger_hashes %}{% set rows %}{% for name, h in r.ledger_hashes|dictsort %}{{ name }} <code>{{ h[:16] }}</code>{{ ", " if not loop.last }}{% endfor %}{% endset %}
{{ row("security.rows", t("security.rows.text", rows=rows, command=code("fedmedformer site ledger verify STATE --report report.json --site NAME"))) }}
{% endif %}{% if guards %}{% set signers %}{% for name, f in guards %}{{ t("security.guard", site=name, key=code(f)) }}{{ ", " if not loop.last }}{% endfor %}{% endset %}
{{ row("security.signed", t("security.signed.text", guards=signers, verify=code("fedmedformer verify report.json"), show=code("site guard-key"))) }}
{% endif %}
</tbody></table>
{% else %}<p>{{ t("security.none") }}</p>{% endif %}
<h3>{{ t("events") }}</h3>
{% if r.events %}
<table tabindex="0"><thead><tr><th scope="col" class="n">{{ t("events.round") }}</th><th scope="col">{{ t("site") }}</th><th scope="col">{{ t("events.event") }}</th><th scope="col">{{ t("events.reason") }}</th></tr></thead><tbody>
{% for e in r.events %}<tr><td class="n">{{ e.round }}</td><td class="who">{{ e.site }}</td>
<td class="narrow">{{ t.named("event." + e.kind, e.kind) }}</td><td>{{ e.text|q }}</td></tr>{% endfor %}
</tbody></table>
{% else %}<p>{{ t("events.none", command=code("site ledger show")) }}</p>{% endif %}

<h2>{{ t("data") }}</h2>
<table tabindex="0"><tbody>
{{ row("data.kind", t("data.static")) }}
{{ row("data.where", t("data.where.text")) }}
{% for name in ("data_collection", "withdrawal", "retention") %}{{ statement(name) }}
{% endfor %}
</tbody></table>

<h2>{{ t("stated") }}</h2>
<p>{{ t("stated.text") }}</p>
<table tabindex="0"><tbody>
{% for name in statements %}{{ statement(name, own=true) }}
{% endfor %}
</tbody></table>

<h2>{{ t("map") }}</h2>
<p>{{ t("map.text") }}</p>
<table tabindex="0"><thead><tr><th scope="col">{{ t("map.layer") }}</th><th scope="col">{{ t("map.section") }}</th></tr></thead><tbody>
{% for key, sections in (("epsilon", "1, 2"), ("algorithm", "3"), ("trust", "4"), ("implementation", "5"), ("security", "6"), ("data", "7, 8")) %}<tr><td>{{ t("map." + key) }}</td><td>{{ sections }}</td></tr>
{% endfor %}
</tbody></table>
<p class="soft small">{{ t("end", json=code("report.json"), schema=code("report.schema.json")) }}</p>
</main></body></html>
"""
