"""Table 4: one model over all sets at once against one model each.

Each set gets as many batches as it would alone, so that the joint model costs as much as all the
others together.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from medformer.model import Medformer
from medformer.tasks import label_losses
from simulations.benchmarks.model import supervised
from simulations.benchmarks.model.fit import Recipe, augmented, descend, fit, score
from simulations.benchmarks.model.jobs import Job, Key, Values
from simulations.benchmarks.model.networks import Classifier, build
from simulations.benchmarks.model.pretraining import PRESET, vocabulary
from simulations.benchmarks.model.sets import DataSet

TABLE = "joint"


def train_all(sets: Sequence[DataSet], seed: int, quick: bool) -> Medformer:
    """One model with a head a set; batches of the sets in random order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Medformer(vocabulary(sets), [s.task for s in sets])
    generator = torch.Generator().manual_seed(seed)
    recipes = [supervised.recipe(f"medformer-{PRESET}", s, quick) for s in sets]
    turns = torch.repeat_interleave(
        torch.arange(len(sets)), torch.tensor([r.steps for r in recipes])
    )
    turns = turns[torch.randperm(len(turns), generator=generator)]
    model.train()

    def loss(step: int) -> Tensor:
        data = sets[int(turns[step])]
        rows = torch.randint(len(data.train), (64,), generator=generator)
        drawn = data.train[rows]
        images = augmented(drawn, data.name, generator)
        logits = model.logits(images, data.domain, data.task.name)
        return label_losses(logits, drawn.labels, data.task).mean()

    descend(model.parameters(), Recipe(len(turns), learning_rate=recipes[0].learning_rate), loss)
    return model


def jobs(sets: Sequence[DataSet], seed: int, quick: bool) -> Iterator[Job]:
    """Test AUC of every set, alone and in the joint model."""

    @lru_cache(maxsize=1)
    def together() -> Medformer:
        return train_all(sets, seed, quick)

    def joint(data: DataSet) -> Values:
        network = Classifier(together(), data.domain, data.task)
        return {"auc": score(network, data.task, data.parts["test"])}

    def alone(data: DataSet) -> Values:
        network = build(f"medformer-{PRESET}", data.domain, data.task, seed)
        recipe = supervised.recipe(f"medformer-{PRESET}", data, quick)
        fit(network, data, data.train, recipe, seed)
        return {"auc": score(network, data.task, data.parts["test"])}

    for data in sets:
        for name, measure in (("one model each", alone), ("one model for all", joint)):
            key = Key(TABLE, data.name, name)
            yield Job(key, seed, lambda m=measure, d=data: m(d))
