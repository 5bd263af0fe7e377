"""The input of every objective: the records of one step at one site, and the weights of a mix.

Letters as in medformer/layers.py: B images, C channels, T labels of a multi-label task.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medformer.config import Domain

Mix = Mapping[Any, float]
"""Name in OBJECTIVES -> weight."""


@dataclass(frozen=True)
class Batch:
    """Records of one site."""

    images: Tensor
    """(B, C, *spatial), standardised."""
    labels: Mapping[str, Tensor]
    """Task -> (B,) int64 classes, (B, T) of a multi-label or (B, *spatial) of a dense task."""
    domain: Domain
    spacing: Tensor | None = None
    """(B, rank), distance between pixels of each image; the domain's if None."""
    natural: Tensor | None = None
    """(B, NUMBERS) natural features of the images before they were moved; computed from `images` if
    None, where the model reads them."""

    def __post_init__(self) -> None:
        # Filled in here, so that objectives need not know the domain's default.
        if self.spacing is None and self.domain.spacing is not None:
            same = torch.tensor(self.domain.spacing).expand(len(self.images), -1)
            object.__setattr__(self, "spacing", same)

    def __getitem__(self, rows: slice) -> "Batch":
        return Batch(
            self.images[rows],
            {task: labels[rows] for task, labels in self.labels.items()},
            self.domain,
            None if self.spacing is None else self.spacing[rows],
            None if self.natural is None else self.natural[rows],
        )

    def __len__(self) -> int:
        return len(self.images)
