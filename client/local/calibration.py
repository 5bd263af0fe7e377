"""Calibration of a head's logits on the validation split. N images, T outputs of a task.

It is temperature scaling (Guo et al. 2017, arXiv:1706.04599). Where a site declares class weights,
which shift the logits of each class, each output gets a bias, too (Platt 1999; Alexandari et al.
2020, arXiv:1901.06852). It is folded into the head, so that every reader of the file, also through
the library or an export, gets calibrated probabilities.
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
"""Standard deviation of log temperature and biases under the prior: a few images, or perfectly
separated classes, cannot drive them to infinity."""


class Calibration(Frozen):
    """A temperature and biases: calibrated logits are `logits / temperature + bias`."""

    temperature: float = Field(default=1.0, gt=0)
    bias: tuple[float, ...]
    """Bias of each output; zeros without class weights."""

    def __call__(self, logits: Tensor) -> Tensor:
        """Calibrate logits, (N, T) -> (N, T)."""
        return logits / self.temperature + torch.tensor(self.bias, dtype=logits.dtype)

    def undone(self, logits: Tensor) -> Tensor:
        """Return the logits before calibration.

        Args:
            logits: (N, T), calibrated.
        Returns:
            (N, T).
        """
        return (logits - torch.tensor(self.bias, dtype=logits.dtype)) * self.temperature


def unweighted(task: Task) -> Task:
    """Return the task with equal class weights, so that its loss is a negative log-likelihood.

    Args:
        task: The task as declared.
    """
    return task.model_copy(update={"class_weights": None})


def fit(logits: Tensor, labels: Tensor, task: Task) -> Calibration:
    """Return the most likely temperature and biases under a normal prior around 1 and 0.

    Args:
        logits: (N, T) of a task that is not dense.
        labels: (N,) or (N, T); an unlabelled image adds nothing.
        task: The task, with its class weights.
    """
    plain = unweighted(task)
    scale = float(task.classes) if task.kind == "multi-label" else 1.0  # a mean over labels
    # Temperature alone cannot change the likeliest class; biases can, and only weights justify
    # them.
    biases = 0 if task.class_weights is None else logits.shape[1]
    values = logits.detach().double()

    def loss(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        free = torch.tensor(point, requires_grad=True)
        # The logarithm keeps the temperature positive without constraints.
        scaled = values * (-free[0]).exp()
        scaled = scaled + free[1:] if biases else scaled
        likelihood = scale * label_losses(scaled, labels, plain).sum()
        total = likelihood + (free / PRIOR).square().sum() / 2
        (slope,) = torch.autograd.grad(total, free)
        return float(total.detach()), slope.numpy()

    # Few parameters and exact gradients: BFGS converges in a handful of steps.
    found = minimize(loss, np.zeros(1 + biases), jac=True, method="BFGS", options={"gtol": 1e-4}).x
    return Calibration(
        temperature=float(np.exp(found[0])),
        bias=tuple(found[1:].tolist()) if biases else (0.0,) * logits.shape[1],
    )


def fold(model: Medformer, task: str, calibration: Calibration) -> None:
    """Scale and shift the task's head, texture and readout so that its logits are calibrated.

    Args:
        model: The model; it is changed in place.
        task: Name of the task.
        calibration: The temperature and biases.
    """
    head, texture = model.output.heads[task], model.output.textures[task]
    assert isinstance(head, nn.Linear)
    assert isinstance(texture, nn.Linear)
    with torch.no_grad():
        head.weight /= calibration.temperature
        texture.weight /= calibration.temperature
        # Readouts are added to the logits, so that they scale with them.
        if task in model.output.readouts:
            model.output.readouts[task] /= calibration.temperature
        # The bias is added once, after all parts are scaled.
        head.bias.copy_(calibration(head.bias))
