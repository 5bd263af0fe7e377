"""The noisy counts of a model's scores: how a model is measured without an exact number.

For each output of a task, a class against all others or a label, the records that show it and those
that do not are counted by bin of their score. The plan charges the counts of all tasks together as
one Gaussian mechanism; what a server computes from them costs nothing more (post-processing).

A patient with several images counts as one: each image weighs one part of so many.

N records, K outputs of a task, B bins.

Source: Dwork and Roth 2014, "The algorithmic foundations of differential privacy", appendix A.
"""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from client.data.records import Records
from client.evaluation import predicted
from client.privacy.counts.tasks import countable, score_outputs
from client.privacy.noise import NoiseSource
from client.site import Site
from medformer.config import UNLABELLED, Task
from medformer.model import Medformer
from medformer.tasks import log_odds
from server.protocol.score_counts import BINS, EDGES, OutputCounts, ScoreCounts

DECIMALS = 2
"""Decimals of a count that is sent. Rounding follows the noise, so it reveals nothing."""


def score_counts(
    model: Medformer, site: Site, records: Records, std: float, noise: NoiseSource, min_count: int
) -> ScoreCounts:
    """Measure a model on records, with noise.

    Args:
        model: The site's model.
        site: Domain, tasks and unit of privacy.
        records: The records of a split.
        std: Standard deviation of the noise on each count: `PhasePlan.noise_std`.
        noise: Source of the noise, which must serve no other purpose.
        min_count: Outputs with fewer records, by the noisy counts, that show it, or that do not,
            have no counts.
    Returns:
        The counts of all outputs of the tasks that are not dense.
    """
    tasks = countable(site.tasks)
    # The exact counts live in this line and the next alone.
    exact = torch.stack([each for task in tasks for each in _exact(model, site, records, task)])
    noisy = noise.noised(exact.flatten(), std).view(exact.shape)
    names = [(task.name, output) for task in tasks for output in score_outputs(task)]
    return ScoreCounts(
        std=std,
        outputs=tuple(
            _output(name, output, counts, min_count)
            for (name, output), counts in zip(names, noisy, strict=True)
        ),
    )


def _output(task: str, output: int, counts: Tensor, min_count: int) -> OutputCounts:
    """Return the counts of one output, unless the noisy counts say that there are too few."""
    shown, absent = (tuple(round(x, DECIMALS) for x in side.tolist()) for side in counts)
    few = min(sum(shown), sum(absent)) < min_count
    return OutputCounts(
        task=task,
        output=output,
        shown=None if few else shown,
        absent=None if few else absent,
    )


def _exact(model: Medformer, site: Site, records: Records, task: Task) -> Iterator[Tensor]:
    """Yield (2, B) float64 for each output: counts of records that show it, and that do not."""
    kinds = score_outputs(task)
    if not len(records):
        yield from torch.zeros(len(kinds), 2, BINS, dtype=torch.float64)
        return
    truth = records.joined(task.name)
    scores = log_odds(predicted(model, site, records, task), task)
    # A score that is no number has no bin: the record adds nothing.
    usable = records.valid[:, None] & scores.isfinite()
    if task.kind == "multi-label":
        known, shows = truth != UNLABELLED, truth == 1
    else:
        known = (truth != UNLABELLED)[:, None].expand(-1, len(kinds))
        shows = truth[:, None] == torch.tensor(kinds)
    bins = torch.bucketize(scores, torch.tensor(EDGES, dtype=torch.float64))
    for k in range(len(kinds)):
        counted = usable[:, k] & known[:, k]
        weights = _weights(site, records, counted)
        yield torch.stack(
            [
                torch.bincount(bins[on, k], weights=weights[on], minlength=BINS)
                for on in (counted & shows[:, k], counted & ~shows[:, k])
            ]
        )


def _weights(site: Site, records: Records, counted: Tensor) -> Tensor:
    """Return (N,) float64: 1 divided by the number of counted images of a record's unit."""
    weights = torch.ones(len(records), dtype=torch.float64)
    if site.privacy.unit == "patient":
        rows = counted.nonzero().flatten().tolist()
        images = Counter(records.patients[row] for row in rows)
        for row in rows:
            weights[row] = 1 / images[records.patients[row]]
    return weights
