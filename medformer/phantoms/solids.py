"""Solids: volumes of objects of many shapes and textures, the 3D counterpart of patterns.py.

Some are drawn as CT would show them, others as the bare outline that a segmentation gives (as in
AdrenalMNIST3D and VesselMNIST3D). Public pre-training learns from them. Letters: B volumes in a
block, S side of a volume in voxels; lengths are fractions of the side.
"""

from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from medformer.phantoms.fields import Floats, gaussian_weights, step

Scalar = TypeVar("Scalar", bound=np.generic)

SHAPES = ("ball", "ellipsoid", "rod", "disc", "ring", "box", "two lobes", "fork")
TEXTURES = ("plain", "coarse", "fine")
ARRANGEMENTS = ("one", "several")
CLASSES = tuple(
    f"{arrangement}, {shape}, {texture}"
    for arrangement in ARRANGEMENTS
    for texture in TEXTURES
    for shape in SHAPES
)
SEVERAL = 4
"""Number of objects in a volume that shows more than one."""
OUTLINED = 1 / 3
"""Share of the volumes with plain objects that are 0 outside and 1 inside."""
BLOCK = 16
"""Number of volumes drawn together from one generator. Changing it changes every volume."""


def generate(
    count: int, *, seed: int, size: int = 28
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Draw labelled volumes; classes are equally likely, and volume i does not depend on `count`.

    Args:
        count: Number of volumes, >= 0.
        seed: >= 0.
        size: Side, 16 to 128 voxels.
    Returns:
        volumes: uint8, (count, size, size, size).
        labels: int64, (count,), positions in `CLASSES`.
    Raises:
        ValueError: Count or seed is negative, or the size is out of range.
    """
    if count < 0 or seed < 0 or not 16 <= size <= 128:
        raise ValueError(
            f"count {count} and seed {seed} must be 0 or more, size {size} from 16 to 128 voxels"
        )
    volumes = np.empty((count, size, size, size), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    for first in range(0, count, BLOCK):
        rng = np.random.default_rng([seed, first // BLOCK])
        drawn = rng.integers(0, len(CLASSES), BLOCK)
        scenes = render(rng, drawn, size)
        kept = min(BLOCK, count - first)
        volumes[first : first + kept] = np.rint(scenes[:kept] * 255)
        labels[first : first + kept] = drawn[:kept]
    return volumes, labels


def render(rng: np.random.Generator, labels: npt.NDArray[np.int64], size: int) -> Floats:
    """Draw volumes, (B, S, S, S), in [0, 1].

    Args:
        rng: Source of all draws.
        labels: (B,), positions in `CLASSES`.
        size: S, voxels.
    """
    count = len(labels)
    rest, shape = np.divmod(labels, len(SHAPES))
    arrangement, texture = np.divmod(rest, len(TEXTURES))
    several = _each(arrangement == 1)
    covered = np.zeros((count, size, size, size), dtype=np.float32)
    for number in range(SEVERAL):
        thing = _thing(rng, shape, several, number, size)
        # All are drawn, and used only where several are shown: draws do not depend on labels.
        covered = np.maximum(covered, thing * (several | (number == 0)))
    inside, ground = _draw(rng, count, 0.55, 0.95), _draw(rng, count, 0.1, 0.4)
    slow = 0.1 * _field(rng, count, size, 2)
    grain = np.choose(
        _each(texture), (np.float32(0), _field(rng, count, size, 5), _field(rng, count, size, 12))
    )
    noise = 0.03 * rng.standard_normal(covered.shape, dtype=np.float32)
    shown = (ground + slow) * (1 - covered) + (inside + 0.15 * grain) * covered + noise
    # Outlines without texture, as a segmentation gives them.
    bare = _each((rng.random(count) < OUTLINED) & (texture == 0))
    return cast(Floats, np.clip(np.where(bare, covered > 0.5, shown), 0, 1).astype(np.float32))


def _thing(
    rng: np.random.Generator,
    shape: npt.NDArray[np.int64],
    several: npt.NDArray[np.bool_],
    number: int,
    size: int,
) -> Floats:
    """Return the share of each voxel that one object covers, (B, S, S, S).

    If there are several objects, each is small and lies off the middle.
    """
    count = len(shape)
    long = np.where(several, _draw(rng, count, 0.13, 0.2), _draw(rng, count, 0.26, 0.42))
    bearing = 2 * np.pi * (number / SEVERAL + _draw(rng, count, -0.08, 0.08))
    away = np.where(several, 0.27, _draw(rng, count, 0, 0.06))
    height = np.where(several, _draw(rng, count, -0.2, 0.2), _draw(rng, count, -0.06, 0.06))
    centre = np.stack([height, away * np.sin(bearing), away * np.cos(bearing)])
    at = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size) - np.float32(0.5)
    grid = np.stack(np.meshgrid(at, at, at, indexing="ij"))[:, None] - centre.astype(np.float32)
    # Coordinates of the object: rotated, in units of its length.
    z, y, x = np.einsum("bij,jbdhw->ibdhw", _rotations(rng, count), grid / long.astype(np.float32))
    slim, flat = _draw(rng, count, 0.25, 0.4), _draw(rng, count, 0.45, 0.65)
    across = np.sqrt(y**2 + x**2)
    ellipsoid = np.sqrt((z / flat) ** 2 + (y / (0.5 + flat / 2)) ** 2 + x**2)
    rod = np.maximum(across / slim, np.abs(z))
    disc = np.maximum(across, np.abs(z) / slim)
    ring = np.sqrt((across - 0.7) ** 2 + z**2) / 0.3
    box = 1.3 * np.maximum(np.abs(z), np.maximum(np.abs(y), np.abs(x)))
    lobes = np.sqrt((np.abs(z) - 0.45) ** 2 + y**2 + x**2) / 0.52
    fork = np.where(z < 0, np.abs(x), np.abs(np.abs(x) - 0.8 * z))
    fork = np.maximum(np.sqrt(fork**2 + y**2) / slim, np.abs(z))
    ball = np.sqrt(z**2 + across**2)
    # Every shape is a distance that is 1 on its surface.
    reach = np.choose(_each(shape), (ball, ellipsoid, rod, disc, ring, box, lobes, fork))
    return step(1 - reach, (2 / (size * long)).astype(np.float32))


def _rotations(rng: np.random.Generator, count: int) -> Floats:
    """Draw random rotations from unit quaternions, (B, 3, 3)."""
    drawn = rng.standard_normal((4, count))
    w, x, y, z = drawn / np.linalg.norm(drawn, axis=0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows, dtype=np.float32), -1, 0)


def _field(rng: np.random.Generator, count: int, size: int, cells: int) -> Floats:
    """Draw a smooth Gaussian field with mean 0 and variance 1 at every voxel, (B, S, S, S)."""
    at = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    margin = 2.0 / cells
    points = np.linspace(-margin, 1 + margin, cells + 5, dtype=np.float32)
    rows = gaussian_weights(at, points, 0.6 * float(points[1] - points[0]))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float64)
    lattice = rng.standard_normal((count, *[len(points)] * 3), dtype=np.float32)
    field = np.einsum("dk,hl,wm,bklm->bdhw", rows, rows, rows, lattice, optimize=True)
    return cast(Floats, field.astype(np.float32))


def _draw(rng: np.random.Generator, count: int, low: float, high: float) -> Floats:
    """Draw a uniform number in [low, high) for each volume, ready to broadcast."""
    return _each(rng.uniform(low, high, count).astype(np.float32))


def _each(values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """Add the axes of a volume, (B,) -> (B, 1, 1, 1)."""
    return values[:, None, None, None]
