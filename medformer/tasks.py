"""What the logits of a task mean: its loss for each example, and its probabilities."""

import torch
import torch.nn.functional as F
from torch import Tensor

from medformer.config import UNLABELLED, Task
from medformer.errors import ShapeError


def label_losses(logits: Tensor, labels: Tensor, task: Task) -> Tensor:
    """Logits and labels of one task -> (B,).

    Cross-entropy for classes; its mean over labels, or pixels, for a multi-label or dense task; for
    grades the sum of the conditional threshold losses of CORN (Shi et al. 2021, arXiv:2111.08851).
    With class weights, each term counts the weight of its class; nothing is divided by their sum,
    which would depend on the other images.

    Args:
        logits: (B, T), or (B, T, *spatial) of a dense task.
        labels: (B,), (B, T) of a multi-label task, or (B, *spatial) of a dense one; `UNLABELLED`
            where nobody knows.
    """
    _check_labels(logits, labels, task)
    known = labels != UNLABELLED
    truth = labels.clamp(min=0)
    if task.kind == "multi-label":
        each = F.binary_cross_entropy_with_logits(
            logits, truth.to(logits.dtype), _weights(task), reduction="none"
        )  # fmt: skip
        return _mean(each, known)
    if task.kind == "ordinal-regression":
        grades = torch.arange(task.classes - 1)
        passed = (truth[:, None] > grades).to(logits.dtype)
        asked = truth[:, None] >= grades  # threshold k is asked of those who passed all before it
        each = F.binary_cross_entropy_with_logits(logits, passed, reduction="none") * asked
        loss = each.sum(1)
    elif task.kind == "binary-class":
        found = truth.to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits[:, 0], found, reduction="none")
    else:
        loss = F.cross_entropy(logits, truth, reduction="none")
    weights = _weights(task)
    if weights is not None:
        loss = loss * weights[truth]
    return _mean(loss[:, None].flatten(1), known[:, None].flatten(1))


def _check_labels(logits: Tensor, labels: Tensor, task: Task) -> None:
    """Raise ShapeError for labels that the task cannot have."""
    each = {"multi-label": (task.classes,), "dense": tuple(logits.shape[2:])}.get(task.kind, ())
    if labels.shape != (len(logits), *each):
        raise ShapeError(
            f"labels of {task.kind} task {task.name!r} must be {(len(logits), *each)}, "
            f"got {tuple(labels.shape)}"
        )
    most = 1 if task.kind == "multi-label" else task.classes - 1
    if len(labels) and not (int(labels.min()) >= UNLABELLED and int(labels.max()) <= most):
        raise ShapeError(
            f"labels of task {task.name!r} must be 0 to {most}, or {UNLABELLED} where nobody "
            f"knows; got {int(labels.min())} to {int(labels.max())}"
        )


def _weights(task: Task) -> Tensor | None:
    return None if task.class_weights is None else torch.tensor(task.class_weights)


def _mean(each: Tensor, known: Tensor) -> Tensor:
    """(B, M) losses -> (B,) mean over what is known; 0 where nothing is."""
    return torch.where(known, each, 0.0).sum(1) / known.sum(1).clamp(min=1)


def probabilities(logits: Tensor, task: Task) -> Tensor:
    """Logits -> probabilities of the classes: (B, classes), (B, 1) for a binary task, (B, classes,
    *spatial) for a dense one; of each label by itself for a multi-label task."""
    if task.kind in ("binary-class", "multi-label"):
        return logits.sigmoid()
    if task.kind == "ordinal-regression":
        above = F.logsigmoid(logits).cumsum(1).exp()  # P(grade > k); ONNX knows no cumprod
        edges = F.pad(F.pad(above, (1, 0), value=1.0), (0, 1))
        return edges[:, :-1] - edges[:, 1:]
    return logits.softmax(1)


def log_odds(logits: Tensor, task: Task) -> Tensor:
    """log(p / (1 - p)) of each probability of `probabilities`, in float64: (B, 1) of a binary task,
    else (B, classes); of a task that is not dense.

    Ranks images as the probabilities do where those can be told apart, and goes on where they round
    to 0 or 1 (float32 does from logits of 17 on): so a constant that is added to the logit of a
    binary task or of a label, or to all logits of a multi-class task, changes no ranking.
    """
    values = logits.double()
    if task.kind in ("binary-class", "multi-label"):
        return values
    if task.kind == "ordinal-regression":
        passed = F.pad(F.logsigmoid(values).cumsum(1), (1, 0))
        chance = passed + F.pad(F.logsigmoid(-values), (0, 1))
        return chance - torch.log(-torch.expm1(chance))
    if task.kind == "dense":
        raise ValueError("a dense task has no ranking of images")
    others = torch.eye(task.classes, dtype=torch.bool)
    return values - values[:, None].masked_fill(others, -torch.inf).logsumexp(2)
