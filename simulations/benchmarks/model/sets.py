"""The available MedMNIST files as tensors, with published results for each set."""

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
"""Test AUC of ResNet-18 (with 3D convolutions for volumes) on 28-pixel images, trained on the
official training sets (Yang et al. 2023, tables 3 and 4, arXiv:2110.14795)."""

TURNS = {"pathmnist", "bloodmnist"}
"""Sets whose labels do not depend on the orientation of the image."""
MIRRORS = TURNS | {"breastmnist", "adrenalmnist3d"}
"""Sets whose labels do not depend on left and right."""


@dataclass(frozen=True)
class Part:
    """A split of a data set, or a part of one."""

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
    """True if the file holds as many training images as the official one."""

    @property
    def train(self) -> Part:
        """The training images."""
        return self.parts["train"]

    def labelled(self, share: float, seed: int) -> Part:
        """Draw a class-proportional fraction of the training images, at least one of each class.

        Args:
            share: Fraction in (0, 1].
            seed: Seed of the choice.
        """
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        rows = []
        for label in range(self.task.classes):
            # In random order, so that the first ones are a random choice.
            own = order[self.train.labels[order] == label]
            # At least one label, or a rare class could not be learned at all.
            rows.append(own[: max(1, round(share * len(own)))])
        return self.train[torch.cat(rows)]


def read(name: str, root: Path | None) -> DataSet:
    """Read one set.

    Args:
        name: A MedMNIST set.
        root: Folder of MedMNIST files; None downloads missing ones.
    Raises:
        DataError: The file is missing and cannot be downloaded, or is damaged.
    """
    facts = medmnist.info(name)
    path = medmnist.find(name, 28, root)
    parts = {}
    for split in ("train", "val", "test"):
        images, columns = npz.read(path, split)
        # Grey files have no channel axis; in colour ones it comes last.
        axis = 1 if facts.channels == 1 else -1
        images = images[:, None] if axis == 1 else np.moveaxis(images, -1, 1)
        labels = torch.from_numpy(columns["labels"][:, 0].astype(np.int64))
        parts[split] = Part(torch.from_numpy(np.ascontiguousarray(images)), labels)
    domain = medmnist_domain(name)
    # Results on a part of a set are not comparable with published ones.
    complete = len(parts["train"]) == facts.train_count
    return DataSet(name, domain, facts.task, parts, complete)


def at_hand(root: Path | None, names: tuple[str, ...] = SETS) -> Iterator[DataSet]:
    """Yield the sets whose files are in `root`.

    Raises:
        DataError: `root` is None and a file cannot be downloaded.
    """
    for name in names:
        try:
            yield read(name, root)
        except DataError:
            # Without a folder a missing file is downloaded, so an error is one of the network.
            if root is None:
                raise
