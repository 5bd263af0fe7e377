"""Calibration of a head's logits on the validation split. N images, T outputs of a task.

Temperature scaling (Guo et al. 2017, arXiv:1706.04599); where a site declares class weights, which
shift what a head says of each class, with a bias for each output too (Platt 1999; Alexandari et al.
2020, arXiv:1901.06852). It is folded into the head: whoever reads the file, also by the library or
an export, gets calibrated probabilities.
"""

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from scipy.optimize import minimize
from torch import Tensor, nn

from medformer.config import Frozen, Task
from medformer.model import Medformer
from medformer.tasks import label_losses

PRIOR = 1.0
"""Standard deviation of log temperature and biases before any image is seen: a few images, or
classes that are told apart perfectly, cannot drive them to infinity."""


class Calibration(Frozen):
    """Calibrated logits are `logits / temperature + bias`."""

    temperature: float = Field(default=1.0, gt=0)
    bias: tuple[float, ...]
    """One an output; zeros without class weights."""

    def __call__(self, logits: Tensor) -> Tensor:
        """(N, T) -> (N, T)."""
        return logits / self.temperature + torch.tensor(self.bias, dtype=logits.dtype)

    def undone(self, logits: Tensor) -> Tensor:
        """What the head would say without it, (N, T) -> (N, T)."""
        return (logits - torch.tensor(self.bias, dtype=logits.dtype)) * self.temperature


def unweighted(task: Task) -> Task:
    """The task with a loss that is a negative log-likelihood: no class counts more."""
    return task.model_copy(update={"class_weights": None})


def fit(logits: Tensor, labels: Tensor, task: Task) -> Calibration:
    """The most likely temperature and biases, under a normal prior around 1 and 0.

    Args:
        logits: (N, T) of a task that is not dense.
        labels: (N,) or (N, T); an image that nobody labelled adds nothing.
    """
    plain = unweighted(task)
    scale = float(task.classes) if task.kind == "multi-label" else 1.0  # a mean over labels
    biases = 0 if task.class_weights is None else logits.shape[1]
    values = logits.detach().double()

    def loss(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        free = torch.tensor(point, requires_grad=True)
        scaled = values * (-free[0]).exp()
        scaled = scaled + free[1:] if biases else scaled
        likelihood = scale * label_losses(scaled, labels, plain).sum()
        total = likelihood + (free / PRIOR).square().sum() / 2
        (slope,) = torch.autograd.grad(total, free)
        return float(total.detach()), slope.numpy()

    found = minimize(loss, np.zeros(1 + biases), jac=True, method="BFGS", options={"gtol": 1e-4}).x
    return Calibration(
        temperature=float(np.exp(found[0])),
        bias=tuple(found[1:].tolist()) if biases else (0.0,) * logits.shape[1],
    )


def fold(model: Medformer, task: str, calibration: Calibration) -> None:
    """Change what the task's logits are the sum of so that they are calibrated."""
    head, texture = model.output.heads[task], model.output.textures[task]
    assert isinstance(head, nn.Linear)
    assert isinstance(texture, nn.Linear)
    with torch.no_grad():
        head.weight /= calibration.temperature
        texture.weight /= calibration.temperature
        if task in model.output.readouts:
            model.output.readouts[task] /= calibration.temperature
        head.bias.copy_(calibration(head.bias))
