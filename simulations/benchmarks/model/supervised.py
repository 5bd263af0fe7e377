"""Table 1: trained from scratch on the labels of one set."""

from collections.abc import Iterator, Sequence

from simulations.benchmarks.model.fit import Recipe, fit, score
from simulations.benchmarks.model.jobs import Job, Key, Values
from simulations.benchmarks.model.networks import build
from simulations.benchmarks.model.sets import DataSet

NETWORKS = ("medformer-tiny", "medformer-small", "cnn", "resnet18")
TABLE = "supervised"


def recipe(network: str, data: DataSet, quick: bool) -> Recipe:
    """Chosen on validation AUC, see docs/results.md; a quick run only shows that it works."""
    raise NotImplementedError


def measure(network: str, data: DataSet, seed: int, quick: bool) -> Values:
    """Test AUC, and the seconds of training."""
    model = build(network, data.domain, data.task, seed)
    seconds = fit(model, data, data.train, recipe(network, data, quick), seed)
    return {"auc": score(model, data.task, data.parts["test"]), "seconds": seconds}


def jobs(sets: Sequence[DataSet], seed: int, quick: bool) -> Iterator[Job]:
    """Every network on every set."""
    for data in sets:
        for network in NETWORKS:
            key = Key(TABLE, data.name, network)
            yield Job(key, seed, lambda n=network, d=data: measure(n, d, seed, quick))
