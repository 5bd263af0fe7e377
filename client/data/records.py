"""The records of one site and split, however they are stored."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from medformer.config import Domain, Task
from medformer.errors import MedFormerError
from medformer.images import SIDES


class DataError(MedFormerError):
    """A data file is missing, corrupt or not what the site declares."""


@dataclass(frozen=True)
class Stack:
    """Records whose images have one shape."""

    images: Tensor
    """(N, C, *spatial), uint8 or float32; an invalid row is all zeros."""
    labels: Mapping[str, Tensor]
    """Task -> (N,) int64, (N, T) of a multi-label or (N, *spatial) of a dense task; an invalid row
    is 0, `medformer.config.UNLABELLED` where nobody knows."""
    valid: Tensor
    """(N,) bool: False for a record that cannot be used. It is drawn like the others and
    contributes exactly zero, so that nothing outside shows it."""
    spacing: Tensor | None = None
    """(N, rank) distance between pixels; None where the domain says it for all."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor | slice) -> "Stack":
        return Stack(
            self.images[rows],
            {task: labels[rows] for task, labels in self.labels.items()},
            self.valid[rows],
            None if self.spacing is None else self.spacing[rows],
        )


@dataclass(frozen=True)
class Records:
    """N images with labels, shape by shape; row i is one unit of privacy."""

    stacks: tuple[Stack, ...]

    def __len__(self) -> int:
        return sum(len(stack) for stack in self.stacks)

    def take(self, rows: Tensor) -> Iterator[Stack]:
        """The records of these rows (ascending), a stack for every shape among them."""
        start = 0
        for stack in self.stacks:
            own = rows[(rows >= start) & (rows < start + len(stack))] - start
            start += len(stack)
            if len(own):
                yield stack[own]

    @property
    def valid(self) -> Tensor:
        """(N,) of all rows."""
        return torch.cat([stack.valid for stack in self.stacks])

    def joined(self, task: str) -> Tensor:
        """A task's labels of all rows; a dense task's only where all images have one shape."""
        return torch.cat([stack.labels[task] for stack in self.stacks])


def pooled(several: Iterable[Records]) -> Records:
    """The records of several sites of one kind as one."""
    return Records(tuple(stack for records in several for stack in records.stacks))


def empty(domain: Domain, tasks: Iterable[Task]) -> Records:
    """No records at all: what a file that cannot be read comes to after admission."""
    spatial = [domain.size or 28] * domain.rank
    labels = {}
    for task in tasks:
        each = {"multi-label": [task.classes], "dense": spatial}.get(task.kind, [])
        labels[task.name] = torch.zeros(0, *each, dtype=torch.int64)
    images = torch.zeros(0, domain.channels, *spatial)
    return Records((Stack(images, labels, torch.zeros(0, dtype=torch.bool)),))


def problems(records: Records, domain: Domain) -> list[str]:
    """What is wrong with the records, one sentence each; for the site's own eyes."""
    found = []
    if not len(records):
        found.append("the split is empty: give the site at least one image")
    bad = int((~records.valid).sum())
    if bad:
        first = int((~records.valid).nonzero()[0])
        found.append(
            f"{bad} of {len(records)} records cannot be used (the first is row {first}): NaN or "
            "infinite pixels, or a label outside the task. Repair or remove them"
        )
    least, most = SIDES[domain.rank]
    for shape in sorted({tuple(s.images.shape[2:]) for s in records.stacks if len(s)}):
        if min(shape) < least:
            found.append(f"images must be at least {least} pixels a side, got {shape}")
        if max(shape) > most:
            found.append(f"images must be at most {most} pixels a side, got {shape}")
    return found
