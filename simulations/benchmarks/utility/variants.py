"""Sites made from a MedMNIST file: with few labels, or each with another scanner."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client.data import medmnist
from client.data import npz as reader
from medformer.config import UNLABELLED
from medformer.phantoms.scanner import acquire
from simulations.benchmarks.model.adaptation import SCANNERS
from simulations.benchmarks.model.sets import MIRRORS
from simulations.scenario import PrivacySettings, ScenarioSite, describe

Split = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
SPLITS = ("train", "val", "test")
LABELS_AT_TARGET = 64
"""Number of training images of the unseen site that are labelled after the federation."""


def few_labels(
    dataset: str, share: float, seed: int, data_root: Path | None, folder: Path, *, only: bool
) -> ScenarioSite:
    """Make a site with all training images, of which a random fraction has labels.

    Args:
        dataset: A MedMNIST set.
        share: Fraction of the training images with labels.
        seed: Seed of the choice.
        data_root: Folder of MedMNIST files.
        folder: Folder for the site's file.
        only: Leave out the images without labels.
    """
    splits = _splits(dataset, data_root)
    images, labels = splits["train"]
    # Chosen without regard to classes, as a hospital's labels would be.
    hidden = np.ones(len(images), dtype=bool)
    count = round(share * len(images))
    hidden[np.random.default_rng(seed).permutation(len(images))[:count]] = 0
    if only:
        splits["train"] = images[~hidden], labels[~hidden]
    else:
        splits["train"] = images, np.where(hidden[:, None], UNLABELLED, labels)
    site = _site(dataset, dataset, splits, folder)
    return site.model_copy(update={"privacy": PrivacySettings(n_labelled=count)})


def behind_scanners(
    dataset: str, seed: int, data_root: Path | None, folder: Path
) -> tuple[list[ScenarioSite], ScenarioSite]:
    """Make three sites with a third of the images each, each with its own scanner.

    The last site, where the shift is largest, has no labels.

    Args:
        dataset: A MedMNIST set.
        seed: Seed of the division and of the scanners' noise.
        data_root: Folder of MedMNIST files.
        folder: Folder for the sites' files.
    Returns:
        The sites, and the last one again with labels for a few images.
    """
    splits = _splits(dataset, data_root)
    images, labels = splits["train"]
    order = np.random.default_rng(seed).permutation(len(images))
    sites = []
    for number, scanner in enumerate(SCANNERS):
        own = order[number :: len(SCANNERS)]
        parts = {**splits, "train": (images[own], labels[own])}
        seen: dict[str, Split] = {}
        for place, (split, (pixels, truth)) in enumerate(parts.items()):
            # A stream for each site and split: adding a site changes no other one.
            rng = np.random.default_rng([seed, number, place])
            taken = acquire(rng, (pixels / 255).astype(np.float32), scanner)
            seen[split] = np.rint(taken * 255).astype(np.uint8), truth
        # The last scanner is the one with the largest shift.
        last = number + 1 == len(SCANNERS)
        pixels, truth = seen["train"]
        if last:
            # The division is random already, so the first images are a random choice.
            few = {**seen, "train": (pixels[:LABELS_AT_TARGET], truth[:LABELS_AT_TARGET])}
            labelled = _site(f"site-{number}", dataset, few, folder / "labelled")
            seen["train"] = pixels, np.full_like(truth, UNLABELLED)
        sites.append(_site(f"site-{number}", dataset, seen, folder))
    return sites, labelled


def _splits(dataset: str, data_root: Path | None) -> dict[str, Split]:
    """Read the splits of a file. Files for the choice of recipes have no test split."""
    path = medmnist.find(dataset, 28, data_root)
    with np.load(path, allow_pickle=False) as file:
        # A file without a test split is the proof that recipes were chosen without one.
        present = [split for split in SPLITS if f"{split}_labels" in file.files]
    found = {split: reader.read(path, split) for split in present}
    return {
        split: (images.astype(np.uint8), columns["labels"].astype(np.int64))
        for split, (images, columns) in found.items()
    }


def _site(name: str, dataset: str, splits: Mapping[str, Split], folder: Path) -> ScenarioSite:
    """Write the splits to a file, and return a site that reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    arrays = {f"{s}_images": images for s, (images, _) in splits.items()}
    np.savez(path, **arrays, **{f"{s}_labels": labels for s, (_, labels) in splits.items()})
    source = {"source": "medmnist", "dataset": dataset}
    domain, tasks = describe(ScenarioSite.model_validate({"name": name, "data": source}))
    return ScenarioSite.model_validate(
        {
            "name": name,
            "data": {"source": "npz", "path": path},
            "domain": domain,
            "tasks": tasks,
            "flip": dataset in MIRRORS,
        }
    )
