"""The page of an evaluation: one HTML file without any external resource, in words first."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from client.local import figures
from client.local.bootstrap import Interval
from client.local.predict import write
from client.local.results import Evaluation, TaskResult
from medformer.common.pages import STYLE

OWN = """
.banner { background: var(--bad); color: var(--paper); padding: 14px 20px; margin: -40px -48px 28px;
          font-weight: 600; } .banner small { display: block; font-weight: 400; font-size: 14px; }
.plots { display: flex; flex-wrap: wrap; gap: 8px 40px; } .plots figure { flex: 1 1 380px; max-width: 460px; }
.wide figure:first-child { max-width: none; flex-basis: 100%; }
table.confusion { width: auto; } table.confusion td { text-align: right; min-width: 5em; }
td.right { font-weight: 600; background: var(--noted); }
@media (max-width: 800px) { .banner { margin: -24px -18px 20px; } }
@media print { .banner { margin: 0 0 20px; } }
"""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{{ r.site }}: the model on the {{ r.split }} split (stays at the site)</title>
<style>{{ style }}</style>
</head>
<body><main>
<div class="banner">dp: none. This page was computed from private records without differential privacy: it stays at {{ r.site }}.
<small>No ledger covers its numbers. Only persons who may see the records themselves may read it. Research software: not a medical device, not validated for diagnosis.</small></div>
<header><h1>{{ r.site }}: the model on the {{ r.split }} split</h1>
<p class="soft small">{{ r.made }} &middot; {{ r.model }}</p></header>

<h2>In plain words</h2>
<ul class="lead">{% for line in words %}<li>{{ line }}</li>{% endfor %}</ul>
{% if r.split == "val" %}<p class="warn"><b>The model and its calibration were chosen on the val split</b>, so that these results are
too good. Judge the model by the test split.</p>{% endif %}
<p class="small soft">Intervals are 95 % bootstrap percentile intervals from {{ r.resamples }} resamples of the {{ r.units }}
{{ r.unit }}s.{% if r.unit == "image" %} The source does not name the patient of each image: if patients have several images, the
true intervals are wider.{% endif %} Shares of 0 and 1 have an exact binomial interval. An interval without width means
that all resamples give the same value, not that the value is certain. The intervals are not corrected for multiple comparisons.</p>

{% for t in r.tasks %}
<h2>{{ t.name }} <span class="soft">({{ t.kind }}, {{ t.images }} labelled images)</span></h2>
<table><thead><tr><th>measure</th><th class="n">value</th><th class="n">95 % interval</th><th>meaning</th></tr></thead><tbody>
{% for name, m in t.measures.items() %}<tr><td>{{ labels.get(name, name) }}</td><td class="n">{{ number(m.value) }}</td><td class="n">{{ span(m) }}</td><td class="soft">{{ meanings.get(name, "") }}</td></tr>
{% endfor %}{% if t.calibration_error is not none %}<tr><td>expected calibration error</td><td class="n">{{ number(t.calibration_error) }}</td><td class="n"></td>
<td class="soft">mean distance between stated probabilities and observed frequencies; before calibration {{ number(t.calibration_error_before) }}. It is never 0 with finitely many images.</td></tr>{% endif %}
</tbody></table>
{% if plots[t.name].roc %}<div class="plots{{ ' wide' if plots[t.name].many }}">
<figure>{{ plots[t.name].roc }}<figcaption>ROC curve{{ "s, each class against all others" if plots[t.name].many }}; the band holds 95 % of the resamples at each false-positive rate.</figcaption></figure>
{% endif %}{% if plots[t.name].reliability %}{% if not plots[t.name].roc %}<div class="plots">{% endif %}
<figure>{{ plots[t.name].reliability }}<figcaption>Reliability: dots on the dashed line mean that stated probabilities are right as often as
stated. {{ stated[t.kind] }} Bars below: number of answers.</figcaption></figure>{% endif %}
{% if plots[t.name].roc or plots[t.name].reliability %}</div>{% endif %}
<h3>By class</h3>
<table><thead><tr><th>{{ "label" if t.kind == "multi-label" else "class" }}</th><th class="n">{{ "pixels" if t.kind == "dense" else "images" }}</th>{% for name in heads[t.name] %}<th class="n">{{ labels.get(name, name) }}</th>{% endfor %}</tr></thead><tbody>
{% for c in t.classes %}<tr><th>{{ c.name }}</th><td class="n">{{ c.count }}</td>{% for name in heads[t.name] %}<td class="n">{% if name in c.measures %}{{ number(c.measures[name].value) }}<span class="soft">{{ span(c.measures[name]) }}</span>{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
{% if t.confusion %}<h3>Confusion matrix</h3>
<table class="confusion"><thead><tr><th>truth \\ answer</th>{% for c in t.classes %}<th class="n">{{ c.name }}</th>{% endfor %}</tr></thead><tbody>
{% for row in t.confusion %}{% set i = loop.index0 %}<tr><th>{{ t.classes[i].name }}</th>{% for n in row %}<td{% if loop.index0 == i %} class="right"{% endif %}>{{ n }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>{% endif %}
{% endfor %}

<h2>Images that the model does not answer</h2>
<p>The model abstains on images that are unlike its training images: on {{ percent(r.abstained.value) }} ({{ span(r.abstained, 100) }} %) of this split.
All numbers above include these images. {% if r.strangers %}On synthetic images of other modalities it abstained on
{% for kind, share in r.strangers.items() %}{{ percent(share) }} of {{ kind }}{{ ", " if not loop.last }}{% endfor %}.
Real images of other kinds may be harder to recognise: an answer does not prove that an image is of the right kind.{% endif %}</p>
</main></body></html>
"""

