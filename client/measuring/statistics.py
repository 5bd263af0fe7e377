"""The noisy counts of a site's records: how a consortium plans without seeing one.

The plan charges all counts together as one Gaussian mechanism. A record, an image or a patient as
`privacy: unit` says, adds 1 to each table; a patient's images share that 1 equally, also over
splits. N records, C channels.

Source: Dwork and Roth 2014, "The algorithmic foundations of differential privacy", appendix A.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from client.data.records import Records
from client.privacy.counts.tasks import countable
from client.privacy.noise import NoiseSource
from client.site import Site
from medformer.config import UNLABELLED, Task
from server.protocol.record_counts import (
    GREYS,
    IMAGES,
    SIDES,
    SPLITS,
    RecordCounts,
    TaskCounts,
)

DECIMALS = 2
"""Decimals of a count that is sent. Rounding follows the noise, so it reveals nothing."""

Splits = Mapping[str, Records]


def record_counts(
    site: Site, read: Callable[[str], Records], std: float, noise: NoiseSource
) -> RecordCounts:
    """Count a site's records, with noise.

    Args:
        site: Tasks and unit of privacy.
        read: Reads the records of a split.
        std: Standard deviation of the noise on each count: `PhasePlan.noise_std`.
        noise: Source of the noise, which must serve no other purpose.
    Returns:
        The counts of all splits.
    """
    splits: Splits = {split: read(split) for split in SPLITS}
    tasks = countable(site.tasks)
    # The exact counts live in these two lines alone.
    exact = list(_exact(site, splits, tasks))
    noisy = noise.noised(torch.cat([table.flatten() for table in exact]), std)
    parts = noisy.split([table.numel() for table in exact])
    shaped = [part.view(table.shape) for part, table in zip(parts, exact, strict=True)]
    records, sides, greys, *rest = (_rounded(table) for table in shaped)
    images = rest.pop() if site.privacy.unit == "patient" else None
    return RecordCounts(
        std=std,
        records=records,
        sides=sides,
        greys=greys,
        images=images,
        tasks=tuple(
            TaskCounts(task=task.name, several=task.kind == "multi-label", rows=rows)
            for task, rows in zip(tasks, rest, strict=True)
        ),
    )


def _rounded(table: Tensor) -> tuple:  # type: ignore[type-arg]
    """Return the numbers of a table, rows as tuples."""
    if table.dim() > 1:
        return tuple(_rounded(row) for row in table)
    return tuple(round(number, DECIMALS) for number in table.tolist())


def _exact(site: Site, splits: Splits, tasks: list[Task]) -> Iterator[Tensor]:
    """Yield the exact tables, float64: records, sides, greys, each task, and images a patient."""
    weights = _weights(site, splits)
    yield torch.stack([weights[split].sum() for split in SPLITS])
    yield _by_side(splits, weights)
    yield _by_grey(splits, weights)
    for task in tasks:
        columns = [_by_class(splits[split], weights[split], task) for split in SPLITS]
        yield torch.stack(columns, dim=1)
    if site.privacy.unit == "patient":
        every = torch.cat([weights[split] for split in SPLITS])
        images = (1 / every[every > 0]).round()
        yield _ranged(images, every[every > 0], IMAGES)


def _weights(site: Site, splits: Splits) -> dict[str, Tensor]:
    """Return (N,) float64 for each split: the part of its unit that a record is, 0 if invalid."""
    weights = {split: records.valid.double() for split, records in splits.items()}
    # Over all splits: a patient, or a file, that is in two of them counts as one, too.
    units = {split: _units(site, records) for split, records in splits.items()}
    used = {split: own.nonzero().flatten().tolist() for split, own in weights.items()}
    parts = Counter(
        units[split][row] for split, rows in used.items() if units[split] for row in rows
    )
    for split, rows in used.items():
        # A row without a name is a unit of its own.
        for row in (row for row in rows if units[split] and units[split][row]):
            weights[split][row] = 1 / parts[units[split][row]]
    return weights


def _units(site: Site, records: Records) -> Sequence[str]:
    """Return the unit of each row; nothing where each row is a unit of its own."""
    return records.patients if site.privacy.unit == "patient" else records.files


def _by_side(splits: Splits, weights: Mapping[str, Tensor]) -> Tensor:
    """Return (len(SIDES) + 1,): records by the longest side of their images."""
    sides = [
        torch.full((len(stack),), float(max(stack.images.shape[2:])), dtype=torch.float64)
        for split in SPLITS
        for stack in splits[split].stacks
    ]
    return _ranged(_joined(sides), torch.cat([weights[split] for split in SPLITS]), SIDES)


def _by_grey(splits: Splits, weights: Mapping[str, Tensor]) -> Tensor:
    """Return (GREYS,): records by grey value, each spread over the ranges as its pixels are."""
    total = torch.zeros(GREYS, dtype=torch.float64)
    for split in SPLITS:
        start = 0
        for stack in splits[split].stacks:
            own = weights[split][start : start + len(stack)]
            start += len(stack)
            # One image after the other: volumes of a whole split would be copied at once.
            for image, weight in zip(stack.images, own.tolist(), strict=True):
                if weight:
                    total += weight * _greys(image)
    return total


def _greys(image: Tensor) -> Tensor:
    """Return (GREYS,): the shares of an image's values in each range; their sum is 1.

    The range of values is that of bytes, or from the image's own least to its largest value.
    """
    values = image.double().flatten()
    low, high = (0.0, 255.0) if image.dtype == torch.uint8 else map(float, values.aminmax())
    span = high - low
    places = (values - low) / span * GREYS if span else torch.zeros_like(values)
    rows = places.long().clamp(0, GREYS - 1)
    return torch.bincount(rows, minlength=GREYS).double() / max(1, len(values))


def _by_class(records: Records, weights: Tensor, task: Task) -> Tensor:
    """Return (classes,): records of each class, or with each label."""
    if not len(records):
        return torch.zeros(task.classes, dtype=torch.float64)
    truth = records.joined(task.name)
    if task.kind == "multi-label":
        return ((truth == 1).double() * weights[:, None]).sum(0)
    known = truth != UNLABELLED
    return torch.bincount(truth[known], weights=weights[known], minlength=task.classes)


def _ranged(values: Tensor, weights: Tensor, ends: tuple[int, ...]) -> Tensor:
    """Return (len(ends) + 1,): the weight in each range; a range holds its upper end."""
    rows = torch.bucketize(values, torch.tensor(ends, dtype=torch.float64))
    return torch.bincount(rows, weights=weights, minlength=len(ends) + 1)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
