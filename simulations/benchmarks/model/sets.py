"""The MedMNIST files at hand, as tensors, with what is published about each set."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from client.data import medmnist, npz
from client.data.errors import DataError
from medformer.config import Domain, Task
from simulations.source_facts import medmnist_domain

SETS = (
    "breastmnist",
    "pneumoniamnist",
    "pathmnist",
    "bloodmnist",
    "organamnist",
    "adrenalmnist3d",
)

PUBLISHED = {
    "pathmnist": 0.983,
    "pneumoniamnist": 0.944,
    "breastmnist": 0.901,
    "bloodmnist": 0.998,
    "organamnist": 0.997,
    "adrenalmnist3d": 0.827,
}
"""Test AUC of ResNet-18 (3D convolutions for volumes), 28 pixels, official training sets (Yang et
al. 2023, tables 3 and 4)."""

TURNS = {"pathmnist", "bloodmnist"}
"""Sets whose labels do not depend on how the image is turned."""
MIRRORS = TURNS | {"breastmnist", "adrenalmnist3d"}
"""Sets whose labels do not depend on left and right."""


@dataclass(frozen=True)
class Part:
    """One split."""

    images: Tensor
    """(N, C, *spatial) uint8."""
    labels: Tensor
    """(N,) int64."""

    def __getitem__(self, rows: Tensor) -> "Part":
        return Part(self.images[rows], self.labels[rows])

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class DataSet:
    """One MedMNIST set."""

    name: str
    domain: Domain
    task: Task
    parts: Mapping[str, Part]
    complete: bool
    """Whether the file holds as many training images as the official one."""

    @property
    def train(self) -> Part:
        """Training images."""
        return self.parts["train"]

    def labelled(self, share: float, seed: int) -> Part:
        """A class-proportional share of the training images, at least one of each class."""
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        rows = []
        for label in range(self.task.classes):
            own = order[self.train.labels[order] == label]
            rows.append(own[: max(1, round(share * len(own)))])
        return self.train[torch.cat(rows)]


def read(name: str, root: Path | None) -> DataSet:
    """Read one set.

    Raises:
        DataError: The file is not here and cannot be downloaded, or is broken.
    """
    facts = medmnist.info(name)
    path = medmnist.find(name, 28, root)
    parts = {}
    for split in ("train", "val", "test"):
        images, columns = npz.read(path, split)
        axis = 1 if facts.channels == 1 else -1
        images = images[:, None] if axis == 1 else np.moveaxis(images, -1, 1)
        labels = torch.from_numpy(columns["labels"][:, 0].astype(np.int64))
        parts[split] = Part(torch.from_numpy(np.ascontiguousarray(images)), labels)
    domain = medmnist_domain(name)
    complete = len(parts["train"]) == facts.train_count
    return DataSet(name, domain, facts.task, parts, complete)


def at_hand(root: Path | None, names: tuple[str, ...] = SETS) -> Iterator[DataSet]:
    """Those sets whose files are in `root`."""
    for name in names:
        try:
            yield read(name, root)
        except DataError:
            if root is None:
                raise
