"""Finetuning after a federation: a head, or the whole model, for the hospital's use, WITHOUT
privacy.

The guard never imports this package (tests/test_architecture.py), so that no message can ask for
it. The model's card says dp: none, and every start of training refuses it. B images.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import Parameter

from client.data.load import read
from client.data.natural import with_natural
from client.data.records import Records, has_label
from client.evaluation import CHUNK
from client.local import calibration, novelty
from client.local.batches import batches
from client.local.calibration import Calibration, unweighted
from client.local.start import with_heads
from client.local.store import Fitted, LocalError, LocalModel
from client.local.unlabelled import Pass, check_unlabelled, learned_from_images
from client.site import Site
from client.training import augmented
from medformer import phantoms
from medformer.config import Frozen
from medformer.images import Move
from medformer.model import Medformer
from medformer.objectives import mix_losses, trained_parameters
from medformer.sharing import is_local
from medformer.tasks import label_losses

MIX = {"supervised": 1.0}
"""Weights of the objectives."""
MAX_GRAD_NORM = 1.0
"""Maximum norm of a batch's gradient, for stable steps; it gives no privacy."""
STRANGERS = 128
"""Number of public phantoms of each other modality on which the finished model is tried."""


PASSES = 0
"""Default of `passes`: three made heads worse. See docs/experiments, section 44."""


