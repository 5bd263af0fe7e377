"""Weights of the classes in a site's losses, from a differentially private class count.

The classes of all tasks but dense ones are counted once a run, over all valid training records,
with Gaussian noise. The plan charges the count as a separate mechanism; the weights are computed
from the noisy counts alone, which costs nothing more (post-processing). Counts and weights stay at
the site, and the weighted gradients are clipped and noised like any others.

Source: Dwork and Roth 2014, "The algorithmic foundations of differential privacy", appendix A.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from client.data.records import Records
from client.privacy.counts.tasks import countable
from client.privacy.noise import NoiseSource
from medformer.config import UNLABELLED, Task

MIN_WEIGHT, MAX_WEIGHT = 0.2, 5.0
"""Bounds of a weight, whatever the counts are."""

Counts = Mapping[str, Sequence[float]]
"""Task -> noisy number of records in each class, or with each label."""


def histogram(records: Records, task: Task) -> Tensor:
    """Count the valid records of each class, exactly. The result must not leave this process.

    Args:
        records: Training records of the site.
        task: A task that is not dense.
    Returns:
        (classes,) float64; for a multi-label task, the records with each label.
    """
    # Invalid records take no part in training, and so not in its weights either.
    truth = records.joined(task.name)
    truth = truth[records.valid]
    if task.kind == "multi-label":
        return (truth == 1).sum(0).double()
    return torch.bincount(truth[truth != UNLABELLED], minlength=task.classes).double()


def noisy_counts(
    records: Records, tasks: Iterable[Task], std: float, noise: NoiseSource
) -> dict[str, list[float]]:
    """Count the classes of every countable task, with noise.

    The counts of all tasks together are one Gaussian mechanism, with the sensitivity of
    `client.privacy.plan.count_sensitivity`.

    Args:
        records: Training records of the site.
        tasks: The site's tasks; dense ones are left out.
        std: Standard deviation of the noise on each count: `PhasePlan.noise_std`.
        noise: Source of the noise, which must serve no other purpose.
    Returns:
        Task -> noisy counts, on the grid of the noise; they may be negative.
    """
    counts = {}
    for task in countable(tasks):
        # The exact counts live in this line and the next alone.
        exact = histogram(records, task)
        counts[task.name] = noise.noised(exact, std).tolist()
    return counts


def weighted(tasks: Iterable[Task], counts: Counts, std: float, labelled: int) -> tuple[Task, ...]:
    """Return the tasks with class weights computed from noisy counts, without reading a record.

    A class of a single-label task weighs N / (K n_k), for K classes, n_k images of the class and
    their sum N: every class then adds equally to the loss, and the mean weight of an image stays 1.
    A label of a multi-label task weighs (labelled - n_t) / n_t where it is present: presence and
    absence then add equally. A count below the noise's standard deviation carries no information
    and is replaced by that standard deviation, or by 1 if that is larger.

    Args:
        tasks: The site's tasks.
        counts: As `noisy_counts` returned them.
        std: Standard deviation of their noise.
        labelled: Declared number of units with a label.
    Returns:
        The tasks in their order, weights within [MIN_WEIGHT, MAX_WEIGHT]; uncounted tasks as given.
    """
    result = []
    for task in tasks:
        # Dense tasks have no count and keep the weights that the site declares.
        if task.name not in counts:
            result.append(task)
            continue
        floor = max(1.0, std)
        known = [max(floor, count) for count in counts[task.name]]
        if task.kind == "multi-label":
            raw = [max(floor, labelled - count) / count for count in known]
        else:
            raw = [sum(known) / (len(known) * count) for count in known]
        weights = tuple(min(MAX_WEIGHT, max(MIN_WEIGHT, weight)) for weight in raw)
        result.append(task.model_copy(update={"class_weights": weights}))
    return tuple(result)
