"""The public start of a federation: random tensors, or pre-training on public images."""

import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.data import medmnist, npz
from medformer.config import PRESETS, ModelConfig, Task
from server.protocol import Tensors
from server.run.federation import Federation, Pretraining
from server.run.metrics import append_row
from server.run.pretraining import (
    REVISION,
    PublicSet,
    carried_over,
    initial_shared,
    phantom_sets,
    train_public,
)
from simulations.scenario_file import load_scenario
from simulations.source_facts import medmnist_domain
from simulations.start import kept as pretrained
from simulations.start import natural
from simulations.start.warm import untrained

log = logging.getLogger(__name__)

EPS = ModelConfig.model_fields["encoder_eps"].default
"""Epsilon of the encoder's norms where it does not start from a ViT."""

Progress = Callable[[int, int, float], None]
"""Called with (step, steps, loss) every 50 steps."""


def start_of(federation: Federation, folder: Path, data_root: Path | None) -> Tensors:
    """Return the shared tensors of round 0, with progress in metrics.jsonl.

    It uses half of the cores, because the sites start meanwhile.

    Args:
        federation: Model, seed and settings of the pre-training.
        folder: The run folder.
        data_root: Folder of MedMNIST files.
    """
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    if federation.pretraining is None:
        return untrained(federation, load_scenario(str(folder / "scenario.yaml")).start)
    began = time.monotonic()

    def progress(step: int, steps: int, loss: float) -> None:
        append_row(
            folder,
            {
                "event": "pretraining",
                "step": step,
                "steps": steps,
                "public_loss": loss,
                "seconds": round(time.monotonic() - began, 3),
            },
        )

    return public_start(federation, data_root, pretrained.cache_folder(), progress)


def start_at_hand(federation: Federation, data_root: Path | None, cache: Path) -> Tensors | None:
    """Return the shared tensors of round 0 if nothing has to be trained for them, else None.

    Args:
        federation: A federation with public pre-training.
        data_root: Folder of MedMNIST files.
        cache: Folder where earlier starts are kept.
    Raises:
        MedFormerError: The data set that is declared public cannot be read.
    """
    settings, model = federation.pretraining, federation.model
    assert settings is not None
    random = initial_shared(model, federation.seed)
    if not settings.steps:
        return random
    facts = made_from(settings, model.preset, model.encoder_eps, usual_size(federation), data_root)
    found = pretrained.find(pretrained.key_of(facts), cache)
    if found is None:
        return None
    start = carried_over(found[0], random)
    return natural.at_hand(start, model, cache)


def public_start(
    federation: Federation,
    data_root: Path | None,
    cache: Path,
    progress: Progress = lambda step, steps, loss: None,
) -> Tensors:
    """Return everything that sites share before round 1, by name.

    Public pre-training depends on public images alone, so one start serves every federation with
    its settings, preset and size of image. It is trained only if nobody kept it.

    Args:
        cache: Folder where starts are kept.
    """
    random, settings = initial_shared(federation.model, federation.seed), federation.pretraining
    if settings is None or not settings.steps:
        return random
    made = public_tensors(
        settings, federation.model.preset, federation.model.encoder_eps, usual_size(federation),
        data_root, cache, progress,
    )  # fmt: skip
    return natural.whitened(carried_over(made, random), federation.model, cache)


def public_tensors(
    settings: Pretraining,
    preset: str,
    encoder_eps: float,
    size: int,
    data_root: Path | None,
    cache: Path,
    progress: Progress = lambda step, steps, loss: None,
) -> Tensors:
    """Return the tensors of public pre-training by name, for `carried_over`; keep them in `cache`.

    Args:
        size: Side of public images, pixels.
    """

    def train() -> Tensors:
        sets = sets_of(settings, size, data_root)
        return train_public(preset, encoder_eps, settings, sets, progress)

    return pretrained.kept(made_from(settings, preset, encoder_eps, size, data_root), cache, train)


def made_from(
    settings: Pretraining,
    preset: str,
    encoder_eps: float,
    size: int,
    data_root: Path | None,
) -> dict[str, Any]:
    """Return everything that a public start depends on, as JSON.

    Raises:
        MedFormerError: The data set that is declared public cannot be read.
    """
    content = ""
    if settings.source != "phantoms":
        file = medmnist.find(medmnist.info(settings.source).name, 28, data_root)
        content = hashlib.sha256(file.read_bytes()).hexdigest()
    return {
        "revision": REVISION,
        "settings": settings.model_dump(mode="json"),
        "preset": PRESETS[preset].model_dump(mode="json"),
        "encoder_eps": encoder_eps,
        "size": size,
        "content": content,
    }


def sets_of(settings: Pretraining, size: int, data_root: Path | None) -> list[PublicSet]:
    """Return phantoms, or the data set that the consortium declares public."""
    if settings.source == "phantoms":
        return phantom_sets(settings, size)
    return [declared(settings, data_root)]


def declared(settings: Pretraining, data_root: Path | None) -> PublicSet:
    """Return training images of the data set that is declared public, at most as many as wanted.

    Raises:
        MedFormerError: The data set cannot be read.
    """
    facts = medmnist.info(settings.source)
    domain = medmnist_domain(settings.source)
    images, columns = npz.read(medmnist.find(facts.name, 28, data_root), "train")
    labels = columns["labels"]
    rows = np.random.default_rng(settings.seed).permutation(len(images))[: settings.images]
    pixels = torch.from_numpy(images[rows].astype(np.uint8))
    pixels = pixels.movedim(-1, 1) if facts.channels > 1 else pixels[:, None]
    task = Task(name=facts.name, kind=facts.task.kind, classes=facts.task.classes)
    truth = torch.from_numpy(labels[rows].astype(np.int64))
    return PublicSet(domain, task, pixels, truth if truth.shape[1] > 1 else truth[:, 0])


def usual_size(federation: Federation) -> int:
    """Return the most common side of the sites' 2D images, pixels; 28 if irrelevant or none."""
    if not PRESETS[federation.model.preset].token_budget:
        return 28
    sides = [s.domain.size or 28 for s in federation.sites if s.domain.rank == 2]
    return max(sides, key=sides.count, default=28)


def fingerprint() -> dict[str, Any]:
    """Return digests of a short training on a few images of each kind.

    A change of them means that REVISION has to be raised, so that kept starts are made again.
    """
    settings = Pretraining(images=64, patterns=64, volumes=16, steps=14, batch_size=8)
    sets = phantom_sets(settings)
    digest = hashlib.sha256()
    for one in sets:
        digest.update(one.images.numpy().tobytes())
    losses: list[float] = []
    made = train_public("tiny", EPS, settings, sets, lambda step, steps, loss: losses.append(loss))
    matrices = [v for k, v in made.items() if k.startswith("output.whitening.") and v.ndim == 2]
    whitening = float(np.linalg.norm(matrices))
    return {"images": digest.hexdigest(), "loss": losses[-1], "whitening": whitening}
