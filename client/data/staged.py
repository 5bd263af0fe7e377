"""Makes one set of stored images look like those of several hospitals, for simulations.

A site can hold a part of a set, behind a scanner of its own, with labels for a part of its images.
N images, T labels of an image.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from client.data.sources import MedMnist, Npz, Phantoms
from medformer.config import UNLABELLED
from medformer.phantoms import Scanner
from medformer.phantoms.scanner import acquire

Array = npt.NDArray[np.generic]
SPLITS = ("train", "val", "test")
CHUNK = 4_096
"""Number of images that are float32 at once."""


def part_of(source: MedMnist, split: str, count: int) -> list[int] | None:
    """Return the rows of a site that holds a part of a set, or None if it holds the whole set.

    All parts of one seed together hold every row exactly once. The test split is whole in each, so
    that sites are compared on the same images.

    Args:
        source: The set, the part and its seed.
        split: train, val or test.
        count: Number of images of the split.
    """
    if source.of == 1 or split == "test":
        return None
    order = np.random.default_rng([source.seed, SPLITS.index(split)]).permutation(count)
    return sorted(order[source.part - 1 :: source.of].tolist())


def scanned(source: MedMnist, split: str, images: Array) -> Array:
    """Return the images as the scanner of the source records them.

    Args:
        source: The set, with the scanner of the site if it has one.
        split: train, val or test.
        images: (N, H, W) or (N, H, W, 3) uint8; rows of this site.
    Returns:
        uint8 images of the same shape.
    """
    if source.scanner is None:
        return images
    scanner = Scanner(**source.scanner.model_dump())
    # A stream for each site and split: the noise of one says nothing about that of another.
    rng = np.random.default_rng([source.seed, source.part, SPLITS.index(split)])
    parts = [
        acquire(rng, images[first : first + CHUNK].astype(np.float32) / 255, scanner)
        for first in range(0, len(images), CHUNK)
    ]
    return np.concatenate([np.rint(part * 255).astype(np.uint8) for part in parts])


def hidden(
    source: Phantoms | Npz | MedMnist, split: str, images: Array, labels: Mapping[str, Array]
) -> dict[str, Array]:
    """Return the labels, those of a random choice of training images replaced by "unlabelled".

    Validation and test images keep theirs: a simulation measures with them.

    Args:
        source: The source, with the fraction of images that keep their labels, and the seed.
        split: train, val or test.
        images: (N, ...), as stored.
        labels: Key -> (N,), (N, T) or a mask for each image.
    """
    if split != "train" or source.labelled == 1:
        return dict(labels)
    gone = _each_by_itself(source, images) if isinstance(source, Npz) else _drawn(source, images)
    found: dict[str, Array] = {}
    for key, values in labels.items():
        # MedMNIST stores uint8, which has no -1.
        signed = values.astype(np.int64)
        signed[gone] = UNLABELLED
        found[key] = signed
    return found


def _drawn(source: Phantoms | MedMnist, images: Array) -> Array:
    """Return the rows that lose their labels: a part of exactly this size of a public set."""
    # Chosen without regard to classes, as a hospital's labels would be.
    order = np.random.default_rng([source.seed, 3]).permutation(len(images))
    return order[round(source.labelled * len(images)) :]


def _each_by_itself(source: Npz, images: Array) -> Array:
    """Return the rows that lose their labels, each decided by its own pixels and the seed.

    A file may hold private records. If the choice depended on their number, one more record would
    change the labels of others, and epsilon covers a change of one record alone.
    """
    seed = str(source.seed).encode()
    hashes = [hashlib.sha256(seed + image.tobytes()).digest()[:8] for image in images]
    place = np.array([int.from_bytes(value, "big") for value in hashes]) / 2**64
    return np.flatnonzero(place >= source.labelled)
