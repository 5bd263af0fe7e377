"""Exact AUC and accuracy as MedMNIST defines them: for a site's own eyes and for simulations.

By scipy, which Opacus loads anyway, and not by `medmnist.evaluator`, which costs 1.5 s and 75 MB in
every process; a test holds the one against the other.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from client.data.records import Records, Stack
from client.site import Site
from medformer.config import UNLABELLED, Task
from medformer.model import Medformer
from medformer.tasks import probabilities

CHUNK = 256
Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def scores(
    model: Medformer, site: Site, records: Records, task: Task
) -> Iterator[tuple[Stack, Tensor]]:
    """The records in chunks, in their order, each with the probabilities of a task, (B, T) or
    (B, T, *spatial)."""
    model.eval()
    with torch.no_grad():
        for stack in records.stacks:
            for first in range(0, len(stack), CHUNK):
                part = stack[slice(first, first + CHUNK)]
                logits = model.answer(
                    part.images, site.domain, task.name, part.spacing, flip=site.flip
                )
                yield part, probabilities(logits, task)


def auc(truth: Labels, predicted: Scores) -> float | None:
    """Area under the ROC curve as `medmnist.evaluator.getAUC`: the mean over classes or labels.

    Args:
        truth: (N,) classes, or (N, T) labels.
        predicted: (N, T) probabilities; (N, 1) for a binary task.
    Returns:
        None where it is not defined: a class that nobody has, or a label that everybody has.
    """
    columns = truth
    if truth.ndim == 1:
        outputs = predicted.shape[1]
        columns = truth[:, None] == (np.arange(outputs) if outputs > 1 else 1)
    positive = columns.sum(0)
    if not positive.all() or (positive == len(truth)).any():
        return None
    pairs = zip(columns.T == 1, predicted.T, strict=True)
    areas = [mannwhitneyu(p[own], p[~own]).statistic / own.sum() / (~own).sum() for own, p in pairs]
    return float(np.mean(areas))


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
    """The probabilities of a task that is not dense, for all records, (N, T)."""
    return torch.cat([given for _, given in scores(model, site, records, task)])


def classified(records: Records, task: Task, given: Tensor) -> dict[str, float | None]:
    """AUC and accuracy of the valid, labelled records.

    Args:
        given: (N, T) probabilities of all records, as `predicted` gives them.
    """
    truth = records.joined(task.name)
    known = records.valid & (truth[:, None] != UNLABELLED).flatten(1).all(1)
    own, answers = truth[known].numpy(), given[known].numpy().astype(np.float64)
    return {"auc": auc(own, answers), "accuracy": accuracy(own, answers)}


def _dense(model: Medformer, site: Site, records: Records, task: Task) -> dict[str, float | None]:
    if not len(records):
        return {"dice": None, "accuracy": None}
    truths, answers = [], []
    for part, given in scores(model, site, records, task):
        truth = part.labels[task.name]
        known = (truth != UNLABELLED) & part.valid.view(-1, *[1] * (truth.ndim - 1))
        truths.append(truth[known])
        answers.append(given.argmax(1)[known])
    truth, answer = torch.cat(truths), torch.cat(answers)
    right = float((truth == answer).float().mean()) if len(truth) else None
    return {"dice": dice(truth, answer, task.classes), "accuracy": right}
