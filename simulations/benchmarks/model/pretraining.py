"""Table 2: self-supervised training on unlabelled images, then fine-tuning on few labels.

The encoder sees the training images of all available sets without labels. Then it is fine-tuned for
each set on 1 %, 10 % or all of the labels, next to the same network from random weights. As an
ablation, the encoder is also trained with each pretext task alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import get_args

import torch
from torch import Tensor

from medformer.config import ModelConfig
from medformer.library.models import seeded
from medformer.objectives import Batch, mix_losses
from medformer.sharing import is_local
from server.protocol import LABEL_OBJECTIVES, PublicObjective
from simulations.benchmarks.model.fit import Recipe, augmented, descend, fit, score
from simulations.benchmarks.model.jobs import Job, Key, Values
from simulations.benchmarks.model.networks import Classifier
from simulations.benchmarks.model.sets import DataSet

TABLE = "pretraining"
PRESET = "tiny"
"""The preset that sites train under DP."""
PRETEXT = tuple(sorted(set(get_args(PublicObjective)) - LABEL_OBJECTIVES))
COMBINED = {"degradation": 1.0, "orientation": 1.0}
"""Weights of the two pretext tasks that helped most when trained alone."""
SHARES = {"1 %": 0.01, "10 %": 0.1, "100 %": 1.0}
MIN_STEPS, EPOCHS = 300, 10
"""Length of the fine-tuning: the larger of these."""
STEPS = 3_000

Weights = Mapping[str, Tensor]
Mix = tuple[tuple[str, float], ...]


def vocabulary(sets: Sequence[DataSet], preset: str = PRESET) -> ModelConfig:
    """Return the vocabulary of a model for all sets."""
    return ModelConfig.for_domains([s.domain for s in sets], preset)


def pretrain(sets: Sequence[DataSet], mix: Mix, seed: int, steps: int, preset: str) -> Weights:
    """Train an encoder on unlabelled images, with batches of the sets in turn.

    Args:
        sets: The data sets.
        mix: (objective, weight) pairs.
        seed: Seed of weights and batches.
        steps: Number of batches.
        preset: Size of the model.
    Returns:
        Name -> shared weight.
    """
    model = seeded(vocabulary(sets, preset), (), site=False, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    model.train()

    def loss(step: int) -> Tensor:
        # Sets take turns, so that each has the same number of batches.
        data = sets[step % len(sets)]
        rows = torch.randint(len(data.train), (64,), generator=generator)
        images = augmented(data.train[rows], data.name, generator)
        batch = Batch(images, {}, data.domain)
        return mix_losses(model, batch, dict(mix), generator).mean()

    descend(model.parameters(), Recipe(steps), loss)
    # Only what sites would share: heads are new for each set.
    return {k: v for k, v in model.state_dict().items() if not is_local(k)}


def finetuned(
    sets: Sequence[DataSet], data: DataSet, start: Weights, share: float, seed: int, quick: bool
) -> float:
    """Fine-tune all weights on a fraction of a set's labels, and return the test AUC.

    Args:
        sets: All data sets, for the vocabulary.
        data: The set to fine-tune on.
        start: Pre-trained shared weights; empty for random ones.
        share: Fraction of the labels, in (0, 1].
        seed: Seed of weights, labels and batches.
        quick: Train a few steps only.
    """
    model = seeded(vocabulary(sets), [data.task], site=False, seed=seed)
    # `start` has no head, which stays as drawn from the seed.
    model.load_state_dict(start, strict=False)
    network = Classifier(model, data.domain, data.task)
    part = data.labelled(share, seed)
    # Few labels would give too few steps if epochs alone decided.
    steps = 20 if quick else max(MIN_STEPS, EPOCHS * len(part) // 64)
    fit(network, data, part, Recipe(steps, learning_rate=1e-3), seed)
    return score(network, data.task, data.parts["test"])


def mixes() -> Iterator[tuple[str, Mix]]:
    """Yield names and weights of pretext tasks: none, the combination, and each task alone."""
    yield "none", ()
    yield "combined", tuple(sorted(COMBINED.items()))
    for name in PRETEXT:
        yield name, ((name, 1.0),)


def jobs(sets: Sequence[DataSet], seed: int, quick: bool) -> Iterator[Job]:
    """List the jobs: all fractions of labels after `none` and `combined`, 10 % after each task."""
    steps = 20 if quick else STEPS

    @lru_cache(maxsize=1)
    def start(mix: Mix) -> Weights:
        return pretrain(sets, mix, seed, steps, PRESET) if mix else {}

    def measure(mix: Mix, data: DataSet, share: float) -> Values:
        return {"auc": finetuned(sets, data, start(mix), share, seed, quick)}

    for name, mix in mixes():
        for data in sets:
            for label, share in SHARES.items():
                # The ablation is measured at one fraction, to save time.
                if label != "10 %" and name not in ("none", "combined"):
                    continue
                key = Key(TABLE, data.name, f"{PRESET}, {name}", label)
                yield Job(key, seed, lambda m=mix, d=data, s=share: measure(m, d, s))
