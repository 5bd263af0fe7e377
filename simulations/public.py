"""The public start of a federation: random tensors, or pre-training on public images."""

import json
import logging
import os
import time
from pathlib import Path

import numpy as np
import torch

from client.data import medmnist, npz
from medformer.config import Domain, ModelConfig, Task
from medformer.errors import ConfigError
from medformer.vocabulary import ANATOMY
from server.federation import Federation, Pretraining
from server.pretraining import PublicSet, phantom_sets, pretrain
from server.protocol import Tensors
from simulations.scenario import load_scenario
from simulations.start import untrained

log = logging.getLogger(__name__)


def start_of(federation: Federation, folder: Path, data_root: Path | None) -> Tensors:
    """The shared tensors of round 0, with progress in metrics.jsonl.

    It uses half of the cores, because meanwhile the sites start.
    """
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    settings = federation.pretraining
    if settings is None:
        return untrained(federation, load_scenario(str(folder / "scenario.yaml")).start)
    began = time.monotonic()

    def progress(step: int, steps: int, loss: float) -> None:
        row = {
            "event": "pretraining",
            "step": step,
            "steps": steps,
            "public_loss": loss,
            "seconds": round(time.monotonic() - began, 3),
        }
        with open(folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

    sets = public_sets(settings, federation, data_root)
    return pretrain(federation, settings, sets, progress)


def public_sets(
    settings: Pretraining, federation: Federation, data_root: Path | None
) -> list[PublicSet]:
    """Phantoms, or the data set that the consortium declares public."""
    if settings.source == "phantoms":
        size = usual_size(federation)
        return phantom_sets(
            federation.model, settings.images, settings.seed, size, patterns=settings.patterns
        )
    facts = medmnist.info(settings.source)
    modality, anatomy = ANATOMY.get(facts.name, ("", ""))
    domain = Domain(
        name="public",
        modality=modality,
        anatomy=anatomy,
        channels=facts.channels,
        rank=facts.rank,
        size=28,
    )
    _covered(domain, federation.model)
    images, columns = npz.read(medmnist.find(facts.name, 28, data_root), "train")
    labels = columns["labels"]
    rows = np.random.default_rng(settings.seed).permutation(len(images))[: settings.images]
    pixels = torch.from_numpy(images[rows].astype(np.uint8))
    pixels = pixels.movedim(-1, 1) if facts.channels > 1 else pixels[:, None]
    task = Task(name=facts.name, kind=facts.task.kind, classes=facts.task.classes)
    truth = torch.from_numpy(labels[rows].astype(np.int64))
    return [PublicSet(domain, task, pixels, truth if truth.shape[1] > 1 else truth[:, 0])]


def usual_size(federation: Federation) -> int:
    """Side of most sites' 2D images, pixels."""
    sides = [s.domain.size or 28 for s in federation.sites if s.domain.rank == 2]
    return max(sides, key=sides.count, default=28)


def _covered(domain: Domain, model: ModelConfig) -> None:
    known = domain.modality in model.modalities and domain.anatomy in model.anatomies
    if domain.stem not in model.stems or not known:
        raise ConfigError(
            f"pretraining.source: the sites show no {domain.stem} {domain.modality} images of "
            f"{domain.anatomy}, so this public data set has no place in the model"
        )
