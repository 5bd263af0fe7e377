"""Supervised: learn the labels of the site's tasks."""

import torch
from torch import Tensor

from medformer.model import Medformer
from medformer.objectives.batch import Batch
from medformer.tasks import label_losses


def losses(model: Medformer, batch: Batch, generator: torch.Generator, weight: float) -> Tensor:
    """Return the weighted sum of each image's losses over the batch's tasks, (B,).

    A missing label (`medformer.config.UNLABELLED`) adds 0. Each task needs an encoding of its own,
    because its latents change the tokens.

    Args:
        model, batch, generator, weight: As for every objective (`mix.LossPerExample`).
    Raises:
        ConfigError: The model does not have one of the batch's tasks.

    Source: Yang et al. 2023, arXiv:2110.14795 (the tasks of MedMNIST v2).
    """
    total = torch.zeros(len(batch))
    # Every task, also where labels are missing: the loss of those is 0.
    for name, labels in batch.labels.items():
        # The logits refuse a task that the model does not have.
        logits = model.logits(
            batch.images, batch.domain, name, batch.spacing, natural=batch.natural
        )
        task = model.tasks[name]
        total = total + task.weight * label_losses(logits, labels, task)
    return weight * total
