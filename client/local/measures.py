"""Measures of one task on a split, with intervals. N labelled images, K classes, T outputs, M
answers of an image."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from client.local.bootstrap import (
    Array,
    Bootstrap,
    Interval,
    Measure,
    mean,
    mean_of,
    share,
)
from client.local.calibration import Calibration
from client.local.results import Bin, ClassRow, Curve, TaskResult
from client.ranking import Ranking
from medformer.config import UNLABELLED, Task
from medformer.tasks import log_odds, probabilities

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
BINS = 10
"""Bins of stated probability, of equal width."""
GRID = np.linspace(0, 1, 101)
"""False-positive rates at which ROC curves are drawn."""


def classified(
    task: Task,
    names: list[str],
    logits: Tensor,
    labels: Tensor,
    calibration: Calibration,
    bootstrap: Bootstrap,
) -> TaskResult:
    """Measure a task that gives each image one class, or an answer for each label.

    Args:
        task: The task.
        names: Names of the classes.
        logits: (N, T), calibrated.
        labels: (N,) or (N, T), all known.
        calibration: The calibration that is folded into the logits.
        bootstrap: The resamples of the N images.
    """
    truth = labels.numpy()
    given = per_class(logits, task)
    # The page shows both errors, so that the effect of the calibration can be judged.
    before = per_class(calibration.undone(logits.double()), task)
    answer = given.argmax(1)
    columns, answered, right = _answered(task, truth, given)
    rankings = _rankings(task, logits, columns)
    measures = {
        "auc": bootstrap.interval(mean_of([r.auc for r in rankings.values()])),
        "accuracy": bootstrap.interval(mean(right)),
        "brier": bootstrap.interval(mean(_brier(given, columns, task))),
    }
    if task.kind != "multi-label":
        measures |= _of_one_answer(task, truth, answer, bootstrap)
    classes = [
        _row(bootstrap, names[k], columns[:, k], answered[:, k], rankings.get(k))
        for k in range(task.classes)
    ]
    # Several labels of one image have no single cell in the matrix.
    confusion = () if task.kind == "multi-label" else _confusion(truth, answer, task.classes)
    stated, correct = _stated(given, columns, task)
    return TaskResult(
        name=task.name,
        kind=task.kind,
        images=len(truth),
        measures=measures,
        classes=tuple(classes),
        confusion=confusion,
        reliability=_bins(bootstrap, stated, correct),
        calibration_error=calibration_error(stated, correct),
        calibration_error_before=calibration_error(*_stated(before, columns, task)),
    )


def _answered(task: Task, truth: Ints, given: Array) -> tuple[Bools, Bools, Array]:
    """Return the truth and the answers by class or label, (N, K), and the share right, (N,)."""
    if task.kind == "multi-label":
        columns, answered = truth == 1, given > 0.5
        return columns, answered, (columns == answered).mean(1)
    kinds, answer = np.arange(task.classes), given.argmax(1)
    columns, answered = truth[:, None] == kinds, answer[:, None] == kinds
    return columns, answered, (truth == answer).astype(np.float64)


def _rankings(task: Task, logits: Tensor, columns: Bools) -> dict[int, Ranking]:
    """Return class -> the ranking of the images by it; a binary task has one, of its finding."""
    shown = range(1, 2) if task.kind == "binary-class" else range(task.classes)
    scores = log_odds(logits, task).numpy().T
    return {k: Ranking(columns[:, k], own) for k, own in zip(shown, scores, strict=True)}


def _of_one_answer(
    task: Task, truth: Ints, answer: Ints, bootstrap: Bootstrap
) -> dict[str, Interval]:
    """Return the measures of tasks that give each image exactly one class. Truth, answer: (N,)."""
    hits = [share(answer == k, truth == k) for k in range(task.classes)]
    measures = {"balanced accuracy": bootstrap.interval(mean_of(hits))}
    # Only grades have an order, and so a distance.
    if task.kind == "ordinal-regression":
        distance = np.abs(truth - answer).astype(np.float64)
        measures["mean distance of grades"] = bootstrap.interval(mean(distance))
        measures["weighted kappa"] = bootstrap.interval(_kappa(truth, answer, task.classes))
    return measures


def per_class(logits: Tensor, task: Task) -> Array:
    """Convert logits (N, T) to probabilities (N, K), float64; a binary task gets its second column.

    Args:
        logits: (N, T).
        task: The task.
    """
    found = probabilities(logits.double(), task)
    if task.kind == "binary-class":
        found = torch.cat([1 - found, found], 1)
    return found.numpy()


def _brier(given: Array, columns: Bools, task: Task) -> Array:
    """Return the squared error of the probabilities, (N,), from 0 to 1 (Brier 1950, halved for
    classes).
    """
    squares = (given - columns) ** 2
    return squares.mean(1) if task.kind == "multi-label" else squares.sum(1) / 2


def _stated(given: Array, columns: Bools, task: Task) -> tuple[Array, Bools]:
    """Return stated probabilities and whether they came true, (N, M) each.

    They are those of the finding in a binary task, of the likeliest class, or of each label.
    """
    if task.kind == "multi-label":
        return given, columns
    if task.kind == "binary-class":
        return given[:, 1:], columns[:, 1:]
    # Only the answer that is shown must be calibrated, not every rejected class.
    top = given.argmax(1)[:, None]
    return np.take_along_axis(given, top, 1), np.take_along_axis(columns, top, 1)


def _edges(stated: Array) -> Ints:
    """Return the bin of each stated probability."""
    # A probability of exactly 1 belongs to the last bin.
    return np.minimum((stated * BINS).astype(np.int64), BINS - 1)


def calibration_error(stated: Array, correct: Bools) -> float:
    """Return the expected calibration error: mean distance of stated and observed probability over
    bins.

    Args:
        stated: (N, M) probabilities.
        correct: (N, M) whether they came true.

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    place, gap = _edges(stated), correct - stated
    return float(sum(abs(gap[place == b].sum()) for b in range(BINS)) / gap.size)


