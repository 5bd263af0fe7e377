"""Weights of the classes in a site's losses, from a count of its classes under DP.

The classes of all tasks but dense ones are counted once a run, over all valid training records,
with Gaussian noise (Dwork and Roth 2014, appendix A). The plan charges the count as a mechanism of
its own; what is made of it is post-processing, which costs nothing. Counts and weights stay at the
site, and the gradients that they weigh are clipped and noised like any others.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from client.data.records import Records
from client.privacy.noise import NoiseSource
from client.privacy.plan import countable
from medformer.config import UNLABELLED, Task

LEAST, MOST = 0.2, 5.0
"""Bounds of a weight, whatever the counts say."""

Counts = Mapping[str, Sequence[float]]
"""Task -> noisy number of records of each class, or with each label."""


def histogram(records: Records, task: Task) -> Tensor:
    """Exact number of valid records of each class, (classes,) float64. It must not be kept."""
    truth = records.joined(task.name)
    truth = truth[records.valid]
    if task.kind == "multi-label":
        return (truth == 1).sum(0).double()
    return torch.bincount(truth[truth != UNLABELLED], minlength=task.classes).double()


def noisy_counts(
    records: Records, tasks: Iterable[Task], std: float, noise: NoiseSource
) -> dict[str, list[float]]:
    """Count the classes of every countable task, with noise.

    Args:
        std: Standard deviation of the noise on each count: `PhasePlan.noise_std`. The counts of one
            task after the other together are one Gaussian mechanism.
        noise: Used for nothing else.
    """
    counts = {}
    for task in countable(tasks):
        exact = histogram(records, task)
        counts[task.name] = noise.noised(exact, std).tolist()
    return counts


def weighted(tasks: Iterable[Task], counts: Counts, std: float, labelled: int) -> tuple[Task, ...]:
    """The tasks with the weights that follow from `counts`; a function of no record.

    A class of a single-label task weighs N / (K n_k), for K classes, n_k images of the class and
    their sum N: every class adds equally to the loss, whose mean weight over the images stays 1. A
    label weighs (labelled - n_t) / n_t where it is present, for the declared number of units with
    a label: presence and absence add equally.
    A count below the noise's standard deviation tells nothing and is taken for that. All weights
    lie in [LEAST, MOST].
    """
    result = []
    for task in tasks:
        if task.name not in counts:
            result.append(task)
            continue
        floor = max(1.0, std)
        known = [max(floor, count) for count in counts[task.name]]
        if task.kind == "multi-label":
            raw = [max(floor, labelled - count) / count for count in known]
        else:
            raw = [sum(known) / (len(known) * count) for count in known]
        weights = tuple(min(MOST, max(LEAST, weight)) for weight in raw)
        result.append(task.model_copy(update={"class_weights": weights}))
    return tuple(result)
