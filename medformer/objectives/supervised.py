"""Supervised losses of the MedMNIST tasks (Yang et al. 2023) and of dense ones, one an example."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medformer.tasks import label_losses

if TYPE_CHECKING:
    from medformer.model import Medformer
    from medformer.objectives import Batch


def losses(model: "Medformer", batch: "Batch", generator: torch.Generator, weight: float) -> Tensor:
    """Sum over the batch's tasks of each image's loss, (B,).

    What nobody labelled (`medformer.config.UNLABELLED`) counts 0. Each task is an encoding of its
    own, because its latent embedding changes the tokens.
    """
    total = torch.zeros(len(batch))
    for name, labels in batch.labels.items():
        task = model.tasks[name]
        logits = model.logits(batch.images, batch.domain, name, batch.spacing)
        total = total + task.weight * label_losses(logits, labels, task)
    return weight * total
