"""Supervised losses of the MedMNIST tasks (Yang et al. 2023), one value an example."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from medformer.config import Task
from medformer.model import Medformer

if TYPE_CHECKING:
    from medformer.objectives import Batch


def losses(model: Medformer, batch: "Batch", generator: torch.Generator, weight: float) -> Tensor:
    """Cross-entropy of each image's label, (B,); mean over the labels of a multi-label task."""
    logits = model.predict(batch.images, batch.domain, batch.task)
    return weight * label_losses(logits, batch.labels, model.tasks[batch.task])


def label_losses(logits: Tensor, labels: Tensor, task: Task) -> Tensor:
    """(B, T) logits and labels -> (B,). Ordinal grades are treated as classes, as MedMNIST does."""
    if task.kind == "binary-class":
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.float(), reduction="none")
    if task.kind == "multi-label":
        return F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").mean(1)
    return F.cross_entropy(logits, labels, reduction="none")


def probabilities(logits: Tensor, task: Task) -> Tensor:
    """(B, T) logits -> (B, T) probabilities, as the MedMNIST evaluator wants them."""
    if task.kind in ("binary-class", "multi-label"):
        return logits.sigmoid()
    return logits.softmax(1)
