"""After a federation: a head, or the whole model, for the hospital's own use, WITHOUT privacy.

The guard never imports this package (tests/test_architecture.py): no message can ask for it. What
it makes says dp: none, and is refused wherever training starts. B images.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import Parameter

from client.data.load import read
from client.data.records import Records, Stack, has_label
from client.evaluation import CHUNK
from client.local import calibration, novelty
from client.local.calibration import Calibration, unweighted
from client.local.store import Fitted, LocalError, LocalModel
from client.local_state import final_state
from client.site import Site
from client.state import Store, StoreError
from client.training import augmented
from medformer import phantoms
from medformer.config import Frozen
from medformer.images import Move
from medformer.library.models import seeded
from medformer.model import Medformer
from medformer.objectives import mix_losses, trained_parameters
from medformer.sharing import is_local
from medformer.tasks import label_losses

MIX = {"supervised": 1.0}
MAX_GRAD_NORM = 1.0
LAST_ROUND = 10**6
"""After every round that a schedule can have."""
STRANGERS = 128
"""Public phantoms of each other modality that the finished model is tried on."""


class Settings(Frozen):
    """How to train; everything else is the site's declaration."""

    whole: bool = False
    """Train the encoder too, not only what stays at a site in a federation."""
    epochs: int = Field(default=30, ge=1, le=10_000)
    """Passes through the train split, at most."""
    patience: int = Field(default=8, ge=1)
    """Epochs without a better validation loss after which it ends."""
    batch: int = Field(default=32, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    """Of AdamW; 1e-2 for heads, 1e-3 for the whole model if left out."""
    seed: int = Field(default=0, ge=0)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of images like the validation images that the model may abstain on."""

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.learning_rate or (1e-3 if self.whole else 1e-2)


@dataclass(frozen=True)
class Epoch:
    """What one pass through the train split came to."""

    number: int
    train_loss: float
    """Mean over the valid images, classes weighted as declared."""
    val_loss: float
    """Mean negative log-likelihood of the labelled images, summed over tasks by their weight."""
    best: bool


def finetune(
    start: Medformer,
    site: Site,
    settings: Settings,
    told: Callable[[Epoch], None],
    *,
    own: bool = False,
) -> tuple[LocalModel, int, float]:
    """Train, keep the epoch with the least validation loss, calibrate, and fit the abstention.

    Args:
        start: The shared model of a run, or this site's own copy. Left as it is.
        told: Is told of each epoch, for the site's own eyes.
        own: Go on from the heads of `start`; else they, if any, are not used.
    Returns:
        The model; the epoch it is of, 0 if no training was better than none; and the validation
        loss of that epoch, before the calibration.
    Raises:
        DataError: A split cannot be read.
        LocalError: A split has no valid image with a label.
    """
    train, val = (_usable(site, split) for split in ("train", "val"))
    model = copy.deepcopy(start) if own else with_heads(start, site, settings.seed)
    trained = _trainable(model, site, settings.whole)
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(trained, lr=settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    least, best, chosen = _loss(model, site, val), _copy(model), 0
    for number in range(1, settings.epochs + 1):
        loss = _epoch(model, site, train, settings.batch, optimizer, trained, generator)
        schedule.step()
        held_out = _loss(model, site, val)
        if better := held_out < least:
            least, best, chosen = held_out, _copy(model), number
        told(Epoch(number, loss, held_out, better))
        if number - chosen >= settings.patience:
            break
    model.load_state_dict(best)
    return _fitted(model.eval(), site, train, val, settings.alpha), chosen, least


def _trainable(model: Medformer, site: Site, whole: bool) -> list[Parameter]:
    """Freeze all parameters but those that are trained, and return these."""
    named = dict(model.named_parameters())
    names = trained_parameters(model, site.domain, [t.name for t in site.tasks], MIX)
    trained = [named[n] for n in names if whole or is_local(n)]
    for parameter in named.values():
        parameter.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    return trained


def own_copy(shared: Medformer, site: Site, state: Path, run: str) -> Medformer:
    """What this site has trained alone at the end of a run, with its heads: `alone` phases.

    Args:
        shared: The shared model of that run.
        state: The guard's state folder; only read.
        run: The run's id.
    Raises:
        LocalError: The folder holds no such run, or the site trained nothing alone in it.
    """
    try:
        found = Store(state, run).get_state(LAST_ROUND)
    except StoreError as error:
        raise LocalError(str(error)) from error
    if found is None:
        known = sorted(p.parent.name for p in (state / "runs").glob("*/state"))
        raise LocalError(f"{state}: holds no run {run!r}; there are: {', '.join(known) or 'none'}")
    own = final_state(found).parameters
    if all(is_local(name) for name in own):
        raise LocalError(f"run {run}: this site trained no phase alone, and has no copy of its own")
    model = with_heads(shared, site, 0)
    before = model.state_dict()
    if any(before.get(k, torch.zeros(0)).shape != v.shape for k, v in own.items()):
        raise LocalError(
            f"run {run}: trained another model, or other tasks, than those given: name the model "
            "file that this run left"
        )
    model.load_state_dict(before | own)
    return model


def with_heads(start: Medformer, site: Site, seed: int) -> Medformer:
    """The shared tensors of `start` with fresh local ones for the site's tasks."""
    model = seeded(start.config, site.tasks, site=True, seed=seed)
    shared = {k: v for k, v in start.state_dict().items() if not is_local(k)}
    model.load_state_dict(model.state_dict() | shared)
    return model


def _usable(site: Site, split: str) -> Records:
    """The split's records.

    Raises:
        LocalError: None of them is valid and labelled.
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
            "check says what there is"
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
    """One pass in random order; images of several shapes are never in one batch."""
    dense = [t.name for t in site.tasks if t.kind == "dense"]
    model.train()
    total, seen = 0.0, 0
    for stack in _batches(records, batch, generator):
        move = Move.draw(len(stack), site.domain.rank, generator, flip=site.flip)
        moved = augmented(stack, site, dense, move)
        losses = mix_losses(model, moved, MIX, generator)
        optimizer.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
        optimizer.step()
        total, seen = total + float(losses.detach().sum()), seen + len(stack)
    return total / max(seen, 1)


def _batches(records: Records, batch: int, generator: torch.Generator) -> Iterator[Stack]:
    parts = []
    for stack in records.stacks:
        rows = stack.valid.nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        parts += [(stack, part) for part in rows.split(batch) if len(part)]
    for i in torch.randperm(len(parts), generator=generator).tolist():
        stack, part = parts[i]
        yield stack[part]


def _loss(model: Medformer, site: Site, records: Records) -> float:
    """Validation loss: unweighted, over what is labelled."""
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
    """Logits and labels of the valid records, in chunks of one shape."""
    model.eval()
    with torch.no_grad():
        for stack in records.stacks:
            usable = stack[stack.valid]
            for first in range(0, len(usable), CHUNK):
                part = usable[slice(first, first + CHUNK)]
                logits = model.answer(part.images, site.domain, task, part.spacing, flip=site.flip)
                yield logits, part.labels[task]


def _fitted(model: Medformer, site: Site, train: Records, val: Records, alpha: float) -> LocalModel:
    """Calibrate every head, and say what the model does not answer."""
    scales: dict[str, Calibration] = {}
    for task in (t for t in site.tasks if t.kind != "dense"):
        pairs = list(answers(model, site, val, task.name))
        logits, labels = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
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
    """Share of public phantoms of other modalities that the model abstains on; empty in 3D."""
    domain, found = site.domain, {}
    if domain.rank != 2 or domain.channels not in (1, 3):
        return {}
    for name, kind in phantoms.KINDS.items():
        if kind.modality != domain.modality:
            images, _ = phantoms.generate(name, STRANGERS, seed=0, size=domain.size or 28)
            pixels = torch.from_numpy(as_channels(images, domain.channels))
            far = novel.distances(novelty.features(model, domain, pixels, None)) > novel.limit
            found[name] = float(far.double().mean())
    return found


def as_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """(B, H, W) or (B, H, W, 3) uint8 -> (B, channels, H, W), colour to grey as Pillow has it."""
    if images.ndim == 3:
        return np.repeat(images[:, None], channels, 1)
    if channels == 3:
        return np.ascontiguousarray(np.moveaxis(images, -1, 1))
    grey = images @ np.array([0.299, 0.587, 0.114])
    return np.rint(grey)[:, None].astype(np.uint8)
