"""Central training on public images before round 1. It reads no private record: zero epsilon."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from medformer import phantoms
from medformer.config import UNKNOWN, Domain, ModelConfig, Task
from medformer.images import shift_and_flip, standardise
from medformer.library.models import seeded
from medformer.model import Medformer
from medformer.objectives import Batch, mix_losses
from medformer.phantoms import solids
from medformer.sharing import is_local
from server.protocol import Tensors
from server.run.federation import Pretraining

log = logging.getLogger(__name__)

REVISION = 4
"""Raise it with whatever changes public images or what training makes of them: kept starts are of
one revision."""
UNKNOWN_EVERY = 5
"""In every so many turns through the sets, images are shown as of unknown modality and anatomy."""
NAMED = ("modality", "anatomy")
"""Parts of the input adapter that have an entry for each name and one for `unknown`."""
REFERENCE_BATCHES = 8
"""Batches of each set that the reference moments are taken over."""
WHITENING_BATCHES = 8
"""Batches of each set that the whitening of features is taken from."""
VOLUME_SIZE = 28
"""Side of public volumes, voxels."""
_APART = 1_000_003
"""Added to the seed of public images, so that they are no site's phantoms."""


@dataclass(frozen=True)
class PublicSet:
    """Public images of one kind with labels."""

    domain: Domain
    task: Task
    images: Tensor
    """(N, C, H, W), or (N, C, D, H, W), uint8."""
    labels: Tensor
    """(N,) int64."""


def phantom_sets(settings: Pretraining, size: int = 28) -> list[PublicSet]:
    """Procedural images of every kind, colour ones in grey too, whatever kinds the sites have.

    Patterns and volumes imitate no kind and are shown as of unknown modality and anatomy.

    Args:
        settings: How many of each.
        size: Their side in pixels: that of most sites, so that the same stages of a stem learn.
    """
    kinds = [(kind, settings.images) for kind in phantoms.KINDS.values()]
    if settings.patterns:
        kinds.append((phantoms.PATTERNS, settings.patterns))
    found = [s for kind, count in kinds for s in _sets_of(kind, count, settings.seed, size)]
    if settings.volumes:
        found.append(_volumes(settings.volumes, settings.seed))
    return found


def _volumes(count: int, seed: int) -> PublicSet:
    volumes, labels = solids.generate(count, seed=_APART + seed, size=VOLUME_SIZE)
    domain = Domain(
        name="phantom-solids", modality=UNKNOWN, anatomy=UNKNOWN, channels=1, rank=3,
        size=VOLUME_SIZE,
    )  # fmt: skip
    task = Task(name=domain.name, kind="multi-class", classes=len(solids.CLASSES))
    return PublicSet(domain, task, torch.from_numpy(volumes)[:, None], torch.from_numpy(labels))


def _sets_of(kind: phantoms.PhantomKind, count: int, seed: int, size: int) -> Iterator[PublicSet]:
    pixels, labels = phantoms.generate(kind.name, count, seed=_APART + seed, size=size)
    tensor = torch.from_numpy(pixels)
    colour = tensor.permute(0, 3, 1, 2) if kind.channels == 3 else tensor[:, None]
    grey = colour.float().mean(1, keepdim=True).to(torch.uint8)
    for variant in [colour, grey] if kind.channels == 3 else [colour]:
        channels = variant.shape[1]
        domain = Domain(
            name=f"phantom-{kind.name}-{channels}",
            modality=kind.modality or UNKNOWN,
            anatomy=kind.anatomy or UNKNOWN,
            channels=channels,
            size=size,
        )
        task = Task(name=domain.name, kind="multi-class", classes=len(kind.classes))
        yield PublicSet(domain, task, variant, torch.from_numpy(labels))


def phantom_domains() -> list[Domain]:
    """Modalities and anatomies that phantoms show: part of a model that is pre-trained on them."""
    return [
        Domain(name=k.name, modality=k.modality, anatomy=k.anatomy, channels=k.channels)
        for k in phantoms.KINDS.values()
    ]


def initial_shared(config: ModelConfig, seed: int) -> Tensors:
    """Shared tensors before any training, from the federation's seed."""
    return _as_arrays(seeded(config, (), site=False, seed=seed).named_parameters())


