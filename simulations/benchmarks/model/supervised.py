"""Table 1: trained from scratch on the labels of one set."""

from collections.abc import Iterator, Sequence

from simulations.benchmarks.model.fit import Recipe, fit, score
from simulations.benchmarks.model.jobs import Job, Key, Values
from simulations.benchmarks.model.networks import build
from simulations.benchmarks.model.sets import DataSet

TABLE = "supervised"
NETWORKS = ("medformer-tiny", "cnn", "medformer-small", "resnet18")

IMAGES = {
    "breastmnist": 40_000,
    "pneumoniamnist": 60_000,
    "pathmnist": 70_000,
    "bloodmnist": 90_000,
    "organamnist": 120_000,
    "adrenalmnist3d": 25_000,
}
"""Images that a network is trained on, repetitions counted: the same for all but the ResNet."""
RESNET_SHARE = 0.3
"""Of these for the ResNet, which takes many times as long an image, and longer in all."""

LEARNING_RATE = {
    "medformer-small": 5e-3,
    "medformer-tiny": 1.5e-3,
    "cnn": 5e-3,
    "resnet18": 1e-3,
}
"""Chosen on the validation AUC of BloodMNIST, BreastMNIST and AdrenalMNIST3D."""


def recipe(network: str, data: DataSet, quick: bool) -> Recipe:
    """How a network is trained on a set; a quick run only shows that it works."""
    share = RESNET_SHARE if network == "resnet18" else 1.0
    steps = 3 if quick else round(share * IMAGES[data.name] / 64)
    return Recipe(steps, LEARNING_RATE[network])


def measure(network: str, data: DataSet, seed: int, quick: bool) -> Values:
    """Test AUC, and the seconds of training."""
    model = build(network, data.domain, data.task, seed)
    seconds = fit(model, data, data.train, recipe(network, data, quick), seed)
    return {
        "validation auc": score(model, data.task, data.parts["val"]),
        "auc": score(model, data.task, data.parts["test"]),
        "seconds": seconds,
    }


def jobs(sets: Sequence[DataSet], seed: int, quick: bool) -> Iterator[Job]:
    """Every network on every set."""
    for network in NETWORKS:
        for data in sets:
            key = Key(TABLE, data.name, network)
            yield Job(key, seed, lambda n=network, d=data: measure(n, d, seed, quick))
