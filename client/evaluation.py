"""Exact AUC and accuracy as MedMNIST defines them: for a site's own eyes and for simulations.

By scipy, which Opacus loads anyway, and not by `medmnist.evaluator`, which costs 1.5 s and 75 MB in
every process; a test holds the one against the other.
"""

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import mannwhitneyu

from client.data.records import Records
from client.site import Site
from medformer.images import standardise
from medformer.model import Medformer
from medformer.objectives.supervised import probabilities

CHUNK = 256
Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def scores(model: Medformer, site: Site, records: Records) -> torch.Tensor:
    """Probabilities of the site's task, (N, T)."""
    model.eval()
    with torch.no_grad():
        parts = [
            model.predict(standardise(images), site.domain, site.task.name)
            for images in records.images.split(CHUNK)
        ]
    return probabilities(torch.cat(parts), site.task)


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


def evaluate(
    model: Medformer, site: Site, records: Records, split: str
) -> list[dict[str, str | float | None]]:
    """AUC and accuracy (medmnist.evaluator) of the valid records.

    Returns:
        One {task, metric, split, value} a metric; the AUC of a split that lacks a class is None.
    """
    truth = records.labels[records.valid].numpy()
    predicted = scores(model, site, records)[records.valid].numpy().astype(np.float64)
    values = {"auc": auc(truth, predicted), "accuracy": accuracy(truth, predicted)}
    return [
        {"task": site.task.name, "metric": metric, "split": split, "value": value}
        for metric, value in values.items()
    ]
