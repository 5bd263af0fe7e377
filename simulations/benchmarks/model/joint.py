"""Table 4: one model for all sets at once, compared with a model for each set (table 1).

Each set gets as many batches as it has alone, so that the joint model costs as much as all the
other models together.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from medformer.library.models import seeded
from medformer.model import Medformer
from medformer.tasks import label_losses
from simulations.benchmarks.model import supervised
from simulations.benchmarks.model.fit import Recipe, augmented, descend, score
from simulations.benchmarks.model.jobs import Job, Key, Values
from simulations.benchmarks.model.networks import Classifier
from simulations.benchmarks.model.pretraining import vocabulary
from simulations.benchmarks.model.sets import DataSet

TABLE = "joint"
PRESETS = ("tiny",)


def train_all(sets: Sequence[DataSet], preset: str, seed: int, quick: bool) -> Medformer:
    """Train one model with a head for each set, on batches of the sets in random order.

    Args:
        sets: The data sets.
        preset: Size of the model.
        seed: Seed of weights, order and batches.
        quick: Train a few steps only.
    """
    model = seeded(vocabulary(sets, preset), [s.task for s in sets], site=False, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    recipes = [supervised.recipe(f"medformer-{preset}", s, quick) for s in sets]
    counts = torch.tensor([r.steps for r in recipes])
    # Each set as often as alone, in one random order.
    turns = torch.repeat_interleave(torch.arange(len(sets)), counts)
    turns = turns[torch.randperm(len(turns), generator=generator)]
    model.train()

    def loss(step: int) -> Tensor:
        data = sets[int(turns[step])]
        # With replacement, as in the training of a single set.
        rows = torch.randint(len(data.train), (recipes[0].batch_size,), generator=generator)
        drawn = data.train[rows]
        images = augmented(drawn, data.name, generator)
        logits = model.logits(images, data.domain, data.task.name)
        return label_losses(logits, drawn.labels, data.task).mean()

    descend(model.parameters(), Recipe(len(turns), recipes[0].learning_rate), loss)
    return model


def jobs(sets: Sequence[DataSet], seed: int, quick: bool) -> Iterator[Job]:
    """List a job for each set; all of them share one trained model."""

    # The jobs of all sets share one training.
    @lru_cache(maxsize=1)
    def together(preset: str) -> Medformer:
        return train_all(sets, preset, seed, quick)

    def measure(preset: str, data: DataSet) -> Values:
        network = Classifier(together(preset), data.domain, data.task)
        return {"auc": score(network, data.task, data.parts["test"])}

    for preset in PRESETS:
        for data in sets:
            key = Key(TABLE, data.name, f"medformer-{preset}")
            yield Job(key, seed, lambda p=preset, d=data: measure(p, d))
