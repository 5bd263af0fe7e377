"""Answers an image with the model of a simulated site, and writes images to try.

A simulated site's task heads and its own copy of the model are in its state folder, which lies in
the run folder. Between hospitals they never leave the site: a hospital uses `fedmedformer site
predict`. Only public images are copied out of a site's data: phantoms, and those of MedMNIST.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from client.data import medmnist
from client.data.errors import DataError, Unusable
from client.data.load import load
from client.data.pictures.reading import picture
from client.data.sources import MedMnist, Phantoms
from client.local_state import final_state, restore
from client.site import Site
from client.state import Store
from client.training import as_torch, site_model
from medformer import phantoms
from medformer.config import Task
from medformer.errors import ConfigError
from medformer.model import Medformer
from medformer.tasks import probabilities
from server.run.checkpoints import load_state, write_json
from server.run.journal import CHECKPOINTS
from simulations.run_folder import Prepared, load_prepared

FOLDER = "examples"
"""Folder of the images to try, in a run folder."""
TRUTH = "examples.json"
"""File in that folder: name of an image -> its site and its true classes."""


@dataclass(frozen=True)
class Answer:
    """A task's answer for one image."""

    task: str
    probabilities: dict[str, float]
    """Class -> probability; a label of a multi-label task has a probability of its own."""
    truth: str
    """The true class; empty where it is not known."""


def write_examples(prepared: Prepared) -> list[Path]:
    """Write one test image of every site with public 2D images; returns their paths."""
    paths, truths = [], {}
    for site in prepared.sites:
        # A site's own files may show patients: nothing of them is copied, in a simulation either.
        if site.domain.rank != 2 or not isinstance(site.data, Phantoms | MedMnist):
            continue
        if not (tasks := answered(site)):
            continue
        # The test split, so that the model has never seen the image.
        stack = load(site, "test").stacks[0][:1]
        path = prepared.folder / FOLDER / f"{site.name}.png"
        path.parent.mkdir(exist_ok=True)
        _as_image(stack.images[0]).save(path)
        labels = {task.name: stack.labels[task.name][0] for task in tasks}
        truths[path.name] = {
            "site": site.name,
            "truth": {t.name: _class(site, t, labels[t.name]) for t in tasks},
        }
        paths.append(path)
    if paths:
        write_json(prepared.folder / FOLDER / TRUTH, truths)
    return paths


def classify(folder: Path, name: str, image: Path) -> list[Answer]:
    """Answer the tasks of a simulated site for one image.

    Args:
        folder: A complete run folder of a simulation.
        name: The site.
        image: A picture file: PNG, JPEG, BMP or TIFF.
    Returns:
        An answer for each task that gives the whole image a class.
    Raises:
        ConfigError: The folder is no simulation, has no such site, or no task to answer.
        DataError: The picture cannot be read.
    """
    prepared = load_prepared(folder)
    site = next((s for s in prepared.sites if s.name == name), None)
    if site is None:
        names = ", ".join(s.name for s in prepared.sites)
        raise ConfigError(f"{folder}: has no site {name!r}; its sites are {names}")
    if site.domain.rank != 2 or not answered(site):
        raise ConfigError(f"site {name}: has no task that gives a picture a class")
    model = model_of(prepared, site)
    pixels = _pixels(image, site)
    truth = _truth(image)
    answers = []
    with torch.no_grad():
        for task in answered(site):
            logits = model.answer(pixels, site.domain, task.name, flip=site.flip)
            shares = probabilities(logits, task)[0].tolist()
            # A binary task has one output: the probability of class 1.
            if task.kind == "binary-class":
                shares = [1 - shares[0], shares[0]]
            named = dict(zip(class_names(site, task), shares, strict=True))
            answers.append(Answer(task.name, named, truth.get(task.name, "")))
    return answers


def model_of(prepared: Prepared, site: Site) -> Medformer:
    """Return a site's model after the last round, with its own task heads, for evaluation.

    Raises:
        ConfigError: The run has no checkpoint, or the site no state: it is not complete.
    """
    folder, federation = prepared.folder, prepared.federation
    state = load_state(folder / CHECKPOINTS)
    place = prepared.states[prepared.sites.index(site)]
    run_id = json.loads((folder / "run.json").read_text())["run_id"]
    # The state before a round that never comes is the one after the last round.
    local = Store(place, run_id).get_state(federation.schedule.rounds + 1)
    if state is None or local is None:
        raise ConfigError(f"{folder}: the run is not complete: go on with --resume")
    model = site_model(federation.model, site.tasks)
    restore(model, as_torch(state.of(site.domain.kind).final()), final_state(local))
    return model.eval()


def answered(site: Site) -> list[Task]:
    """Return the tasks that give a whole image a class."""
    return [task for task in site.tasks if not task.is_dense]


def class_names(site: Site, task: Task) -> list[str]:
    """Return a name for each class: that of the phantom kind or MedMNIST set, else its number."""
    known: Sequence[str] = ()
    if isinstance(site.data, Phantoms):
        known = phantoms.KINDS[site.data.kind].classes
    elif isinstance(site.data, MedMnist):
        known = medmnist.class_names(site.data.dataset)
    if len(known) == task.classes:
        return list(known)
    return [f"class {number}" for number in range(task.classes)]


def _class(site: Site, task: Task, label: Tensor) -> str:
    names = class_names(site, task)
    # Only a multi-label task has several values for an image.
    if label.ndim:
        shown = [name for name, present in zip(names, label.tolist(), strict=True) if present == 1]
        return ", ".join(shown) or "none"
    return names[int(label)] if int(label) >= 0 else ""


def _as_image(pixels: Tensor) -> Image.Image:
    """Make a picture of (C, H, W) uint8."""
    array = pixels.to(torch.uint8).movedim(0, -1).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def _pixels(image: Path, site: Site) -> Tensor:
    """Read a picture file as (1, C, H, W), in the colours of the site."""
    if not image.is_file():
        raise DataError(f"{image}: there is no such file")
    try:
        # Read as the site reads its own pictures, so that colours mean the same.
        planes = picture(image, site.domain.channels).planes
    except Unusable as error:
        raise DataError(f"{image}: {error}") from error
    array = np.asarray(planes[0] if len(planes) == 1 else np.stack(planes, -1))
    array = array[..., None] if array.ndim == 2 else array
    pixels = torch.from_numpy(array.copy()).movedim(-1, 0)[None]
    # A deep grey picture has one plane even where the site has three channels.
    return pixels.expand(-1, site.domain.channels, -1, -1)


def _truth(image: Path) -> dict[str, str]:
    try:
        known: dict[str, Any] = json.loads((image.parent / TRUTH).read_text())
    except (OSError, ValueError):
        return {}
    truth: dict[str, str] = known.get(image.name, {}).get("truth", {})
    return truth
