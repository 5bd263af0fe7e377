"""The catalogue of phantoms, and the functions that draw them."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from medformer.phantoms import abdomen, blood, chest, histology, patterns, ultrasound
from medformer.phantoms.fields import Scene
from medformer.phantoms.scanner import Scanner, acquire

BLOCK = 32
"""Number of images drawn together from one generator. Changing it changes every image."""

MIN_SIZE, MAX_SIZE = 16, 512
"""Smallest and largest side of an image, pixels."""

STANDARD = Scanner()
"""The scanner that is used if none is given."""

Render = Callable[[np.random.Generator, npt.NDArray[np.int64], int], Scene]
Images = npt.NDArray[np.uint8]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PhantomKind:
    """A kind of phantom, and the real images that it imitates."""

    name: str
    """Name of the kind, as `generate` takes it."""
    modality: str
    """Modality that it imitates."""
    anatomy: str
    """Anatomy that it imitates."""
    channels: int
    """1 for grey images, 3 for colour."""
    classes: tuple[str, ...]
    """Class names; the position of a name is its label."""
    finding: str = ""
    """Finding that a mask outlines; empty if the classes name no place in the image."""


KINDS: Mapping[str, PhantomKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            PhantomKind("chest", "chest-xray", "chest", 1, chest.CLASSES, "opacity"),
            PhantomKind("ultrasound", "ultrasound", "breast", 1, ultrasound.CLASSES, "lesion"),
            PhantomKind("histology", "histology", "colon", 3, histology.CLASSES),
            PhantomKind("blood", "microscopy", "blood", 3, blood.CLASSES),
            PhantomKind("abdomen", "ct", "abdomen", 1, abdomen.CLASSES),
        )
    }
)
"""Every kind of phantom, by name."""

PATTERNS = PhantomKind("patterns", "", "", 3, patterns.CLASSES)
"""Images of no organ, for public pre-training; no site has such images."""

_RENDER: Mapping[str, Render] = MappingProxyType(
    {
        "chest": chest.render,
        "ultrasound": ultrasound.render,
        "histology": histology.render,
        "blood": blood.render,
        "abdomen": abdomen.render,
        PATTERNS.name: patterns.render,
    }
)
_KINDS: Mapping[str, PhantomKind] = MappingProxyType({**KINDS, PATTERNS.name: PATTERNS})


def generate(
    kind: str, count: int, *, seed: int, size: int = 28, scanner: Scanner = STANDARD
) -> tuple[Images, Classes]:
    """Draw labelled phantom images.

    The same arguments give the same bytes (under one version of NumPy), and image i depends on
    neither `count` nor the images before its block. Labels depend only on `kind` and `seed`, so
    that a change of scanner or size shifts the pixels under an unchanged label rule. Classes are
    equally likely.

    Args:
        kind: A key of `KINDS`, or `patterns`.
        count: Number of images, >= 0.
        seed: >= 0. Different seeds give unrelated images.
        size: Side of an image, 16 to 512 pixels.
        scanner: The site's acquisition settings.
    Returns:
        images: uint8, (count, size, size) for grey kinds, (count, size, size, 3) for colour.
        labels: int64, (count,), positions in the kind's `classes`.
    Raises:
        ValueError: The kind is unknown, count or seed is negative, or the size is out of range.
    """
    images, labels, _ = _draw(kind, count, seed, size, scanner)
    return images, labels


def outlined(
    kind: str, count: int, *, seed: int, size: int = 28, scanner: Scanner = STANDARD
) -> tuple[Images, Classes, Classes]:
    """Draw the images and labels of `generate`, and a mask of the finding in each.

    Args:
        kind: A kind whose `finding` is not empty.
        count, seed, size, scanner: As for `generate`.
    Returns:
        Images, labels and masks. Masks are int64, (count, size, size), 1 inside the finding, else
        0; they depend only on kind, seed and size, because a scanner moves nothing.
    Raises:
        ValueError: As `generate`, or the kind has no finding.
    """
    images, labels, masks = _draw(kind, count, seed, size, scanner)
    if masks is None:
        with_masks = ", ".join(k.name for k in KINDS.values() if k.finding)
        raise ValueError(f"{kind} phantoms have no masks; these kinds have: {with_masks}")
    return images, labels, masks


def _draw(
    kind: str, count: int, seed: int, size: int, scanner: Scanner
) -> tuple[Images, Classes, Classes | None]:
    """Draw images, labels and, if the kind has a finding, masks."""
    _check(kind, count, seed, size)
    colour = (3,) if _KINDS[kind].channels == 3 else ()
    images = np.empty((count, size, size, *colour), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    masks = np.empty((count, size, size), dtype=np.int64) if _KINDS[kind].finding else None
    for start in range(0, count, BLOCK):
        block = _block(kind, seed, start // BLOCK, size, scanner)
        # The last block is drawn whole, too, and cut.
        kept = min(BLOCK, count - start)
        for full, part in zip((images, labels, masks), block, strict=True):
            if full is not None and part is not None:
                full[start : start + kept] = part[:kept]
    return images, labels, masks


def _block(
    kind: str, seed: int, index: int, size: int, scanner: Scanner
) -> tuple[Images, Classes, npt.NDArray[np.bool_] | None]:
    """Draw block `index` of a seed's images. Blocks are always whole, so that prefixes agree."""
    labels_rng, scene_rng, scanner_rng = (
        # A generator for each part: another scanner or size cannot change labels.
        np.random.default_rng([seed, zlib.crc32(kind.encode()), index, part])
        for part in range(3)
    )
    # Before the scene, so that labels depend on kind and seed only.
    labels = labels_rng.integers(0, len(_KINDS[kind].classes), BLOCK)
    scene = _RENDER[kind](scene_rng, labels, size)
    images = acquire(scanner_rng, scene.intensities, scanner)
    return np.rint(images * 255).astype(np.uint8), labels, scene.finding


def _check(kind: str, count: int, seed: int, size: int) -> None:
    """Raise ValueError for arguments that `generate` cannot serve."""
    if kind not in _KINDS:
        near = get_close_matches(kind, KINDS, n=1, cutoff=0)
        raise ValueError(
            f"unknown phantom kind {kind!r}; the kinds are {', '.join(KINDS)}. "
            f"Did you mean {near[0]!r}?"
        )
    if count < 0:
        raise ValueError(f"count must be 0 or more, got {count}. Ask for 0 to get empty arrays.")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}. Use any non-negative integer.")
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(
            f"size must be {MIN_SIZE} to {MAX_SIZE} pixels, got {size}. "
            "Generate at the nearest allowed size and resize."
        )
