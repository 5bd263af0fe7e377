"""Exact AUC and accuracy as MedMNIST defines them: for a site's own eyes and for simulations."""

import numpy as np
import torch

from client.data.records import Records
from client.site import Site
from medformer.images import standardise
from medformer.model import Medformer
from medformer.objectives.supervised import probabilities

CHUNK = 256


def scores(model: Medformer, site: Site, records: Records) -> torch.Tensor:
    """Probabilities of the site's task, (N, T)."""
    model.eval()
    with torch.no_grad():
        parts = [
            model.predict(standardise(images), site.domain, site.task.name)
            for images in records.images.split(CHUNK)
        ]
    return probabilities(torch.cat(parts), site.task)


def evaluate(
    model: Medformer, site: Site, records: Records, split: str
) -> list[dict[str, str | float | None]]:
    """AUC and accuracy (medmnist.evaluator) of the valid records.

    Returns:
        One {task, metric, split, value} a metric; the AUC of a split that lacks a class is None.
    """
    from medmnist.evaluator import getACC, getAUC

    truth = records.labels[records.valid].numpy()
    predicted = scores(model, site, records)[records.valid].numpy().astype(np.float64)
    kind = "multi-label, binary-class" if site.task.kind == "multi-label" else site.task.kind
    values: dict[str, float | None] = {"auc": None, "accuracy": None}
    if len(truth):
        values["accuracy"] = float(getACC(truth, predicted, kind))
        columns = truth if truth.ndim == 2 else np.eye(site.task.classes)[truth]
        if columns.any(0).all() and (truth.ndim == 1 or not columns.all(0).any()):
            values["auc"] = float(getAUC(truth, predicted, kind))
    return [
        {"task": site.task.name, "metric": metric, "split": split, "value": value}
        for metric, value in values.items()
    ]
