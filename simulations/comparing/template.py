"""The text of the page of a comparison. It is a string, because app bundles hold Python files only."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body><main>
{% macro interval(x) %}{{ "%.3f"|format(x.mean) }}<span class="soft">{% if x.low is none %}one seed{% else %}{{ "%.3f"|format(x.low) }} to {{ "%.3f"|format(x.high) }}{% endif %}</span>{% endmacro %}

<header>
<h1>{{ title }}</h1>
<p class="soft small">{{ c.runs|length }} run{{ "s" if c.runs|length != 1 }} in {{ c.groups|length }} setting{{ "s" if c.groups|length != 1 }}; written by fedmedformer {{ version }}, {{ now }}</p>
</header>

<p class="warn"><b>These are simulations.</b> Results are exact and stand on test images that no run was
trained on. No guarantee covers this page: between hospitals none of these values would leave a site.</p>

<h2>1. What is compared</h2>
<p>Runs with equal settings and sources form one numbered setting; they differ in their seeds alone.
Another seed divides the records anew and draws other noise. An interval is Student's, at
{{ (100 * level)|round|int }}&nbsp;% over the seeds of a setting: it says how other seeds would come out on the same images,
and nothing about other patients. One seed has no interval.{% if few %} With two seeds it is very wide.{% endif %}</p>
<table tabindex="0">
<thead><tr><th scope="col">setting</th><th scope="col">differs in</th><th scope="col" class="n">&epsilon;</th><th scope="col" class="n">&delta;</th><th scope="col">seeds</th><th scope="col">run folders</th></tr></thead>
<tbody>
{% for g in c.groups %}
<tr><th scope="row">{{ g.number }}</th><td>{{ g.label }}</td><td class="n">{{ g.epsilon|eps }}</td><td class="n">{{ delta(g)|sci }}</td>
<td>{{ g.runs|map(attribute="seed")|join(", ") }}</td><td>{{ g.runs|map(attribute="folder")|join(", ") }}</td></tr>
{% endfor %}
</tbody></table>
<p class="soft small">&epsilon; and &delta; are the largest of one site in one run, over the whole run, rounded up.</p>
{% if c.runs|length > 1 %}
<p class="note"><b>Each &epsilon; holds for one run alone.</b> Whoever publishes several of these runs, or chooses
settings by them, reveals what all of them reveal. On the same people's records, all {{ c.runs|length }} runs together have
&epsilon;&nbsp;=&nbsp;{{ c.together[0]|eps }}, &delta;&nbsp;=&nbsp;{{ c.together[1]|sci }} (basic composition), and baselines come on top.
Choose settings on public images, and train once on private ones.</p>
{% endif %}
{% if missing %}
<p class="warn"><b>{{ missing|length }} wanted run{{ "s" if missing|length != 1 }} failed and {{ "are" if missing|length != 1 else "is" }} missing here:</b>
{% for name, reason in missing.items() %}{{ name }} ({{ reason }}){{ "; " if not loop.last else "." }}{% endfor %}</p>
{% endif %}
{% if c.sources|length > 1 %}
<p class="warn"><b>The runs were made by {{ c.sources|length }} versions of the sources</b>, which are settings of their own here: a
difference may come from the code.</p>
{% endif %}
{% if differs %}
<h3>Settings that differ</h3>
<table tabindex="0">
<thead><tr><th scope="col">key</th><th scope="col">value</th><th scope="col">in setting</th></tr></thead>
<tbody>
{% for key, values in differs %}{% for value, numbers in values %}
<tr>{% if loop.first %}<th scope="row" class="who" rowspan="{{ values|length }}"><code>{{ key }}</code></th>{% endif %}<td>{{ value }}</td><td>{{ numbers|join(", ") }}</td></tr>
{% endfor %}{% endfor %}
</tbody></table>
<p class="soft small">All other settings of these runs are equal, apart from seeds and names.</p>
{% endif %}
{% if c.left_out %}
<h3>Results that count in no mean</h3>
<p>At least one run has the site and the model, and no value: it is not defined on these test images, or the site
took no part. The result is left out of the means of <b>all</b> runs, so that they stay the same measure:
{% for place in c.left_out %}{{ place.metric }} of {{ place.site }} ({{ place.task }}, {{ place.model }}){{ "; " if not loop.last else "." }}{% endfor %}</p>
{% endif %}

<h2>2. Utility</h2>
{% for metric in c.metrics %}
<h3>Test {{ names[metric] }}</h3>
<figure tabindex="0">{{ plots["utility-" + metric] }}<figcaption>{% if metric in over %}Means over seeds with their intervals; small dots are single
runs.{% if many[metric] %} Baselines are left out of the plot, because there are too many lines; the table has them.{% endif %}{% else %}Means over seeds with their
intervals, one row a setting.{% endif %} An interval that leaves the plot is wider than its scale.</figcaption></figure>
<table tabindex="0">
<thead><tr><th scope="col">setting</th><th scope="col">differs in</th><th scope="col" class="n">&epsilon;</th><th scope="col" class="n">seeds</th>{% for m in c.models if (m, metric) in having %}<th scope="col" class="n">{{ m }}</th>{% endfor %}</tr></thead>
<tbody>
{% for g in c.groups %}
<tr><th scope="row">{{ g.number }}</th><td>{{ g.label }}</td><td class="n">{{ g.epsilon|eps }}</td><td class="n">{{ g.runs|length }}</td>
{% for m in c.models if (m, metric) in having %}{% set x = means.get((g.number, m, metric)) %}<td class="n">{% if x %}{{ interval(x) }}{% if x.seeds != g.runs|length %}<span class="soft">{{ x.seeds }} of {{ g.runs|length }} seeds</span>{% endif %}{% else %}–{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table>
{% endfor %}
<p class="soft small">A mean is over test sets: sites that share one, as those of a divided data set do, count as one.
<b>federated-dp</b> is the run itself{% if c.models|length > 1 %}; the others are baselines of the same run, on the same records, outside the
ledger. Those that end in <b>plain</b> have no privacy, all others the &epsilon; of their row{% if c.models|select("in", own_heads)|list %}.
<b>own head</b>: a hospital fitted it for itself after the run, without privacy{% endif %}{% endif %}.</p>

<h2>3. Differences on common seeds</h2>
{% if c.paired %}
<p>Both sides of a difference have the same seed, and so the same division of the records. <b>more</b> and <b>less</b>: the interval
leaves zero out. Many intervals are shown side by side, and one in twenty would leave out zero by chance.</p>
<table tabindex="0">
<thead><tr><th scope="col">metric</th><th scope="col">model</th><th scope="col">minus</th><th scope="col" class="n">difference</th><th scope="col" class="n">seeds</th><th scope="col">verdict</th></tr></thead>
<tbody>
{% for p in c.paired %}
<tr><td class="narrow">{{ names[p.metric] }}</td><th scope="row">{{ p.model }}<span class="soft">setting {{ p.group }}: {{ labels[p.group] }}</span></th>
<td class="narrow">{{ p.against_model }}<span class="soft">setting {{ p.against_group }}{% if p.against_group != p.group %}: {{ labels[p.against_group] }}{% endif %}</span></td>
<td class="n">{{ "%+.3f"|format(p.mean) }}<span class="soft">{% if p.low is none %}one seed{% else %}{{ "%+.3f"|format(p.low) }} to {{ "%+.3f"|format(p.high) }}{% endif %}</span></td>
<td class="n">{{ p.seeds }}</td><td class="narrow">{{ p.verdict }}</td></tr>
{% endfor %}
</tbody></table>
{% else %}<p>There is nothing to pair: no setting shares a seed with the first one, and no run has a baseline.</p>
{% endif %}

<h2>4. Each site</h2>
<table tabindex="0">
<thead><tr><th scope="col">site</th><th scope="col">model</th><th scope="col">metric</th>{% for g in c.groups %}<th scope="col" class="n">setting {{ g.number }}<br>{{ g.label }}</th>{% endfor %}</tr></thead>
<tbody>
{% for (site, task, model, metric), cells in sites %}
<tr><th scope="row" class="who">{{ site }}<span class="soft">{{ task }}</span></th><td class="narrow">{{ model }}</td><td class="narrow">{{ names[metric] }}</td>
{% for g in c.groups %}<td class="n">{% if g.number in cells %}{{ interval(cells[g.number]) }}{% else %}–{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table>

<h2>5. ROC curves</h2>
{% if plots.roc %}
<figure tabindex="0">{{ plots.roc }}<figcaption>{% if c.groups|length == 1 %}The run's own model at each site, on test images: mean over seeds.{% else %}The runs' own
models on test images: mean over sites, test sets and seeds.{% endif %} With several classes or labels it is the mean of each against all
others. Dotted: a guess.{% if c.groups|length > 12 %} The plot shows the first 12 settings.{% endif %}</figcaption></figure>
<table tabindex="0">
<thead><tr><th scope="col">setting</th><th scope="col">site</th>{% for rate in rates %}<th scope="col" class="n">sensitivity at<br>{{ "%g"|format(100 - 100 * rate) }}&nbsp;% specificity</th>{% endfor %}</tr></thead>
<tbody>
{% for group, site, task, own in points %}
<tr><th scope="row">{{ group }}</th><td class="narrow">{{ "mean over test sets" if not task else site }}<span class="soft">{{ task or labels[group] }}</span></td>
{% for p in own %}<td class="n">{{ "%.3f"|format(p.sensitivity) }}<span class="soft">{% if p.low is none %}one seed{% else %}{{ "%.3f"|format(p.low) }} to {{ "%.3f"|format(p.high) }}{% endif %}</span></td>{% endfor %}</tr>
{% endfor %}
</tbody></table>
{% else %}<p>No curve is kept for all of these runs: an earlier version made one of them, no task gives a whole image a class, or a test set
lacks a class.</p>{% endif %}

<h2>6. Learning curves</h2>
{% if plots.validation or plots.loss %}
{% if plots.validation %}<figure tabindex="0">{{ plots.validation }}<figcaption>Mean AUC on validation images at the end of each phase, from the first one that
used labels.</figcaption></figure>{% endif %}
{% if plots.loss %}<figure tabindex="0">{{ plots.loss }}<figcaption>Mean training loss of each round, over sites and seeds, without noise. Each phase has its own mix of
objectives. {{ "All settings have the same phases and mixes, so that their losses compare." if same_mixes else "The settings have different phases or mixes: losses compare only where the mixes in the table are equal." }}</figcaption></figure>{% endif %}
<table tabindex="0">
<thead><tr><th scope="col">setting</th><th scope="col">phase</th><th scope="col">loss is</th><th scope="col" class="n">last round</th><th scope="col" class="n">loss there</th><th scope="col" class="n">validation AUC</th></tr></thead>
<tbody>
{% for p, mix in ends %}
<tr><th scope="row">{{ p.group }}</th><td>{{ p.phase }}</td><td>{{ mix }}</td><td class="n">{{ p.round }}</td>
<td class="n">{{ "–" if p.loss is none else "%.3f"|format(p.loss) }}</td>
<td class="n">{% if p.validation_auc is none %}–{% else %}{{ "%.3f"|format(p.validation_auc) }}<span class="soft">{% if p.low is none %}one seed{% else %}{{ "%.3f"|format(p.low) }} to {{ "%.3f"|format(p.high) }}{% endif %}</span>{% endif %}</td></tr>
{% endfor %}
</tbody></table>
{% else %}<p>These runs recorded no curve.</p>{% endif %}

{% if maps %}
<h2>7. Maps of public images</h2>
<p>Each point is a public image as the shared model of a setting's first run sees it: the mean of its tokens, on the two axes
along which they differ most. No record of any site is shown, and nothing about one can be read from it beyond what the model itself
reveals.</p>
{% for images, svg, own in maps %}
<figure tabindex="0">{{ svg }}<figcaption>{{ images|capitalize }}.{% if own|length > max_maps %} The plot shows the first {{ max_maps }} settings.{% endif %}</figcaption></figure>
<table tabindex="0">
<thead><tr><th scope="col">setting</th><th scope="col">differs in</th><th scope="col" class="n">images</th><th scope="col" class="n">variance along<br>the two axes</th><th scope="col" class="n">images of the class of<br>most of their 5 nearest</th></tr></thead>
<tbody>
{% for g, m in own %}
<tr><th scope="row">{{ g.number }}</th><td>{{ g.label }}</td><td class="n">{{ m.points|length }}</td><td class="n">{{ "%.0f"|format(100 * (m.explained[0] + m.explained[1])) }}&nbsp;%</td>
<td class="n">{{ "%.0f"|format(100 * m.neighbours_agree) }}&nbsp;%</td></tr>
{% endfor %}
</tbody></table>
{% endfor %}
{% endif %}

<p class="soft small"><code>compare.json</code> beside this page holds the same numbers, and <code>compare.csv</code> every test result of
every run in a row of its own.</p>
</main></body></html>
"""
