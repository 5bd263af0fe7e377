"""Training on a hospital's images, labelled or not, before its heads are fitted, WITHOUT privacy.

The features that heads read are whitened by the mean and covariance of all images of the train
split, labelled or not; before that, on request, the encoder learns from them by self-supervision.
The guard never imports this package: nothing of it can enter a federation. B images.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from client.data.records import Records
from client.evaluation import CHUNK
from client.local.batches import batches
from client.local.store import LocalError
from client.site import Site
from client.training import augmented
from medformer.images import Move, standardise
from medformer.model import Medformer
from medformer.objectives import Batch, Mix, mix_losses, trained_parameters
from medformer.postprocessing.whitening import adapted

PRETEXT: Mix = {"orientation": 1.0, "inpainting": 0.5}
"""Weights of the self-supervised losses."""
LEARNING_RATE = 1e-3
"""Peak learning rate of AdamW, which has one cycle."""
BATCH = 128
MAX_GRAD_NORM = 1.0
"""Maximum norm of a batch's gradient, for stable steps; it gives no privacy."""


@dataclass(frozen=True)
class Pass:
    """One pass of self-supervision through the train split."""

    number: int
    passes: int
    loss: float
    """Mean self-supervised loss of the images, while they were trained on."""


def check_unlabelled(site: Site, train: Records) -> int:
    """Return the number of images that have no label.

    Args:
        site: The declaration of the site.
        train: The train split.
    Raises:
        LocalError: Every image has a label, or no task reads the features that images alone change.
    """
    if all(task.is_dense for task in site.tasks):
        raise LocalError(
            f"site {site.name}: --unlabelled fits the features of tasks about whole images, and "
            f"{', '.join(task.name for task in site.tasks)} asks about every pixel: leave it out"
        )
    count = int((train.valid & ~train.labelled).sum())
    if not count:
        raise LocalError(
            f"site {site.name}: --unlabelled has nothing to learn from, because all "
            f"{int(train.valid.sum())} usable images of the train split have labels: leave it out"
        )
    return count


def learned_from_images(
    start: Medformer,
    site: Site,
    train: Records,
    *,
    passes: int,
    seed: int,
    report: Callable[[Pass], None],
) -> Medformer:
    """Return a copy of a model that is adapted to all images of a split; its heads stay.

    Args:
        start: The model; it is not changed.
        site: The declaration of the site.
        train: The train split.
        passes: Passes of self-supervision; 0 fits the whitening alone.
        seed: Seed of batches, masks and shifts.
        report: Called after each pass, for the site only.
    """
    model = copy.deepcopy(start)
    if passes:
        _self_supervise(model, site, train, passes, seed, report)
    _fit_whitening(model, site, train)
    return model


def _self_supervise(
    model: Medformer,
    site: Site,
    train: Records,
    passes: int,
    seed: int,
    report: Callable[[Pass], None],
) -> None:
    """Train the encoder by `PRETEXT`, in place."""
    generator = torch.Generator().manual_seed(seed)
    named = dict(model.named_parameters())
    before = {name: parameter.requires_grad for name, parameter in named.items()}
    names = set(trained_parameters(model, site.domain, [], PRETEXT))
    for name, parameter in named.items():
        parameter.requires_grad_(name in names)
    trained = [named[name] for name in sorted(names)]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=0.01)
    steps = passes * sum(1 for _ in batches(train, BATCH, torch.Generator()))
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
    model.train()
    for number in range(1, passes + 1):
        total, seen = 0.0, 0
        for stack in batches(train, BATCH, generator):
            move = Move.draw(len(stack), site.domain.rank, generator, flip=site.flip)
            # Masks need no move, because no label is read.
            losses = mix_losses(model, augmented(stack, site, [], move), PRETEXT, generator)
            optimizer.zero_grad()
            losses.mean().backward()
            torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
            optimizer.step()
            cycle.step()
            total, seen = total + float(losses.detach().sum()), seen + len(stack)
        report(Pass(number, passes, total / max(seen, 1)))
    for name, parameter in named.items():
        parameter.requires_grad_(before[name])


def _fit_whitening(model: Medformer, site: Site, train: Records) -> None:
    """Whiten features by the moments of all usable images, in place."""
    model.eval()
    parameters = dict(model.named_parameters())
    learned = [name for name in parameters if name.startswith("pretext.moments.")]
    sums = {name: torch.zeros_like(parameters[name]) for name in learned}
    for stack in train.stacks:
        usable = stack[stack.valid]
        for first in range(0, len(usable), CHUNK):
            part = usable[slice(first, first + CHUNK)]
            shown = Batch(standardise(part.images), {}, site.domain, part.spacing)
            for name, gradient in _moments(model, shown, learned).items():
                sums[name] -= gradient
    shared = {name: value.detach().numpy() for name, value in parameters.items()}
    found = adapted(shared | {name: value.numpy() for name, value in sums.items()})
    with torch.no_grad():
        for name in (n for n in parameters if n.startswith("output.whitening.")):
            parameters[name].copy_(torch.from_numpy(found[name]))


def _moments(model: Medformer, batch: Batch, names: list[str]) -> dict[str, Tensor]:
    """Return the gradient of the objective `moments`, summed over a batch."""
    parameters = dict(model.named_parameters())
    wanted = [parameters[name].requires_grad_(True) for name in names]
    loss = mix_losses(model, batch, {"moments": 1.0}, torch.Generator()).sum()
    gradients = torch.autograd.grad(loss, wanted)
    for parameter in wanted:
        parameter.requires_grad_(False)
    return dict(zip(names, gradients, strict=True))