class Settings(Frozen):
    """Options of the training; everything else is the site's declaration."""

    whole: bool = False
    """Train the encoder, too, not only the tensors that stay at a site in a federation."""
    epochs: int = Field(default=30, ge=1, le=10_000)
    """Maximum passes through the train split."""
    patience: int = Field(default=8, ge=1)
    """Epochs without a better validation loss after which training ends."""
    batch: int = Field(default=32, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    """Learning rate of AdamW; if omitted, 1e-2 for heads and 1e-3 for the whole model."""
    seed: int = Field(default=0, ge=0)
    unlabelled: bool = False
    """Learn from all images first, also from those without a label."""
    passes: int = Field(default=PASSES, ge=0, le=10_000)
    """Passes of self-supervision, with `unlabelled`; 0 fits the whitening of features alone."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of images like the validation images that the model may abstain on."""

    @property
    def rate(self) -> float:
        """Learning rate that is used."""
        return self.learning_rate or (1e-3 if self.whole else 1e-2)


@dataclass(frozen=True)
class Epoch:
    """Losses of one pass through the train split."""

    number: int
    train_loss: float
    """Mean loss of the usable training images, with the declared weights of classes."""
    val_loss: float
    """Mean negative log-likelihood of the labelled images, summed over tasks by their weight."""
    best: bool


def finetune(
    start: Medformer,
    site: Site,
    settings: Settings,
    report: Callable[[Epoch], None],
    *,
    own: bool = False,
    on_pass: Callable[[Pass], None] = lambda done: None,
) -> tuple[LocalModel, int, float]:
    """Train, keep the epoch with the lowest validation loss, calibrate, and fit the abstention.

    Args:
        start: The shared model of a run, or this site's own copy; it is not changed.
        site: The declaration of the site.
        settings: Options of the training.
        report: Called with each epoch, for the site only.
        own: True to go on from the heads of `start`; otherwise they are replaced by fresh ones.
        on_pass: Called after each pass of self-supervision, for the site only.
    Returns:
        The model; the number of its epoch, 0 if no training was better than none; and the
            validation loss of that epoch, before the calibration.
    Raises:
        DataError: A split cannot be read.
        LocalError: A split has no valid image with a label, or `unlabelled` finds none without.
    """
    train, val = (_usable(site, split) for split in ("train", "val"))
    if settings.unlabelled:
        check_unlabelled(site, train)
        start = learned_from_images(
            start, site, train, passes=settings.passes, seed=settings.seed, report=on_pass
        )
    return fit(start, site, train, val, settings, report, own=own)


def fit(
    start: Medformer,
    site: Site,
    train: Records,
    val: Records,
    settings: Settings,
    report: Callable[[Epoch], None],
    *,
    own: bool = False,
) -> tuple[LocalModel, int, float]:
    """Train on records that are read already; otherwise as `finetune`.

    Args:
        start: The shared model of a run, or this site's own copy; it is not changed.
        site: The declaration of the site.
        train: Records to train on, at least one with a label.
        val: Records that choose the epoch and calibrate, at least one with a label.
        settings: Options of the training.
        report: Called with each epoch, for the site only.
        own: True to go on from the heads of `start`.
    Returns:
        As `finetune`.
    """
    train, val = (with_natural(records, start.config) for records in (train, val))
    model = copy.deepcopy(start) if own else with_heads(start, site, settings.seed)
    trained = _trainable(model, site, settings.whole)
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(trained, lr=settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    # Epoch 0: if training only makes the validation loss worse, the start is kept.
    lowest, best, chosen = _loss(model, site, val), _copy(model), 0
    for number in range(1, settings.epochs + 1):
        loss = _epoch(model, site, train, settings.batch, optimizer, trained, generator)
        # Once an epoch: the learning rate falls along a cosine to zero.
        schedule.step()
        held_out = _loss(model, site, val)
        if better := held_out < lowest:
            lowest, best, chosen = held_out, _copy(model), number
        report(Epoch(number, loss, held_out, better))
        if number - chosen >= settings.patience:
            break
    # The last epoch is usually overfitted to a small site.
    model.load_state_dict(best)
    return _fitted(model.eval(), site, train, val, settings.alpha), chosen, lowest


def _trainable(model: Medformer, site: Site, whole: bool) -> list[Parameter]:
    """Freeze all parameters but those that are trained, and return these."""
    named = dict(model.named_parameters())
    names = trained_parameters(model, site.domain, [t.name for t in site.tasks], MIX)
    trained = [named[n] for n in names if whole or is_local(n)]
    # Gradients of the frozen encoder would cost most of the time, and are not used.
    for parameter in named.values():
        parameter.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    return trained


def _usable(site: Site, split: str) -> Records:
    """Read a split, and refuse one without a usable labelled image.

    Raises:
        LocalError: No record is valid and labelled.
    """
    records = read(site, split)
    labelled = any(
        bool(has_label(stack.labels[task.name])[stack.valid].any())
        for stack in records.stacks
        for task in site.tasks
    )
    if not labelled:
        raise LocalError(
            f"site {site.name}: the split {split} has no usable labelled image: fedmedformer site "
            "check shows what it has"
        )
    return records


def _copy(model: Medformer) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def _epoch(
    model: Medformer,
    site: Site,
    records: Records,
    batch: int,
    optimizer: torch.optim.Optimizer,
    trained: Sequence[Tensor],
    generator: torch.Generator,
) -> float:
    """Make one pass in random order; images of several shapes are never in one batch."""
    dense = [t.name for t in site.tasks if t.kind == "dense"]
    model.train()
    total, seen = 0.0, 0
    for stack in batches(records, batch, generator):
        # The same augmentation as in the federation, so that results are comparable.
        move = Move.draw(len(stack), site.domain.rank, generator, flip=site.flip)
        moved = augmented(stack, site, dense, move)
        losses = mix_losses(model, moved, MIX, generator)
        optimizer.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
        optimizer.step()
        total, seen = total + float(losses.detach().sum()), seen + len(stack)
    return total / max(seen, 1)


def _loss(model: Medformer, site: Site, records: Records) -> float:
    """Return the validation loss, without class weights, over labelled images."""
    total = 0.0
    for task in site.tasks:
        each = [
            label_losses(logits, labels, unweighted(task))[has_label(labels)]
            for logits, labels in answers(model, site, records, task.name)
        ]
        losses = torch.cat(each) if each else torch.zeros(0)
        total += task.weight * float(losses.mean()) if len(losses) else 0.0
    return total


def answers(
    model: Medformer, site: Site, records: Records, task: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits and labels of the valid records, in chunks of one shape.

    Args:
        model: The model.
        site: The declaration of the site.
        records: The split.
        task: Name of the task.
    """
    model.eval()
    with torch.no_grad():
        for stack in records.stacks:
            usable = stack[stack.valid]
            for first in range(0, len(usable), CHUNK):
                part = usable[slice(first, first + CHUNK)]
                logits = model.answer(
                    part.images, site.domain, task, part.spacing,
                    natural=part.natural, flip=site.flip,
                )  # fmt: skip
                yield logits, part.labels[task]


def _fitted(model: Medformer, site: Site, train: Records, val: Records, alpha: float) -> LocalModel:
    """Calibrate every head, and fit what the model abstains on."""
    scales: dict[str, Calibration] = {}
    for task in (t for t in site.tasks if t.kind != "dense"):
        pairs = list(answers(model, site, val, task.name))
        logits, labels = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
        # On validation images, because the model is overconfident on those that it was trained on.
        scales[task.name] = calibration.fit(logits, labels, task)
        calibration.fold(model, task.name, scales[task.name])
    novel = novelty.fit(model, site.domain, train, val, alpha)
    fitted = Fitted(
        site=site.name,
        domain=site.domain,
        tasks=site.tasks,
        calibration=scales,
        limit=novel.limit,
        alpha=alpha,
        strangers=strangers(model, site, novel),
    )
    return LocalModel(model, fitted, novel)


def strangers(model: Medformer, site: Site, novel: novelty.Novelty) -> dict[str, float]:
    """Return the share of public phantoms of other modalities that the model abstains on; empty in
    3D.

    Args:
        model: The model.
        site: The declaration of the site.
        novel: The fitted distance and limit.
    Returns:
        Kind of phantom -> share.
    """
    domain, found = site.domain, {}
    # The catalogue holds 2D phantoms, which a model of volumes cannot read.
    if domain.rank != 2 or domain.channels not in (1, 3):
        return {}
    for name, kind in phantoms.KINDS.items():
        # Its own modality is not foreign.
        if kind.modality != domain.modality:
            images, _ = phantoms.generate(name, STRANGERS, seed=0, size=domain.size or 28)
            pixels = torch.from_numpy(as_channels(images, domain.channels))
            far = novel.distances(novelty.features(model, domain, pixels, None)) > novel.limit
            found[name] = float(far.double().mean())
    return found


def as_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Convert phantoms to the site's channels, colour to grey as in Pillow.

    Args:
        images: (B, H, W) or (B, H, W, 3) uint8.
        channels: 1 or 3.
    Returns:
        (B, channels, H, W) uint8.
    """
    if images.ndim == 3:
        return np.repeat(images[:, None], channels, 1)
    if channels == 3:
        return np.ascontiguousarray(np.moveaxis(images, -1, 1))
    grey = images @ np.array([0.299, 0.587, 0.114])
    return np.rint(grey)[:, None].astype(np.uint8)
