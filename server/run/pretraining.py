"""Central training on public images before round 1. It reads no private record: zero epsilon.

Letters: N images, C channels, D depth, H and W pixels; in `_features`, D is the width.
"""

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
"""Version of public images and their training; raise it with every change of either, because starts
that are kept on the disk belong to one revision."""
UNKNOWN_EVERY = 5
"""Number of turns through the sets, in the last of which modality and anatomy count as unknown."""
NAMED = ("modality", "anatomy")
"""Parts of the input adapter with one entry per name, and one for `unknown`."""
REFERENCE_BATCHES = 8
"""Number of batches of each set from which the reference moments are computed."""
WHITENING_BATCHES = 8
"""Number of batches of each set from which the whitening of features is computed."""
VOLUME_SIZE = 28
"""Side of public volumes in voxels."""
_APART = 1_000_003
"""Offset of the seed of public images: a simulated site never has the same phantoms."""


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
    """Generate procedural images of every kind, whatever kinds the sites have.

    Colour images come in grey, too. Patterns and volumes imitate no organ; their modality and
    anatomy are unknown.

    Args:
        settings: Numbers of images, and their seed.
        size: Side of the images in pixels. Take that of most sites, because the stages of a stem
            that learn depend on it.
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
    # A kind in colour is shown in grey, too, so that the stem for grey images learns from it.
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


def initial_shared(config: ModelConfig, seed: int) -> Tensors:
    """Return the shared tensors before any training.

    Args:
        config: Vocabulary and size of the model.
        seed: The federation's seed.
    """
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
    """Train on public images; each step takes a batch of one set, in turn.

    The model knows only the names of the public images, so the result is the same for every
    federation. Images whose modality and anatomy are hidden train the `unknown` entries. The
    moments of all public features become the reference of the alignment objective, and the
    variation within each set is what features are whitened by before a head. Texture heads are
    frozen: tokens are better if the mean token alone has to answer (docs/experiments/, section 22).

    Args:
        preset: Size of the model.
        encoder_eps: Epsilon of the encoder's norms.
        settings: Steps, batch size, learning rate, objectives and seed.
        sets: Public images. Their heads are thrown away afterwards.
        progress: Called every 50 steps with (step, steps, loss).
        start: Result of another public training to continue; random tensors if left out.
    Returns:
        Name -> array, for `carried_over`.
    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, for AdamW; Smith and Topin 2018,
        arXiv:1708.07120, for the one-cycle learning rate.
    """
    model = _public_model(preset, encoder_eps, settings, sets, start)
    generator = torch.Generator().manual_seed(settings.seed)
    began = time.monotonic()
    _fit(model, settings, sets, generator, progress)
    _set_reference(model, sets, settings.batch_size, generator)
    _set_whitening(model, sets, settings)
    log.info("pre-trained on public images in %.1f s", time.monotonic() - began)
    return _as_arrays((k, v) for k, v in model.named_parameters() if not is_local(k))


def _public_model(
    preset: str,
    encoder_eps: float,
    settings: Pretraining,
    sets: list[PublicSet],
    start: Tensors | None,
) -> Medformer:
    """Build a model with the names and tasks of the public images."""
    config = ModelConfig.for_domains([s.domain for s in sets], preset)
    config = config.model_copy(update={"encoder_eps": encoder_eps})
    model = seeded(config, [s.task for s in sets], site=False, seed=settings.seed)
    # Continue another training; tensors that it does not have stay random.
    if start is not None:
        _go_on_from(start, model)
    model.train()
    model.output.textures.requires_grad_(False)
    return model


def _fit(
    model: Medformer,
    settings: Pretraining,
    sets: list[PublicSet],
    generator: torch.Generator,
    progress: Callable[[int, int, float], None],
) -> None:
    """Take the steps of the training, one batch each."""
    # Adaptive, unlike the optimizer of the sites: there is no noise here.
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps
    )
    for step in range(settings.steps):
        batch = _batch_of_step(step, sets, settings.batch_size, generator)
        loss = mix_losses(model, batch, settings.objectives, generator).mean()
        optimizer.zero_grad()
        loss.backward()
        # For stability alone; under DP the bound would be part of the guarantee.
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49 or step + 1 == settings.steps:
            progress(step + 1, settings.steps, float(loss.detach()))


def carried_over(trained: Tensors, start: Tensors) -> Tensors:
    """Put public tensors into the start of a federation, where names and shapes agree.

    Args:
        trained: Result of `train_public`.
        start: `initial_shared` of the federation.
    Returns:
        The federation's tensors. A modality or anatomy that public images do not show starts from
        the `unknown` entry.
    """
    result = dict(start)
    for name, initial in start.items():
        group, field, *rest = name.split(".")
        source = name
        # The entry of a name that no public image shows: take that of `unknown`.
        if group == "input" and field in NAMED and name not in trained:
            source = ".".join([group, field, UNKNOWN, *rest[1:]])
        # Another shape is that of a stem for other images.
        if source in trained and trained[source].shape == initial.shape:
            result[name] = trained[source]
    return result


def _go_on_from(start: Tensors, model: Medformer) -> None:
    """Put the public tensors of another training into a model."""
    own = {k: v for k, v in model.named_parameters() if not is_local(k)}
    with torch.no_grad():
        for name, value in carried_over(start, _as_arrays(own.items())).items():
            own[name].copy_(torch.from_numpy(value))


def _as_arrays(named: Iterable[tuple[str, Tensor]]) -> Tensors:
    # Copies: the model may train on.
    return {k: v.detach().numpy().copy() for k, v in named}


def _batch_of_step(
    step: int, sets: list[PublicSet], size: int, generator: torch.Generator
) -> Batch:
    """Draw a batch of the set whose turn it is; now and then its names are hidden."""
    turn, place = divmod(step, len(sets))
    batch = _draw(sets[place], size, generator)
    return _anonymous(batch) if turn % UNKNOWN_EVERY == UNKNOWN_EVERY - 1 else batch


def _draw(public: PublicSet, size: int, generator: torch.Generator) -> Batch:
    rows = torch.randint(len(public.images), (size,), generator=generator)
    images = shift_and_flip(public.images[rows], generator)
    return Batch(standardise(images), {public.task.name: public.labels[rows]}, public.domain)


def _anonymous(batch: Batch) -> Batch:
    """Return the same images with unknown modality and anatomy."""
    nothing = {"modality": UNKNOWN, "anatomy": UNKNOWN}
    return replace(batch, domain=batch.domain.model_copy(update=nothing))


def _set_reference(
    model: Medformer, sets: list[PublicSet], size: int, generator: torch.Generator
) -> None:
    """Fit the reference moments to the public images' mean tokens; every set has equal weight."""
    batches = (_draw(public, size, generator) for public in sets * REFERENCE_BATCHES)
    # Every set is drawn equally often, so its size has no weight.
    model.pretext.reference.fit(_features(model, batches)[0])


def _set_whitening(model: Medformer, sets: list[PublicSet], settings: Pretraining) -> None:
    """Fit the whitening of features to the variation within each set of public images."""
    # A generator of its own: the whitening does not depend on the number of steps.
    size, generator = settings.batch_size, torch.Generator().manual_seed(settings.seed)
    groups = []
    for public in sets:
        batches = (_draw(public, size, generator) for _ in range(WHITENING_BATCHES))
        groups.append(_features(model, batches))
    model.output.fit_whitening(groups)


@torch.no_grad()
def _features(model: Medformer, batches: Iterable[Batch]) -> list[Tensor]:
    """Return the features that heads see of all batches: one tensor (N, D) per part.

    A task that has learned nothing attends to all tokens equally and so reads the mean token.
    """
    found = []
    for batch in batches:
        depths = model.depths(batch.images, batch.domain)
        found.append(model.output.features(depths, depths[-1].mean(1)))
    return [torch.cat(part) for part in zip(*found, strict=True)]