LABELS = {"auc": "AUC", "brier": "Brier score", "dice": "Dice overlap"}
MEANINGS = {
    "auc": "share of pairs in which an image with the class is ranked above one without it (0.5: guessing, 1: always)",
    "accuracy": "share of correct answers",
    "balanced accuracy": "mean sensitivity of the classes",
    "brier": "mean squared error of the probabilities (0: perfect)",
    "mean distance of grades": "mean number of grades by which the answer is off",
    "weighted kappa": "agreement beyond chance; larger errors count more (1: perfect)",
    "dice": "overlap of the outlines with the truth (0: none, 1: every pixel)",
}
STATED = {
    "binary-class": "Stated: the probability of the finding.",
    "multi-class": "Stated: the probability of the likeliest class.",
    "ordinal-regression": "Stated: the probability of the likeliest grade.",
    "multi-label": "Stated: the probability of every label, all labels together.",
    "dense": "",
}


def page(result: Evaluation) -> str:
    """Render the evaluation as HTML; names of classes are escaped.

    Args:
        result: The evaluation.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    plots = {
        t.name: {
            "roc": Markup(figures.roc(t)),
            "reliability": Markup(figures.reliability(t)),
            "many": sum(c.roc is not None for c in t.classes) > 2,
        }
        for t in result.tasks
    }
    return environment.from_string(TEMPLATE).render(
        r=result,
        style=Markup(STYLE + OWN),
        words=words(result),
        plots=plots,
        heads={t.name: _heads(t) for t in result.tasks},
        labels=LABELS,
        meanings=MEANINGS,
        stated=STATED,
        number=_number,
        span=_span,
        percent=_percent,
    )


def write_page(path: Path, result: Evaluation) -> Path:
    """Write the page, and its numbers as JSON beside it.

    Args:
        path: The HTML file.
        result: The evaluation.
    Returns:
        The JSON file.
    Raises:
        LocalError: The folder cannot be written.
    """
    beside = path.with_suffix(".json")
    write(beside, result.model_dump_json(indent=1) + "\n")
    write(path, page(result))
    return beside


def words(result: Evaluation) -> list[str]:
    """Return the results in sentences, for a reader who does not know the names of the measures.

    Args:
        result: The evaluation.
    """
    unusable = f"; {result.unusable} more cannot be used" if result.unusable else ""
    lines = [f"{result.images} images of {result.units} {result.unit}s{unusable}."
             if result.unit == "patient" else f"{result.images} images{unusable}."]  # fmt: skip
    for task in result.tasks:
        lines += [f"{task.name}: {line}" for line in _task_words(task)]
    lines.append(
        f"The model would abstain on {_percent(result.abstained.value)} of these images, because "
        "they look unlike its training images."
    )
    return lines


def _task_words(task: TaskResult) -> list[str]:
    """Return the results of one task in sentences."""
    lines, measures = [], task.measures
    # A dense task has no AUC.
    if (auc := measures.get("auc")) is not None:
        lines.append(
            f"of 100 pairs of an image that shows {'the finding' if task.kind == 'binary-class' else 'a class'} "
            f"and one that does not, it ranks about {_in_100(auc)} correctly."
            if auc.value is not None
            else f"no AUC: only {_present(task)} of {len(task.classes)} classes have images both "
            "with and without the class, and a mean over these would be another measure."
        )
    if (dice := measures.get("dice")) is not None and dice.value is not None:
        lines.append(f"its outlines overlap with the truth by {_in_100(dice)} %.")
    what = {"dense": "pixels", "multi-label": "labels"}.get(task.kind, "images")
    if measures["accuracy"].value is not None:
        lines.append(f"its answer is correct for {_in_100(measures['accuracy'])} of 100 {what}.")
    if task.calibration_error is not None:
        lines.append(
            "the stated probabilities are off by "
            f"{100 * task.calibration_error:.0f} percentage points on average."
        )
    # With fewer than 20 images one more or less moves a share by 5 points.
    if few := [c.name for c in task.classes if c.count < 20 and task.kind != "dense"]:
        lines.append(f"unreliable, with fewer than 20 images: the numbers of {', '.join(few)}.")
    return lines


def _present(task: TaskResult) -> int:
    """Count the classes that some images have and others do not."""
    return sum(0 < c.count < task.images for c in task.classes)


def _heads(task: TaskResult) -> Sequence[str]:
    """Return the names of all measures that any class has, in order."""
    return list(dict.fromkeys(name for c in sorted(task.classes, key=lambda c: -len(c.measures))
                              for name in c.measures))  # fmt: skip


def _in_100(found: Interval) -> str:
    """Return a share in percent, with its interval."""
    if found.value is None:
        return "an unknown number"
    value = f"{100 * found.value:.0f}"
    if found.low is None or found.high is None:
        return value
    return f"{value} (95 % interval {100 * found.low:.0f} to {100 * found.high:.0f})"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _span(found: Interval, factor: float = 1) -> str:
    """Format an interval; "" where there is none."""
    if found.low is None or found.high is None:
        return ""
    form = ".3f" if factor == 1 else ".1f"
    return f"{factor * found.low:{form}} – {factor * found.high:{form}}"


def _percent(share: float | None) -> str:
    return "an unknown share" if share is None else f"{100 * share:.1f} %"