def train_public(
    preset: str,
    encoder_eps: float,
    settings: Pretraining,
    sets: list[PublicSet],
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    *,
    start: Tensors | None = None,
) -> Tensors:
    """Train on public images, one kind a step in turn.

    What is trained knows the names of the public images alone, so that it is the same for every
    federation. Images shown as unknown train the `unknown` entries. The moments of all public
    images' features become the reference of the alignment objective, and what varies within each
    set is what features are whitened by before a head. Texture heads do not take part: tokens are
    better where the mean alone has to tell (docs/experiments/, section 22).

    Args:
        encoder_eps: Of the encoder's norms.
        sets: Public images; their heads are thrown away afterwards.
        progress: Called every 50 steps with (step, steps, loss).
        start: What another public training made, to go on from; random tensors if left out.
    Returns:
        Name -> array, for `carried_over`.
    """
    config = ModelConfig.for_domains([s.domain for s in sets], preset)
    config = config.model_copy(update={"encoder_eps": encoder_eps})
    model = seeded(config, [s.task for s in sets], site=False, seed=settings.seed)
    if start is not None:
        _go_on_from(start, model)
    model.train()
    generator = torch.Generator().manual_seed(settings.seed)
    model.output.textures.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps
    )
    began = time.monotonic()
    for step in range(settings.steps):
        turn, place = divmod(step, len(sets))
        batch = _draw(sets[place], settings.batch_size, generator)
        if turn % UNKNOWN_EVERY == UNKNOWN_EVERY - 1:
            batch = _anonymous(batch)
        loss = mix_losses(model, batch, settings.objectives, generator).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49 or step + 1 == settings.steps:
            progress(step + 1, settings.steps, float(loss.detach()))
    _set_reference(model, sets, settings.batch_size, generator)
    _set_whitening(model, sets, settings)
    log.info("pre-trained on public images in %.1f s", time.monotonic() - began)
    return _as_arrays((k, v) for k, v in model.named_parameters() if not is_local(k))


def carried_over(trained: Tensors, start: Tensors) -> Tensors:
    """The start of a federation with the public tensors of its names and shapes in it.

    A modality or an anatomy that they do not have starts as the unknown one.
    """
    found = dict(start)
    for name, own in start.items():
        group, field, *rest = name.split(".")
        known = name
        if group == "input" and field in NAMED and name not in trained:
            known = ".".join([group, field, UNKNOWN, *rest[1:]])
        if known in trained and trained[known].shape == own.shape:
            found[name] = trained[known]
    return found


def _go_on_from(start: Tensors, model: Medformer) -> None:
    """Put the public tensors of another training into a model."""
    own = {k: v for k, v in model.named_parameters() if not is_local(k)}
    with torch.no_grad():
        for name, value in carried_over(start, _as_arrays(own.items())).items():
            own[name].copy_(torch.from_numpy(value))


def _as_arrays(named: Iterable[tuple[str, Tensor]]) -> Tensors:
    return {k: v.detach().numpy().copy() for k, v in named}


def _draw(public: PublicSet, size: int, generator: torch.Generator) -> Batch:
    rows = torch.randint(len(public.images), (size,), generator=generator)
    images = shift_and_flip(public.images[rows], generator)
    return Batch(standardise(images), {public.task.name: public.labels[rows]}, public.domain)


def _anonymous(batch: Batch) -> Batch:
    """The same images, with nothing said about them."""
    nothing = {"modality": UNKNOWN, "anatomy": UNKNOWN}
    return replace(batch, domain=batch.domain.model_copy(update=nothing))


def _set_reference(
    model: Medformer, sets: list[PublicSet], size: int, generator: torch.Generator
) -> None:
    """Mean and variance of the public images' mean tokens; every set counts the same."""
    batches = (_draw(public, size, generator) for public in sets * REFERENCE_BATCHES)
    model.pretext.reference.fit(_features(model, batches)[0])


def _set_whitening(model: Medformer, sets: list[PublicSet], settings: Pretraining) -> None:
    """Whiten what varies within the sets of public images."""
    size, generator = settings.batch_size, torch.Generator().manual_seed(settings.seed)
    groups = []
    for public in sets:
        batches = (_draw(public, size, generator) for _ in range(WHITENING_BATCHES))
        groups.append(_features(model, batches))
    model.output.fit_whitening(groups)


@torch.no_grad()
def _features(model: Medformer, batches: Iterable[Batch]) -> list[Tensor]:
    """What heads are shown of the images of all batches, part by part, each (N, D); the query of a
    task that has learned nothing finds the mean token."""
    found = []
    for batch in batches:
        depths = model.depths(batch.images, batch.domain)
        found.append(model.output.features(depths, depths[-1].mean(1)))
    return [torch.cat(part) for part in zip(*found, strict=True)]
