"""Training without privacy and scoring of a network on one set, the same for all networks."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from client.evaluation import auc
from medformer.config import Task
from medformer.images import shift_and_flip, standardise
from medformer.objectives.orientation import oriented
from medformer.tasks import label_losses, log_odds
from simulations.benchmarks.model.sets import MIRRORS, TURNS, DataSet, Part

CHUNK = 256
"""Number of images that are scored at once."""


@dataclass(frozen=True)
class Recipe:
    """Settings of AdamW with one cycle of the learning rate."""

    steps: int
    learning_rate: float = 2e-3
    batch_size: int = 64
    weight_decay: float = 0.05


def augmented(part: Part, name: str, generator: torch.Generator) -> Tensor:
    """Shift images, mirror and turn them where the labels allow it, and standardise them.

    Args:
        part: Images and labels.
        name: The MedMNIST set.
        generator: Draws the augmentation.
    Returns:
        (N, C, *spatial) float32.
    """
    images = shift_and_flip(part.images, generator, flip=name in MIRRORS)
    # Turned and mirrored in all eight ways of a square.
    if name in TURNS:
        turned = torch.randint(8, (len(images),), generator=generator)
        images = oriented(images, turned)
    return standardise(images)


def descend(
    parameters: Iterable[nn.Parameter], recipe: Recipe, loss: Callable[[int], Tensor]
) -> float:
    """Minimise a loss.

    Args:
        parameters: The weights; those without gradient are left out.
        recipe: Number of steps and learning rate.
        loss: Step -> loss of a batch.
    Returns:
        Duration in seconds.
    """
    weights = [p for p in parameters if p.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    # Its total has to be at least 2, also in quick runs.
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=max(2, recipe.steps)
    )
    began = time.monotonic()
    for step in range(recipe.steps):
        optimizer.zero_grad()
        loss(step).backward()
        # The same bound for all networks, against rare large gradients.
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        cycle.step()
    return time.monotonic() - began


def fit(network: nn.Module, data: DataSet, part: Part, recipe: Recipe, seed: int) -> float:
    """Train a network on a part of a set.

    Args:
        network: Trained in place.
        data: The set; its task and name decide loss and augmentation.
        part: The training images.
        recipe: Number of steps, learning rate and batch size.
        seed: Seed of batches and augmentation.
    Returns:
        Duration in seconds.
    """
    generator = torch.Generator().manual_seed(seed)
    network.train()

    def loss(step: int) -> Tensor:
        rows = torch.randint(len(part), (min(recipe.batch_size, len(part)),), generator=generator)
        drawn = part[rows]
        logits = network(augmented(drawn, data.name, generator))
        return label_losses(logits, drawn.labels, data.task).mean()

    return descend(network.parameters(), recipe, loss)


def score(network: nn.Module, task: Task, part: Part) -> float:
    """Return a network's AUC on a part, as `client.evaluation.auc` defines it."""
    network.eval()
    with torch.no_grad():
        logits = torch.cat([network(standardise(x)) for x in part.images.split(CHUNK)])
    value = auc(part.labels.numpy(), log_odds(logits, task).numpy())
    # A programming error if it fails: these splits are fixed files.
    assert value is not None, "every split of these sets holds all classes"
    return value
