"""Exact AUC and accuracy as MedMNIST defines them: for a site's own eyes and for simulations.

Not by `medmnist.evaluator`, which costs 1.5 s and 75 MB in every process; a test holds the one
against the other. AUC ranks images by log odds in float64, and shares of right answers come from
probabilities in float64: in float32 both round to 0 or 1 where a head is sure, and images tie.
"""

import logging
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from client.data.records import Records, Stack
from client.ranking import Ranking
from client.site import Site
from medformer.config import UNLABELLED, Task
from medformer.model import Medformer
from medformer.tasks import log_odds, probabilities

log = logging.getLogger(__name__)

CHUNK = 256
Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def answers(
    model: Medformer, site: Site, records: Records, task: Task
) -> Iterator[tuple[Stack, Tensor]]:
    """The records in chunks, in their order, each with the logits of a task, (B, T) or
    (B, T, *spatial)."""
    model.eval()
    with torch.no_grad():
        for stack in records.stacks:
            for first in range(0, len(stack), CHUNK):
                part = stack[slice(first, first + CHUNK)]
                yield (
                    part,
                    model.answer(part.images, site.domain, task.name, part.spacing, flip=site.flip),
                )


def auc(truth: Labels, predicted: Scores) -> float | None:
    """Area under the ROC curve as `medmnist.evaluator.getAUC`: the mean over classes or labels.

    Of each class against all others, and of each label: how often an image that shows it has a
    higher score than one that does not, ties counted half.

    Args:
        truth: (N,) classes, or (N, T) labels.
        predicted: (N, T) scores, the higher the likelier; (N, 1) for a binary task. Log odds in
            float64, because probabilities near 0 and 1 round to the same number.
    Returns:
        None where it is not defined, and no mean over the other classes, which would not be the
        same measure: a class that no image of the split shows, a label that none or every image
        has, or a score that is NaN.
    """
    columns = _columns(truth, predicted.shape[1])
    if len(_present(columns)) < columns.shape[1] or np.isnan(predicted).any():
        return None
    once = np.ones((1, len(truth)))
    pairs = zip(columns.T, predicted.T, strict=True)
    return float(np.mean([Ranking(own, scores).auc(once)[0] for own, scores in pairs]))


def _columns(truth: Labels, outputs: int) -> npt.NDArray[np.bool_]:
    """(N, T) which image shows which class or label; of a binary task the finding alone."""
    if truth.ndim > 1:
        return truth == 1
    return truth[:, None] == (np.arange(outputs) if outputs > 1 else 1)


def _present(columns: npt.NDArray[np.bool_]) -> list[int]:
    """Columns of which there are images that show them, and images that do not."""
    shown = columns.sum(0)
    return [int(k) for k in np.flatnonzero((shown > 0) & (shown < len(columns)))]


def accuracy(truth: Labels, predicted: Scores) -> float | None:
    """Share of right answers as `medmnist.evaluator.getACC`: of labels for a multi-label task."""
    if not len(truth):
        return None
    one_a_row = truth.ndim == 1 and predicted.shape[1] > 1
    answers = predicted.argmax(1) if one_a_row else (predicted > 0.5).astype(int)
    return float((answers == truth.reshape(answers.shape)).mean())


def dice(truth: Tensor, predicted: Tensor, classes: int) -> float | None:
    """Mean Dice overlap of the classes but the first, over all images together.

    Args:
        truth: (M,) class of each pixel.
        predicted: (M,) most likely class of each pixel.
    Returns:
        None where no pixel shows any of these classes, in truth or prediction.
    """
    overlaps = []
    for kind in range(1, classes):
        own, given = truth == kind, predicted == kind
        size = int(own.sum() + given.sum())
        if size:
            overlaps.append(2 * int((own & given).sum()) / size)
    return sum(overlaps) / len(overlaps) if overlaps else None


def evaluate(
    model: Medformer, site: Site, records: Records, split: str
) -> list[dict[str, str | float | None]]:
    """Metrics of the valid, labelled records.

    Returns:
        One {task, metric, split, value} a task and metric: AUC and accuracy (medmnist.evaluator),
        or Dice and accuracy of a dense task. The AUC of a split that lacks a class is None.
    """
    rows: list[dict[str, str | float | None]] = []
    for task in site.tasks:
        measure = _dense if task.kind == "dense" else _classes
        for metric, value in measure(model, site, records, task).items():
            rows.append({"task": task.name, "metric": metric, "split": split, "value": value})
    return rows


def _classes(model: Medformer, site: Site, records: Records, task: Task) -> dict[str, float | None]:
    if not len(records):
        return {"auc": None, "accuracy": None}
    return classified(records, task, predicted(model, site, records, task))


def predicted(model: Medformer, site: Site, records: Records, task: Task) -> Tensor:
    """The logits of a task that is not dense, for all records, (N, T)."""
    return torch.cat([given for _, given in answers(model, site, records, task)])


def classified(records: Records, task: Task, given: Tensor) -> dict[str, float | None]:
    """AUC and accuracy of the valid, labelled records.

    Args:
        given: (N, T) logits of all records, as `predicted` gives them.
    """
    truth = records.joined(task.name)
    known = records.valid & (truth[:, None] != UNLABELLED).flatten(1).all(1)
    own, logits = truth[known].numpy(), given[known].double()
    scores, chances = log_odds(logits, task).numpy(), probabilities(logits, task).numpy()
    value = auc(own, scores)
    if value is None and len(own):
        columns = _columns(own, scores.shape[1])
        log.info(
            "task %s: no AUC, %d of %d classes are in this split beside others",
            task.name, len(_present(columns)), columns.shape[1],
        )  # fmt: skip
    return {"auc": value, "accuracy": accuracy(own, chances)}


def _dense(model: Medformer, site: Site, records: Records, task: Task) -> dict[str, float | None]:
    if not len(records):
        return {"dice": None, "accuracy": None}
    truths, given_classes = [], []
    for part, given in answers(model, site, records, task):
        truth = part.labels[task.name]
        known = (truth != UNLABELLED) & part.valid.view(-1, *[1] * (truth.ndim - 1))
        truths.append(truth[known])
        given_classes.append(given.argmax(1)[known])
    truth, answer = torch.cat(truths), torch.cat(given_classes)
    right = float((truth == answer).float().mean()) if len(truth) else None
    return {"dice": dice(truth, answer, task.classes), "accuracy": right}
