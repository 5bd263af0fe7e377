"""A membership attack on the final models of a simulated run: a threshold on the loss.

An attacker who has a site's final model, its own heads included, says of each record whether it was
trained on, by its loss: records that a model was trained on tend to have smaller ones. It is the
simplest attack, and far from the best: it shows what overfitting reveals, while the canaries
(`client.audit`) test the mechanism. It needs records that were trained on and records that were
not, so it exists in simulations only, and it is listed as not covered there.

Source: Yeom et al. 2018, arXiv:1709.01604.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from client.data.load import load
from client.data.records import Records
from client.evaluation import predicted
from client.ranking import Ranking
from client.site import Site
from medformer.config import UNLABELLED, Task
from medformer.model import Medformer
from medformer.tasks import label_losses
from simulations.examples import answered, model_of
from simulations.run_folder import Prepared

FALSE_ALARMS = (0.01, 0.05, 0.1)
"""Rates of false alarms at which the attack is judged."""
CONFIDENCE = 0.999
"""Confidence of a refutation, all sites, tasks and rates of a run together."""
ATTACK = "threshold on the loss (arXiv:1709.01604)"

Losses = npt.NDArray[np.float64]


def membership(prepared: Prepared, receipts: dict[str, Any]) -> list[dict[str, Any]]:
    """Attack the final model of every site.

    Args:
        prepared: A complete run.
        receipts: Site -> its receipt; sites without one took no part.
    Returns:
        A row for each site and task that gives a whole image a class: {site, task, attack, members,
        others, auc, found}. `found` has {false_alarms, rate, low, bound, refutes} for each rate:
        `rate` of the members are found, at least `low` by `CONFIDENCE`; the plan allows `bound`.
    """
    sites = [site for site in prepared.sites if site.name in receipts]
    tests = sum(len(answered(site)) for site in sites)
    rows = []
    for site in sites:
        if not (tasks := answered(site)):
            continue
        model = model_of(prepared, site)
        train, test = load(site, "train"), load(site, "test")
        roc = receipts[site.name].get("roc") or []
        for task in tasks:
            inside, outside = losses(model, site, train, task), losses(model, site, test, task)
            # Without records on both sides there is nothing to tell apart.
            if not len(inside) or not len(outside):
                continue
            rows.append(
                {
                    "site": site.name,
                    "task": task.name,
                    "attack": ATTACK,
                    "members": len(inside),
                    "others": len(outside),
                    "auc": _auc(inside, outside),
                    "found": [judged(inside, outside, a, roc, tests) for a in FALSE_ALARMS],
                }
            )
    return rows


def losses(model: Medformer, site: Site, records: Records, task: Task) -> Losses:
    """Return the losses of the valid, labelled records, one of each unit of privacy.

    Args:
        model: The site's final model.
        site: Its declaration.
        records: A split.
        task: A task that is not dense.
    """
    if not len(records):
        return np.zeros(0)
    truth = records.joined(task.name)
    usable = records.valid & (truth[:, None] != UNLABELLED).flatten(1).any(1)
    found = label_losses(predicted(model, site, records, task), truth, task)
    rows = usable.nonzero().flatten().tolist()
    # Images of one patient are no independent guesses.
    if site.privacy.unit == "patient":
        rows = list({records.patients[row]: row for row in rows}.values())
    return found[rows].double().numpy()


def judged(
    inside: Losses,
    outside: Losses,
    false_alarms: float,
    roc: Sequence[Sequence[float]],
    tests: int = 1,
) -> dict[str, Any]:
    """Judge the attack at one rate of false alarms.

    Args:
        inside: Losses of records that were trained on.
        outside: Losses of records that were not.
        false_alarms: Wanted rate.
        roc: Corners of the best attack that the plan allows; empty if the receipt has none.
        tests: Number of other judgements, times the rates, that share the confidence.
    Returns:
        {false_alarms, rate, low, bound, refutes}.
    """
    threshold = np.quantile(outside, false_alarms, method="lower")
    hits, alarms = int((inside < threshold).sum()), int((outside < threshold).sum())
    missed = (1 - CONFIDENCE) / (2 * tests * len(FALSE_ALARMS))
    # Exact intervals of Clopper and Pearson: the true rates are not the counted ones.
    low = float(beta.ppf(missed, hits, len(inside) - hits + 1)) if hits else 0.0
    most = float(beta.ppf(1 - missed, alarms + 1, len(outside) - alarms))
    bound = float(np.interp(most, *np.array(roc).T)) if len(roc) else None
    return {
        "false_alarms": false_alarms,
        "rate": hits / len(inside),
        "low": low,
        "bound": bound,
        "refutes": bound is not None and low > bound,
    }


def _auc(inside: Losses, outside: Losses) -> float:
    """Return how often a record that was trained on has the smaller loss."""
    scores = -np.concatenate([inside, outside])
    truth = np.arange(len(scores)) < len(inside)
    return float(Ranking(truth, scores).auc(np.ones((1, len(scores))))[0])
