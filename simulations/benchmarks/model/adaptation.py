"""Table 3: a scanner that nobody has labels from (leave one site out).

Three sites hold the same set, each seen through a scanner of its own. Two have labels; the third
is where the model will be used. With `domain_adversarial` and `alignment` its images, without
labels, take part in the training, as they would in a federation that it joins; otherwise no image
of it is seen before the test. The public reference of `alignment` is the validation split, seen
through no scanner.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from medformer.config import Domain, ModelConfig
from medformer.images import standardise
from medformer.library.models import seeded
from medformer.model import Medformer
from medformer.objectives import Batch, mix_losses
from medformer.phantoms.scanner import Scanner, acquire
from server.protocol import ramp
from simulations.benchmarks.model.fit import Recipe, augmented, descend, score
from simulations.benchmarks.model.jobs import Job, Key, Values
from simulations.benchmarks.model.networks import Classifier
from simulations.benchmarks.model.sets import DataSet, Part

TABLE = "adaptation"
PRESET = "tiny"
SCANNERS = (
    Scanner(gain=0.8, gamma=0.7, noise=0.02),
    Scanner(gain=1.0, gamma=1.0, noise=0.1, blur=0.5),
    Scanner(gain=0.7, gamma=1.8, noise=0.05, blur=1.0, bias_field=0.5, tint=(1.0, 0.8, 0.7)),
)
SETS = ("bloodmnist", "organamnist", "pneumoniamnist")
"""Large enough to be divided in three."""
METHODS: Mapping[str, Mapping[str, float]] = {
    "none": {"supervised": 1.0},
    "domain_adversarial": {"supervised": 1.0, "domain_adversarial": 0.1},
    "alignment": {"supervised": 1.0, "alignment": 0.003},
    "rescanned": {"rescanned": 1.0},
    "rescanned + domain_adversarial": {"rescanned": 1.0, "domain_adversarial": 0.1},
    "rescanned + alignment": {"rescanned": 1.0, "alignment": 0.003},
}
"""Name -> weights of the objectives. Those that need labels are trained at labelled sites only, the
others grow along `ramp` and are trained at all. Weights chosen on validation AUC."""
LABELLED = {"supervised", "rescanned"}


def seen_through(part: Part, scanner: Scanner, seed: int) -> Part:
    """The same images, taken by another scanner."""
    grey = part.images.shape[1] == 1
    scenes = part.images.numpy() / 255.0
    scenes = scenes[:, 0] if grey else np.moveaxis(scenes, 1, -1)
    taken = acquire(np.random.default_rng(seed), scenes.astype(np.float32), scanner)
    pixels = torch.from_numpy(np.rint(taken * 255).astype(np.uint8))
    return Part(pixels[:, None] if grey else pixels.movedim(-1, 1).contiguous(), part.labels)


def sites_of(data: DataSet, seed: int) -> list[tuple[Domain, Part]]:
    """Thirds of the training images, each through a scanner and with a domain of its own."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))
    return [
        (
            data.domain.model_copy(update={"name": f"site-{i}"}),
            seen_through(data.train[order[i :: len(SCANNERS)]], scanner, 10 * seed + i),
        )
        for i, scanner in enumerate(SCANNERS)
    ]


def adapted(data: DataSet, method: str, target: int, seed: int, steps: int) -> float:
    """Test AUC at the target site."""
    sites = sites_of(data, seed)
    config = ModelConfig.for_domains([domain for domain, _ in sites], PRESET)
    model = seeded(config, [data.task], site=False, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    mixed = METHODS[method]
    labelled = [i for i in range(len(sites)) if i != target]
    taking_part = labelled if set(mixed) <= LABELLED else range(len(sites))
    model.train()

    def batch_of(site: int) -> Batch:
        domain, part = sites[site]
        drawn = part[torch.randint(len(part), (32,), generator=generator)]
        images = augmented(drawn, data.name, generator)
        return Batch(images, {data.task.name: drawn.labels}, domain)

    def loss(step: int) -> Tensor:
        strength = ramp((step + 1) / steps)
        own = {name: mixed[name] for name in mixed if name in LABELLED}
        extra = {name: strength * mixed[name] for name in mixed if name not in LABELLED}
        if "alignment" in extra and step % 50 == 0:
            _set_reference(model, data)
        total = torch.zeros(())
        for site in taking_part:
            wanted = extra if site == target else own | extra
            total = total + mix_losses(model, batch_of(site), wanted, generator).mean()
        return total / len(labelled)

    descend(model.parameters(), Recipe(steps), loss)
    domain, _ = sites[target]
    test = seen_through(data.parts["test"], SCANNERS[target], 10 * seed + 9)
    return score(Classifier(model, domain, data.task), data.task, test)


@torch.no_grad()
def _set_reference(model: Medformer, data: DataSet) -> None:
    """Moments of the mean tokens of public images, as the encoder sees them now."""
    images = standardise(data.parts["val"].images[:256])
    features = model.tokens(images, data.domain).mean(1)
    model.pretext.reference.fit(features)


def jobs(sets: Sequence[DataSet], seed: int, quick: bool) -> Iterator[Job]:
    """Every set, method and site left out; one row a set and method, its mean over the sites."""
    steps = 10 if quick else 500

    def measure(data: DataSet, method: str) -> Values:
        each = [adapted(data, method, target, seed, steps) for target in range(len(SCANNERS))]
        return {"auc": sum(each) / len(each), "worst site's auc": min(each)}

    for method in METHODS:
        for data in (s for s in sets if s.name in SETS):
            key = Key(TABLE, data.name, method)
            yield Job(key, seed, lambda d=data, m=method: measure(d, m))
