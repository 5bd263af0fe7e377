"""ROC curves of the final models on test images, kept in the run folder.

They are exact, and so they exist in simulations only.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from client.data.load import load
from client.data.natural import with_natural
from client.data.records import Records
from client.data.sources import MedMnist
from client.evaluation import predicted, shown_in
from client.ranking import Ranking
from client.site import Site
from medformer.config import UNLABELLED, Task
from medformer.model import Medformer
from medformer.tasks import log_odds
from server.run.checkpoints import write_json
from simulations.comparing.roc import FILE
from simulations.examples import answered, class_names, model_of
from simulations.run_folder import Prepared

GRID = np.unique(np.round(np.r_[np.linspace(0, 0.1, 21), np.linspace(0, 1, 101)], 3))
"""False-positive rates at which curves are kept; closer together where few false alarms matter."""
MAX_IMAGES = 2_000
"""Test images of a site that a curve is made of at most, the first ones."""


def write_roc(prepared: Prepared) -> None:
    """Write the curves of every site, and fingerprints of the test sets.

    Args:
        prepared: A run folder, trained to its end.
    """
    curves: list[dict[str, Any]] = []
    tests: list[dict[str, Any]] = []
    for site in prepared.sites:
        records = load(site, "test")
        tests += [_print(site, task, records) for task in site.tasks]
        if not (tasks := answered(site)) or not len(records):
            continue
        first = Records(tuple(records.take(torch.arange(MAX_IMAGES))))
        records = with_natural(first, prepared.federation.model)
        model = model_of(prepared, site)
        for task in tasks:
            curves += _curves(site, task, model, records)
    content = {"grid": GRID.tolist(), "curves": curves, "tests": tests}
    write_json(prepared.folder / FILE, content)


def _curves(site: Site, task: Task, model: Medformer, records: Records) -> Iterator[dict[str, Any]]:
    """Yield a curve for each class against all others, or each label."""
    truth = records.joined(task.name)
    known = records.valid & (truth[:, None] != UNLABELLED).flatten(1).all(1)
    scores = log_odds(predicted(model, site, records, task)[known].double(), task).numpy()
    columns = shown_in(truth[known].numpy(), scores.shape[1])
    names = class_names(site, task)[-columns.shape[1] :]
    for name, shown, own in zip(names, columns.T, scores.T, strict=True):
        yield {
            "site": site.name,
            "task": task.name,
            "output": name,
            "shown": int(shown.sum()),
            "absent": int((~shown).sum()),
            **_curve(shown, own),
        }


def _curve(shown: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return AUC and true-positive rates; None where one of the two sides has no image."""
    if not shown.any() or shown.all() or np.isnan(scores).any():
        return {"auc": None, "rates": None}
    auc = float(Ranking(shown, scores).auc(np.ones((1, len(shown))))[0])
    return {"auc": auc, "rates": np.round(sensitivities(shown, scores), 5).tolist()}


def sensitivities(
    shown: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the largest sensitivity of any threshold at each false-positive rate of `GRID`.

    No line is drawn between thresholds: with few images it would promise more than any of them has.

    Args:
        shown: (N,) True where an image shows the finding; both values occur.
        scores: (N,) scores, a higher one meaning more likely.
    """
    _, place = np.unique(-scores, return_inverse=True)
    # Images with equal scores are told apart by no threshold.
    hits = np.bincount(place[shown], minlength=place.max() + 1).cumsum() / shown.sum()
    alarms = np.bincount(place[~shown], minlength=place.max() + 1).cumsum() / (~shown).sum()
    # Rates are multiples of 1/N, and those of the grid are rounded.
    last = np.searchsorted(alarms, GRID + 1e-9, side="right")
    return np.asarray(np.r_[0.0, hits][last])


def _print(site: Site, task: Task, records: Records) -> dict[str, Any]:
    """Return a fingerprint of a task's test set.

    It is one of the labels alone where the source is a MedMNIST set: its images come in several
    sizes, and behind scanners whose noise follows from the run's seed.
    """
    digest = hashlib.sha256()
    for stack in records.stacks:
        if not isinstance(site.data, MedMnist):
            digest.update(stack.images.contiguous().numpy().data)
        digest.update(stack.labels[task.name].contiguous().numpy().data)
    return {
        "site": site.name,
        "task": task.name,
        "records": len(records),
        "sha256": digest.hexdigest(),
    }
