"""Table 1: supervised training from random weights on the labels of one set."""

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
"""Set -> number of images that a network is trained on, with repetitions; see `SHARE`."""
SHARE = {("resnet18", 2): 0.3, ("resnet18", 3): 0.3, ("medformer-small", 3): 3.0}
"""(network, rank) -> factor of these numbers, if it is not 1. The ResNet gets fewer images, because
it takes many times as long for each and longer in total; `small` gets more volumes, where the CNN,
at full resolution, takes five times as long for each."""

LEARNING_RATE = {
    ("medformer-small", 2): 5e-3,
    ("medformer-small", 3): 1.5e-3,
    ("medformer-tiny", 2): 1.5e-3,
    ("medformer-tiny", 3): 1.5e-3,
    ("cnn", 2): 5e-3,
    ("cnn", 3): 5e-3,
    ("resnet18", 2): 1e-3,
    ("resnet18", 3): 1e-3,
}
"""(network, rank) -> learning rate, chosen on the validation AUC of BloodMNIST, BreastMNIST and
AdrenalMNIST3D."""


def recipe(network: str, data: DataSet, quick: bool) -> Recipe:
    """Return the training of a network on a set; a quick one only shows that it runs."""
    # Volumes need other rates and lengths than images.
    kind = network, data.domain.rank
    # 64 is the batch size of `fit.Recipe`.
    steps = 3 if quick else round(SHARE.get(kind, 1.0) * IMAGES[data.name] / 64)
    return Recipe(steps, LEARNING_RATE[kind])


def measure(network: str, data: DataSet, seed: int, quick: bool) -> Values:
    """Train a network on a set, and return its AUC and the seconds of training."""
    model = build(network, data.domain, data.task, seed)
    seconds = fit(model, data, data.train, recipe(network, data, quick), seed)
    return {
        "validation auc": score(model, data.task, data.parts["val"]),
        "auc": score(model, data.task, data.parts["test"]),
        "seconds": seconds,
    }


def jobs(sets: Sequence[DataSet], seed: int, quick: bool) -> Iterator[Job]:
    """List a job for each network on each set."""
    for network in NETWORKS:
        for data in sets:
            key = Key(TABLE, data.name, network)
            yield Job(key, seed, lambda n=network, d=data: measure(n, d, seed, quick))
