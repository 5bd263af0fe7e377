"""Table 2: self-supervision on unlabelled training images, then few labels.

The encoder sees the training images of all sets at hand (own site and others) without a label. Then
each set fine-tunes it on 1 %, 10 % or all of its labels, beside the same network from random
weights. Each pretext task alone is the ablation.
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
from server.protocol import PublicObjective
from simulations.benchmarks.model.fit import Recipe, augmented, descend, fit, score
from simulations.benchmarks.model.jobs import Job, Key, Values
from simulations.benchmarks.model.networks import Classifier
from simulations.benchmarks.model.sets import DataSet

TABLE = "pretraining"
PRESET = "tiny"
"""What sites train under DP."""
PRETEXT = tuple(sorted(set(get_args(PublicObjective)) - {"supervised", "rescanned"}))
COMBINED = {"degradation": 1.0, "orientation": 1.0}
"""The two that helped most by themselves."""
SHARES = {"1 %": 0.01, "10 %": 0.1, "100 %": 1.0}
LEAST_STEPS, EPOCHS = 300, 10
STEPS = 3_000

Weights = Mapping[str, Tensor]
Mix = tuple[tuple[str, float], ...]


def vocabulary(sets: Sequence[DataSet], preset: str = PRESET) -> ModelConfig:
    """One model for all sets."""
    return ModelConfig.for_domains([s.domain for s in sets], preset)


def pretrain(sets: Sequence[DataSet], mix: Mix, seed: int, steps: int, preset: str) -> Weights:
    """Shared weights after `steps` batches of unlabelled images, one set after the other."""
    model = seeded(vocabulary(sets, preset), (), site=False, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    model.train()

    def loss(step: int) -> Tensor:
        data = sets[step % len(sets)]
        rows = torch.randint(len(data.train), (64,), generator=generator)
        images = augmented(data.train[rows], data.name, generator)
        batch = Batch(images, {}, data.domain)
        return mix_losses(model, batch, dict(mix), generator).mean()

    descend(model.parameters(), Recipe(steps), loss)
    return {k: v for k, v in model.state_dict().items() if not is_local(k)}


def finetuned(
    sets: Sequence[DataSet], data: DataSet, start: Weights, share: float, seed: int, quick: bool
) -> float:
    """Test AUC after fine-tuning everything on a share of a set's labels."""
    model = seeded(vocabulary(sets), [data.task], site=False, seed=seed)
    model.load_state_dict(start, strict=False)
    network = Classifier(model, data.domain, data.task)
    part = data.labelled(share, seed)
    steps = 20 if quick else max(LEAST_STEPS, EPOCHS * len(part) // 64)
    fit(network, data, part, Recipe(steps, learning_rate=1e-3), seed)
    return score(network, data.task, data.parts["test"])


def mixes() -> Iterator[tuple[str, Mix]]:
    """Name -> what the encoder is pre-trained on; nothing, all together, each alone."""
    yield "none", ()
    yield "combined", tuple(sorted(COMBINED.items()))
    for name in PRETEXT:
        yield name, ((name, 1.0),)


def jobs(sets: Sequence[DataSet], seed: int, quick: bool) -> Iterator[Job]:
    """Each set at each share of labels from none and combined, at 10 % from each task alone."""
    steps = 20 if quick else STEPS

    @lru_cache(maxsize=1)
    def start(mix: Mix) -> Weights:
        return pretrain(sets, mix, seed, steps, PRESET) if mix else {}

    def measure(mix: Mix, data: DataSet, share: float) -> Values:
        return {"auc": finetuned(sets, data, start(mix), share, seed, quick)}

    for name, mix in mixes():
        for data in sets:
            for label, share in SHARES.items():
                if label != "10 %" and name not in ("none", "combined"):
                    continue
                key = Key(TABLE, data.name, f"{PRESET}, {name}", label)
                yield Job(key, seed, lambda m=mix, d=data, s=share: measure(m, d, s))
