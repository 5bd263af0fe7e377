"""Small files with the names and layout of MedMNIST sets; their pixels are noise."""

from pathlib import Path

import numpy as np

from client.data import medmnist

COUNTS = {"train": 64, "val": 16, "test": 24}
"""Images of each split: enough for four sites."""


def write_set(folder: Path, dataset: str, size: int = 28) -> Path:
    """Write a set's file with the channels, rank and labels that MedMNIST publishes for it.

    Args:
        folder: Where to write it.
        dataset: MedMNIST's name of the set.
        size: Side of an image, pixels.
    """
    facts = medmnist.info(dataset)
    rng = np.random.default_rng(0)
    colour = (facts.channels,) if facts.channels > 1 else ()
    arrays = {}
    for split, count in COUNTS.items():
        shape = (count, *[size] * facts.rank, *colour)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        # Every class occurs in every split.
        labels = np.arange(count)[:, None] % facts.task.classes
        if facts.task.kind == "multi-label":
            labels = rng.integers(0, 2, (count, facts.task.classes))
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    path = folder / (f"{dataset}.npz" if size == 28 else f"{dataset}_{size}.npz")
    np.savez(path, **arrays)
    return path
