"""Exact AUC, accuracy and Dice, without noise: for the site itself and for simulations.

AUC and accuracy are those of `medmnist.evaluator`. It is not imported, because it costs 1.5 s and
75 MB in every process; a test compares the two. Images are ranked by log odds in float64, and
accuracy comes from probabilities in float64: in float32, probabilities round to 0 or 1 where a head
is confident, and images tie that are not equal.

N images, B images of a chunk, T outputs of a task, M pixels.
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
"""Number of images that go through the model at once."""
Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def answers(
    model: Medformer, site: Site, records: Records, task: Task
) -> Iterator[tuple[Stack, Tensor]]:
    """Answer a task for all records, chunk by chunk.

    Args:
        model: Put into evaluation mode.
        site: Domain of the images; `flip` averages the answers for an image and its mirror image.
        records: In the order in which they are yielded.
        task: One of the site's tasks.
    Yields:
        Records of a chunk, and their logits, (B, T), or (B, T, *spatial) of a dense task.
    """
    model.eval()
    with torch.no_grad():
        for stack in records.stacks:
            for first in range(0, len(stack), CHUNK):
                part = stack[slice(first, first + CHUNK)]
                logits = model.answer(
                    part.images, site.domain, task.name, part.spacing,
                    natural=part.natural, flip=site.flip,
                )  # fmt: skip
                yield part, logits


def auc(truth: Labels, predicted: Scores) -> float | None:
    """Return the area under the ROC curve, averaged over classes or labels.

    For each class against all others, or each label: how often an image that shows it has a higher
    score than an image that does not; ties count half.

    Args:
        truth: (N,) classes, or (N, T) labels.
        predicted: (N, T) scores, a higher one meaning more likely; (N, 1) for a binary task. Pass
            log odds in float64, because probabilities near 0 and 1 round to the same number.
    Returns:
        The value of `medmnist.evaluator.getAUC`. None where that is not defined: no image of the
        split shows a class, no image or every image has a label, or a score is NaN. A mean over
        the remaining classes would be another measure.
    Source: Yang et al. 2023 (MedMNIST v2), arXiv:2110.14795.

    >>> auc(np.array([0, 1, 1]), np.array([[-1.0], [0.5], [2.0]]))
    1.0
    >>> auc(np.array([1, 1, 1]), np.array([[-1.0], [0.5], [2.0]])) is None
    True
    """
    columns = shown_in(truth, predicted.shape[1])
    # A class without a positive or a negative has no AUC, and NaN has no rank.
    if len(_present(columns)) < columns.shape[1] or np.isnan(predicted).any():
        return None
    once = np.ones((1, len(truth)))
    pairs = zip(columns.T, predicted.T, strict=True)
    return float(np.mean([Ranking(own, scores).auc(once)[0] for own, scores in pairs]))


def shown_in(truth: Labels, outputs: int) -> npt.NDArray[np.bool_]:
    """Return which image shows which class or label.

    Args:
        truth: (N,) classes, or (N, T) labels.
        outputs: T; 1 for a binary task.
    Returns:
        (N, T) bool; (N, 1) for a binary task.
    """
    if truth.ndim > 1:
        return truth == 1
    # A binary task has one output, the score of class 1.
    return truth[:, None] == (np.arange(outputs) if outputs > 1 else 1)


def _present(columns: npt.NDArray[np.bool_]) -> list[int]:
    """Return the columns that some images show and others do not."""
    shown = columns.sum(0)
    return [int(k) for k in np.flatnonzero((shown > 0) & (shown < len(columns)))]


def accuracy(truth: Labels, predicted: Scores) -> float | None:
    """Return the fraction of correct answers, as `medmnist.evaluator.getACC`.

    Args:
        truth: (N,) classes, or (N, T) labels.
        predicted: (N, T) probabilities; (N, 1) for a binary task.
    Returns:
        A fraction of the images, or of all labels of a multi-label task; None without images.

    >>> accuracy(np.array([0, 1]), np.array([[0.2], [0.4]]))
    0.5
    """
    if not len(truth):
        return None
    # One class an image is the most likely one; every other answer is a threshold at one half.
    one_a_row = truth.ndim == 1 and predicted.shape[1] > 1
    answers = predicted.argmax(1) if one_a_row else (predicted > 0.5).astype(int)
    return float((answers == truth.reshape(answers.shape)).mean())


def dice(truth: Tensor, predicted: Tensor, classes: int) -> float | None:
    """Return the mean Dice overlap of all classes except the first, which is the background.

    Args:
        truth: (M,) class of each pixel, of all images together.
        predicted: (M,) most likely class of each pixel.
        classes: Number of classes.
    Returns:
        Mean over the classes that occur in truth or prediction; None if none does.
    Source: Dice 1945, doi:10.2307/1932409.

    >>> dice(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), classes=2)
    0.6666666666666666
    """
    overlaps = []
    for kind in range(1, classes):
        own, given = truth == kind, predicted == kind
        # A class that neither truth nor prediction shows has no overlap to measure.
        size = int(own.sum() + given.sum())
        if size:
            overlaps.append(2 * int((own & given).sum()) / size)
    return sum(overlaps) / len(overlaps) if overlaps else None


def evaluate(
    model: Medformer, site: Site, records: Records, split: str
) -> list[dict[str, str | float | None]]:
    """Measure a model on the valid, labelled records of a split.

    Args:
        model: The site's model.
        site: Domain and tasks.
        records: The records of the split.
        split: Its name, copied into the rows.
    Returns:
        A row {task, metric, split, value} for each task and metric: AUC and accuracy, or Dice and
        accuracy of a dense task. A value is None where it is not defined.
    """
    rows: list[dict[str, str | float | None]] = []
    for task in site.tasks:
        measure = outlined if task.is_dense else _classes
        for metric, value in measure(model, site, records, task).items():
            rows.append({"task": task.name, "metric": metric, "split": split, "value": value})
    return rows


def _classes(model: Medformer, site: Site, records: Records, task: Task) -> dict[str, float | None]:
    """Return AUC and accuracy of a task that answers for the whole image."""
    if not len(records):
        return {"auc": None, "accuracy": None}
    return classified(records, task, predicted(model, site, records, task))


def predicted(model: Medformer, site: Site, records: Records, task: Task) -> Tensor:
    """Answer a task that is not dense for all records.

    Args:
        model: The site's model.
        site: Domain of the images.
        records: At least one record.
        task: One of the site's tasks.
    Returns:
        (N, T) logits.
    """
    return torch.cat([given for _, given in answers(model, site, records, task)])


def classified(records: Records, task: Task, given: Tensor) -> dict[str, float | None]:
    """Return AUC and accuracy of the valid, labelled records.

    Args:
        records: All records of a split.
        task: A task that is not dense.
        given: (N, T) logits of all records, as `predicted` returns them.
    """
    truth = records.joined(task.name)
    # An image with several labels counts only if all of them are known.
    known = records.valid & (truth[:, None] != UNLABELLED).flatten(1).all(1)
    own, logits = truth[known].numpy(), given[known].double()
    scores, chances = log_odds(logits, task).numpy(), probabilities(logits, task).numpy()
    value = auc(own, scores)
    # The log says why a value is missing; the result itself holds None only.
    if value is None and len(own):
        columns = shown_in(own, scores.shape[1])
        log.info(
            "task %s: AUC is not defined, only %d of %d classes can be ranked in this split",
            task.name, len(_present(columns)), columns.shape[1],
        )  # fmt: skip
    return {"auc": value, "accuracy": accuracy(own, chances)}


def outlined(model: Medformer, site: Site, records: Records, task: Task) -> dict[str, float | None]:
    """Return Dice and accuracy of the valid, labelled pixels.

    Args:
        model: The site's model.
        site: Domain of the images.
        records: All records of a split.
        task: A dense task.
    """
    if not len(records):
        return {"dice": None, "accuracy": None}
    truths, given_classes = [], []
    for part, given in answers(model, site, records, task):
        truth = part.labels[task.name]
        # Pixels count one by one, because an image may be outlined in part.
        known = (truth != UNLABELLED) & part.valid.view(-1, *[1] * (truth.ndim - 1))
        truths.append(truth[known])
        given_classes.append(given.argmax(1)[known])
    truth, answer = torch.cat(truths), torch.cat(given_classes)
    right = float((truth == answer).float().mean()) if len(truth) else None
    return {"dice": dice(truth, answer, task.classes), "accuracy": right}
