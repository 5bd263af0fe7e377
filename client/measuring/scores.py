"""The noisy counts of a model's scores: how a model is measured without an exact number.

For each output of a task, a class against all others or a label, the records that show it and those
that do not are counted by bin of their score. The plan charges the counts of all tasks together as
one Gaussian mechanism; what a server computes from them costs nothing more (post-processing).

For a task of outlines, images that show one, or that the model gives one, are counted by their Dice
overlap.

A patient with several images counts as one: each image weighs one part of so many.

N records, K outputs of a task, B bins.

Source: Dwork and Roth 2014, "The algorithmic foundations of differential privacy", appendix A.
"""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from client.data.records import Records
from client.evaluation import answers, dice, predicted
from client.privacy.counts.tasks import countable, score_outputs
from client.privacy.noise import NoiseSource
from client.site import Site
from medformer.config import UNLABELLED, Task
from medformer.model import Medformer
from medformer.tasks import log_odds
from server.protocol.score_counts import (
    BINS,
    EDGES,
    OVERLAPS,
    OutputCounts,
    OverlapCounts,
    ScoreCounts,
)

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
        The counts of all tasks.
    """
    tasks = countable(site.tasks)
    outlined = [task for task in site.tasks if task.kind == "dense"]
    # The exact counts live in these lines alone.
    exact = [each for task in tasks for each in _exact(model, site, records, task)]
    exact += [_overlaps(model, site, records, task) for task in outlined]
    noisy = noise.noised(torch.cat([table.flatten() for table in exact]), std)
    tables = noisy.split([table.numel() for table in exact])
    names = [(task.name, output) for task in tasks for output in score_outputs(task)]
    return ScoreCounts(
        std=std,
        outputs=tuple(
            _output(name, output, counts.view(2, BINS), min_count)
            for (name, output), counts in zip(names, tables, strict=False)
        ),
        overlaps=tuple(
            _outlined(task.name, counts, min_count)
            for task, counts in zip(outlined, tables[len(names) :], strict=True)
        ),
    )


def _outlined(task: str, counts: Tensor, min_count: int) -> OverlapCounts:
    """Return the counts of a task of outlines, unless the noisy counts say that it has too few."""
    images = tuple(round(x, DECIMALS) for x in counts.tolist())
    return OverlapCounts(task=task, images=None if sum(images) < min_count else images)


def _overlaps(model: Medformer, site: Site, records: Records, task: Task) -> Tensor:
    """Return (OVERLAPS,) float64: records by the Dice overlap of their outlines.

    Each lies between two places, and is divided between them.
    """
    values: list[float | None] = []
    for part, logits in answers(model, site, records, task):
        truths, given = part.labels[task.name], logits.argmax(1)
        for truth, answer, valid in zip(truths, given, part.valid.tolist(), strict=True):
            known = truth != UNLABELLED
            values.append(dice(truth[known], answer[known], task.classes) if valid else None)
    # An image without an outline in truth and answer has no overlap.
    counted = torch.tensor([value is not None for value in values], dtype=torch.bool)
    overlaps = torch.tensor([value or 0.0 for value in values], dtype=torch.float64)
    places = overlaps.clamp(0, 1) * (OVERLAPS - 1)
    below = places.floor().clamp(max=OVERLAPS - 2).long()
    above = places - below
    weights = _weights(site, records, counted) * counted
    found = torch.zeros(OVERLAPS, dtype=torch.float64)
    found.index_add_(0, below, weights * (1 - above))
    return found.index_add_(0, below + 1, weights * above)


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
