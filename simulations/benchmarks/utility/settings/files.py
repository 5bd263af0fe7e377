"""Reads a MedMNIST file, and writes the files of sites that are made from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.data import medmnist
from client.data import npz as reader
from simulations.benchmarks.model.sets import MIRRORS
from simulations.scenario import ScenarioSite, describe

Split = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
SPLITS = ("train", "val", "test")


def splits_of(dataset: str, data_root: Path | None) -> dict[str, Split]:
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


def site_of(name: str, dataset: str, splits: Mapping[str, Split], folder: Path) -> ScenarioSite:
    """Write the splits to a file, and return a site that reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    arrays = {f"{s}_images": images for s, (images, _) in splits.items()}
    np.savez(path, **arrays, **{f"{s}_labels": labels for s, (_, labels) in splits.items()})
    return ScenarioSite.model_validate(
        {
            "name": name,
            "data": {"source": "npz", "path": path},
            **declared(name, dataset),
            "flip": dataset in MIRRORS,
        }
    )


def declared(name: str, dataset: str) -> dict[str, Any]:
    """Return domain and tasks of a site whose file is made from a MedMNIST set."""
    source = {"source": "medmnist", "dataset": dataset}
    domain, tasks = describe(ScenarioSite.model_validate({"name": name, "data": source}))
    return {"domain": domain, "tasks": tasks}
