"""Table 3: a scanner without labelled images (leave one site out).

Three sites hold parts of one set, each seen through another scanner. Two sites have labels; at the
third the model is used. With `domain_adversarial` and `alignment`, the third site's images take
part in the training without labels, as they would in a federation that it joins. Otherwise the
model sees none of them before the test. The public reference of `alignment` is the validation
split, seen through no scanner.
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
"""Sets that are large enough to be divided among three sites."""
METHODS: Mapping[str, Mapping[str, float]] = {
    "none": {"supervised": 1.0},
    "domain_adversarial": {"supervised": 1.0, "domain_adversarial": 0.1},
    "alignment": {"supervised": 1.0, "alignment": 0.003},
    "rescanned": {"rescanned": 1.0},
    "rescanned + domain_adversarial": {"rescanned": 1.0, "domain_adversarial": 0.1},
    "rescanned + alignment": {"rescanned": 1.0, "alignment": 0.003},
}
"""Name -> weights of the objectives. Objectives with labels are trained at labelled sites only, the
others at all sites, with weights that grow along `ramp`. Weights were chosen on validation AUC."""
LABELLED = {"supervised", "rescanned"}
"""Objectives that need labels."""


def seen_through(part: Part, scanner: Scanner, seed: int) -> Part:
    """Return the images as another scanner would take them.

    Args:
        part: Images and labels.
        scanner: The scanner's gain, gamma, blur and noise.
        seed: Seed of the noise.
    """
    # Scanners take images with the channel last, and grey ones without a channel.
    grey = part.images.shape[1] == 1
    scenes = part.images.numpy() / 255.0
    scenes = scenes[:, 0] if grey else np.moveaxis(scenes, 1, -1)
    taken = acquire(np.random.default_rng(seed), scenes.astype(np.float32), scanner)
    pixels = torch.from_numpy(np.rint(taken * 255).astype(np.uint8))
    return Part(pixels[:, None] if grey else pixels.movedim(-1, 1).contiguous(), part.labels)


def sites_of(data: DataSet, seed: int) -> list[tuple[Domain, Part]]:
    """Divide the training images in thirds, each with its own scanner and domain."""
    # Shuffled first, because MedMNIST files may be sorted.
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))
    return [
        (
            data.domain.model_copy(update={"name": f"site-{i}"}),
            seen_through(data.train[order[i :: len(SCANNERS)]], scanner, 10 * seed + i),
        )
        for i, scanner in enumerate(SCANNERS)
    ]


def adapted(data: DataSet, method: str, target: int, seed: int, steps: int) -> float:
    """Train on three sites, and return the test AUC at the target site.

    Args:
        data: The set that the sites share.
        method: A name of `METHODS`.
        target: Number of the site without labels.
        seed: Seed of division, weights and batches.
        steps: Number of steps.
    """
    sites = sites_of(data, seed)
    config = ModelConfig.for_domains([domain for domain, _ in sites], PRESET)
    model = seeded(config, [data.task], site=False, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    mixed = METHODS[method]
    labelled = [i for i in range(len(sites)) if i != target]
    # Objectives without labels may use the images of the target site.
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
        # Strong adversarial gradients at the start would keep the encoder from learning anything.
        extra = {name: strength * mixed[name] for name in mixed if name not in LABELLED}
        # The reference follows the encoder, which changes in every step.
        if "alignment" in extra and step % 50 == 0:
            _set_reference(model, data)
        total = torch.zeros(())
        for site in taking_part:
            # No label of the target site is ever used.
            wanted = extra if site == target else own | extra
            total = total + mix_losses(model, batch_of(site), wanted, generator).mean()
        # Divided by the labelled sites, so that the supervised part has the same scale in all
        # methods.
        return total / len(labelled)

    descend(model.parameters(), Recipe(steps), loss)
    domain, _ = sites[target]
    test = seen_through(data.parts["test"], SCANNERS[target], 10 * seed + 9)
    return score(Classifier(model, domain, data.task), data.task, test)


@torch.no_grad()
def _set_reference(model: Medformer, data: DataSet) -> None:
    """Fit the reference of `alignment` to public images, with the encoder as it is now."""
    images = standardise(data.parts["val"].images[:256])
    features = model.tokens(images, data.domain).mean(1)
    model.pretext.reference.fit(features)


def jobs(sets: Sequence[DataSet], seed: int, quick: bool) -> Iterator[Job]:
    """List a job for each set and method; it averages over the site that is left out."""
    steps = 10 if quick else 500

    def measure(data: DataSet, method: str) -> Values:
        each = [adapted(data, method, target, seed, steps) for target in range(len(SCANNERS))]
        return {"auc": sum(each) / len(each), "worst site's auc": min(each)}

    for method in METHODS:
        for data in (s for s in sets if s.name in SETS):
            key = Key(TABLE, data.name, method)
            yield Job(key, seed, lambda d=data, m=method: measure(d, m))
