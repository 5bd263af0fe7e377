"""Losses and probabilities of each kind of task.

Letters: B images, M answers of an image, T outputs of a task.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from medformer.config import UNLABELLED, Task
from medformer.errors import ShapeError


def label_losses(logits: Tensor, labels: Tensor, task: Task) -> Tensor:
    """Return the loss of each example of one task, (B,).

    It is the cross-entropy for classes, its mean over labels for a multi-label task and over pixels
    for a dense one, and for grades the sum of the conditional threshold losses of CORN. With class
    weights, each term is multiplied by the weight of its class. Nothing is divided by the sum of
    the weights, which would depend on the other images.

    Args:
        logits: (B, T), or (B, T, *spatial) for a dense task.
        labels: (B,), (B, T) for a multi-label task, or (B, *spatial) for a dense one; `UNLABELLED`
            where the label is missing.
        task: Kind, classes and class weights.
    Raises:
        ShapeError: The labels do not fit the logits, or are out of range.

    Source: Shi et al. 2021, arXiv:2111.08851 (CORN).
    """
    _check_labels(logits, labels, task)
    known = labels != UNLABELLED
    # A missing label needs a valid index; its loss is dropped at the end.
    truth = labels.clamp(min=0)
    if task.kind == "multi-label":
        each = F.binary_cross_entropy_with_logits(
            logits, truth.to(logits.dtype), _weights(task), reduction="none"
        )  # fmt: skip
        return _mean(each, known)
    if task.kind == "ordinal-regression":
        loss = _grade_losses(logits, truth, task)
    elif task.kind == "binary-class":
        target = truth.to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")
    else:
        loss = F.cross_entropy(logits, truth, reduction="none")
    weights = _weights(task)
    if weights is not None:
        loss = loss * weights[truth]
    return _mean(loss[:, None].flatten(1), known[:, None].flatten(1))


def _grade_losses(logits: Tensor, truth: Tensor, task: Task) -> Tensor:
    """Return the losses of CORN, (B,), for grades `truth` (B,)."""
    # One threshold lies between each two grades.
    grades = torch.arange(task.classes - 1)
    passed = (truth[:, None] > grades).to(logits.dtype)
    # CORN is conditional: threshold k learns only from images that passed all before it.
    asked = truth[:, None] >= grades
    each = F.binary_cross_entropy_with_logits(logits, passed, reduction="none") * asked
    return each.sum(1)


def _check_labels(logits: Tensor, labels: Tensor, task: Task) -> None:
    """Raise ShapeError for labels that the task cannot have."""
    each = {"multi-label": (task.classes,), "dense": tuple(logits.shape[2:])}.get(task.kind, ())
    if labels.shape != (len(logits), *each):
        raise ShapeError(
            f"labels of {task.kind} task {task.name!r} must be {(len(logits), *each)}, "
            f"got {tuple(labels.shape)}"
        )
    highest = 1 if task.kind == "multi-label" else task.classes - 1
    if len(labels) and not (int(labels.min()) >= UNLABELLED and int(labels.max()) <= highest):
        raise ShapeError(
            f"labels of task {task.name!r} must be 0 to {highest}, or {UNLABELLED} where the label "
            f"is missing; got {int(labels.min())} to {int(labels.max())}"
        )


def _weights(task: Task) -> Tensor | None:
    """Return the class weights as a tensor; None without any."""
    return None if task.class_weights is None else torch.tensor(task.class_weights)


def _mean(each: Tensor, known: Tensor) -> Tensor:
    """Average losses over the known labels, (B, M) -> (B,); 0 where none is known."""
    # Divided by what this image has, so that no other image matters.
    return torch.where(known, each, 0.0).sum(1) / known.sum(1).clamp(min=1)


def probabilities(logits: Tensor, task: Task) -> Tensor:
    """Turn logits into the probabilities of the classes.

    >>> task = Task(name="finding", kind="multi-class", classes=2)
    >>> probabilities(torch.zeros(1, 2), task)
    tensor([[0.5000, 0.5000]])

    Args:
        logits: (B, T), or (B, T, *spatial) for a dense task.
        task: Kind and classes.
    Returns:
        (B, classes); (B, 1) for a binary task; (B, classes, *spatial) for a dense one. Those of a
        multi-label task are independent, all others sum to 1.
    """
    if task.kind in ("binary-class", "multi-label"):
        return logits.sigmoid()
    if task.kind == "ordinal-regression":
        # P(grade > k) is a product over thresholds; ONNX has a cumulative sum but no product.
        above = F.logsigmoid(logits).cumsum(1).exp()
        # P(grade > -1) = 1 and P(grade > last) = 0; differences are the grades' probabilities.
        edges = F.pad(F.pad(above, (1, 0), value=1.0), (0, 1))
        return edges[:, :-1] - edges[:, 1:]
    return logits.softmax(1)


def log_odds(logits: Tensor, task: Task) -> Tensor:
    """Return log(p / (1 - p)) of each probability of `probabilities`, in float64.

    It ranks images as the probabilities do, also where those round to 0 or 1 (in float32 from
    logits of 17 on). So a constant added to the logit of a binary task or of a label, or to all
    logits of a multi-class task, changes no ranking.

    Args:
        logits: (B, T).
        task: Any task that is not dense.
    Returns:
        (B, 1) for a binary task, else (B, classes).
    Raises:
        ValueError: The task is dense.
    """
    values = logits.double()
    if task.kind in ("binary-class", "multi-label"):
        return values
    if task.kind == "ordinal-regression":
        # Logarithms throughout, because probabilities would round to 0 or 1.
        passed = F.pad(F.logsigmoid(values).cumsum(1), (1, 0))
        chance = passed + F.pad(F.logsigmoid(-values), (0, 1))
        return chance - torch.log(-torch.expm1(chance))
    if task.is_dense:
        raise ValueError("a dense task has no ranking of images")
    # log(p / (1 - p)) = own logit - logsumexp of all others.
    others = torch.eye(task.classes, dtype=torch.bool)
    return values - values[:, None].masked_fill(others, -torch.inf).logsumexp(2)
