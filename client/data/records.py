"""The records of one site and split, however they are stored."""

from dataclasses import dataclass

import torch
from torch import Tensor

from medformer.config import Domain, Task
from medformer.errors import MedFormerError


class DataError(MedFormerError):
    """A data file is missing, corrupt or not what the site declares."""


@dataclass(frozen=True)
class Records:
    """N images with labels; row i is one unit of privacy."""

    images: Tensor
    """(N, C, *spatial), uint8 or float32; an invalid row is all zeros."""
    labels: Tensor
    """(N,) int64, or (N, T) for a multi-label task; an invalid row is 0."""
    valid: Tensor
    """(N,) bool: False for a record that cannot be used. It is drawn like the others and
    contributes exactly zero, so that nothing outside shows it."""

    def __len__(self) -> int:
        return len(self.images)


def empty(domain: Domain, task: Task) -> Records:
    """No records at all: what a file that cannot be read comes to after admission."""
    labels = (0, task.classes) if task.kind == "multi-label" else (0,)
    return Records(
        torch.zeros(0, domain.channels, *[28] * domain.rank),
        torch.zeros(labels, dtype=torch.int64),
        torch.zeros(0, dtype=torch.bool),
    )


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
    if len(records) and min(records.images.shape[2:]) < 16:
        found.append(f"images must be at least 16 pixels a side, got {records.images.shape[2:]}")
    return found