def _bins(bootstrap: Bootstrap, stated: Array, correct: Bools) -> tuple[Bin, ...]:
    """Return the bins of a reliability diagram that hold an answer."""
    place, found = _edges(stated), []
    for b in range(BINS):
        inside = place == b
        # An empty bin has no observed frequency.
        if not inside.any():
            continue
        hits, whole = (inside & correct).sum(1).astype(float), inside.sum(1).astype(float)

        def observed(weights: Array, hits: Array = hits, whole: Array = whole) -> Array:
            return (weights @ hits) / (weights @ whole)

        many = inside.shape[1] > 1
        # With one answer an image a bin of 0 or 1 gets the exact interval; labels of one image are
        # not independent trials, so that several answers cannot.
        interval = (
            bootstrap.interval(observed)
            if many
            else bootstrap.share((inside & correct)[:, 0], inside[:, 0])
        )
        found.append(
            Bin(stated=float(stated[inside].mean()), observed=interval, count=int(inside.sum()))
        )
    return tuple(found)


def _row(
    bootstrap: Bootstrap, name: str, own: Bools, answered: Bools, ranking: Ranking | None
) -> ClassRow:
    """Measure one class against all others."""
    measures = {
        "sensitivity": bootstrap.share(answered, own),
        "specificity": bootstrap.share(~answered, ~own),
        "positive predictive value": bootstrap.share(own, answered),
    }
    roc = None
    if ranking is not None:
        measures = {"auc": bootstrap.interval(ranking.auc), **measures}
        roc = _roc(bootstrap, ranking, len(own)) if measures["auc"].value is not None else None
    return ClassRow(name=name, count=int(own.sum()), measures=measures, roc=roc)


def _roc(bootstrap: Bootstrap, ranking: Ranking, images: int) -> Curve:
    """Return the ROC curve of one class with its band."""
    whole = ranking.curve(np.ones((1, images)), GRID)[0]
    drawn = np.concatenate([ranking.curve(w, GRID) for w in bootstrap.weights()])
    # A resample without positives or negatives has no curve.
    drawn = drawn[np.isfinite(drawn).all(1)]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0) if len(drawn) else (whole, whole)
    return Curve(tpr=tuple(whole.tolist()), low=tuple(low.tolist()), high=tuple(high.tolist()))


def _confusion(truth: Ints, answer: Ints, classes: int) -> tuple[tuple[int, ...], ...]:
    """Count answers (columns) by truth (rows)."""
    counts = np.bincount(truth * classes + answer, minlength=classes**2)
    return tuple(tuple(row) for row in counts.reshape(classes, classes).tolist())


def _kappa(truth: Ints, answer: Ints, classes: int) -> Measure:
    """Return the measure: quadratically weighted kappa (Cohen 1968)."""
    own, given = np.eye(classes)[truth], np.eye(classes)[answer]
    grades = np.arange(classes, dtype=np.float64)
    cost = (grades[:, None] - grades) ** 2
    apart = (truth - answer).astype(np.float64) ** 2

    def measure(weights: Array) -> Array:
        rows, columns = weights @ own, weights @ given
        chance = np.einsum("ri,ij,rj->r", rows, cost, columns) / weights.sum(1)
        # Where chance alone never disagrees, kappa is 0 / 0.
        return 1 - (weights @ apart) / np.where(chance > 0, chance, np.nan)

    return measure


def overlaps(logits: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Count the labelled pixels of each image and class.

    Args:
        logits: (N, T, *spatial).
        truth: (N, *spatial) int64.
        classes: K.
    Returns:
        (N, 3, K): pixels in both, in the truth, in the answer.
    """
    # Pixels without a label count in neither, as in training.
    known, answer = (truth != UNLABELLED)[:, None], logits.argmax(1)
    kinds = torch.arange(classes).view(1, -1, *[1] * (truth.ndim - 1))
    own = (truth[:, None] == kinds) & known
    given = (answer[:, None] == kinds) & known
    return torch.stack([x.flatten(2).sum(2) for x in (own & given, own, given)], 1)


def outlined(task: Task, names: list[str], counts: Tensor, bootstrap: Bootstrap) -> TaskResult:
    """Measure a dense task: Dice of all classes except the first, over all images together.

    Args:
        task: The task.
        names: Names of the classes.
        counts: (N, 3, K), from `overlaps`.
        bootstrap: The resamples of the N images.
    """
    both, own, given = counts.double().numpy().transpose(1, 0, 2)

    def overlap(k: int) -> Measure:
        return lambda w: 2 * (w @ both[:, k]) / (w @ (own[:, k] + given[:, k]))

    rows = [
        ClassRow(
            name=names[k],
            count=int(own[:, k].sum()),
            measures={"dice": bootstrap.interval(overlap(k))},
        )
        for k in range(1, task.classes)
    ]
    # Pooled over images, as in the federation: Dice of one image without the class is undefined.
    present = [k for k in range(1, task.classes) if (own + given)[:, k].any()]
    measures = {
        "dice": bootstrap.interval(mean_of([overlap(k) for k in present]))
        if present
        else Interval(value=None),
        "accuracy": bootstrap.interval(lambda w: (w @ both.sum(1)) / (w @ own.sum(1))),
    }
    images = int((own.sum(1) > 0).sum())
    return TaskResult(
        name=task.name, kind=task.kind, images=images, measures=measures, classes=tuple(rows)
    )
