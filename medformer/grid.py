"""Where tokens lie: positions, neighbourhoods and patches of grids of any rank and size.

Letters: B images, C channels, N tokens, D width. `*spatial` and `*grid` are (H, W) or (D, H, W).
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def positions(grid: Sequence[int], width: int, spacing: Tensor | None = None) -> Tensor:
    """Sine-cosine positions of a grid, (N, D), or (B, N, D) with a spacing; origin at its centre.

    Args:
        grid: Tokens a side.
        width: D; what does not divide among the axes stays 0.
        spacing: (B, rank) distance between pixels along each axis; the finest axis of an image
            counts 1 a token, so that only the ratios matter.
    """
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in grid]
    coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    if spacing is not None:
        coordinates = coordinates * (spacing / spacing.amin(1, keepdim=True))[:, None]
    bands = width // (2 * len(grid))
    frequencies = 100.0 ** (-torch.arange(bands) / bands)
    angles = (coordinates[..., None] * frequencies).flatten(-2)
    waves = torch.cat([angles.sin(), angles.cos()], -1)
    return F.pad(waves, (0, width - 2 * angles.shape[-1]))


@lru_cache(maxsize=64)
def along_curve(grid: tuple[int, ...]) -> Tensor:
    """Rank of each token, (N,), on a Z-order curve (Morton 1966) through the grid.

    Tokens that follow each other on the curve are neighbours in space, whatever the rank and size
    of the grid: a window of a sequence in this order is a patch of the image (as Wu et al. 2024,
    arXiv:2312.10035, serialise point clouds).
    """
    axes = torch.meshgrid(*[torch.arange(n) for n in grid], indexing="ij")
    code = torch.zeros(grid, dtype=torch.int64)
    for bit in range(max(grid).bit_length()):
        for axis, place in enumerate(axes):
            code |= ((place >> bit) & 1) << (bit * len(grid) + axis)
    return code.flatten().argsort().argsort()


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Give each place of a larger grid the value of the place of `maps` that it lies in.

    Place i of m takes place floor(i * n / m) of n, in whole numbers. `F.interpolate` multiplies
    i by n / m in float32 and misses at some sizes (50 to 198: place 99), other programs at others,
    so what is exported never relies on it.

    Args:
        maps: (B, C, *grid).
    Returns:
        (B, C, *size).
    """
    chosen = [_nearest(n, m) for n, m in zip(maps.shape[2:], size, strict=True)]
    exact = [_rounds_right(n, m) for n, m in zip(maps.shape[2:], size, strict=True)]
    if all(exact) and not torch.compiler.is_compiling():
        return F.interpolate(maps, tuple(size))  # the same values, and faster
    for axis, (places, m) in enumerate(zip(chosen, size, strict=True), start=2):
        if maps.shape[axis] != m:
            maps = maps.index_select(axis, places)
    return maps


@lru_cache(maxsize=256)
def _nearest(n: int, m: int) -> Tensor:
    """(m,) places among n."""
    return torch.arange(m) * n // m


@lru_cache(maxsize=256)
def _rounds_right(n: int, m: int) -> bool:
    """Whether `F.interpolate` takes the places of `_nearest`."""
    taken = F.interpolate(torch.arange(n, dtype=torch.float32)[None, None], m)
    return torch.equal(taken[0, 0].long(), _nearest(n, m))


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, C, *spatial) -> (B, N, C * patch**rank); edges padded with zeros, N as in the stem."""
    rank = images.ndim - 2
    pads = [p for n in reversed(images.shape[2:]) for p in (0, -n % patch)]
    images = F.pad(images, pads)
    for axis in range(2, 2 + 2 * rank, 2):
        images = images.unflatten(axis, (-1, patch))
    grid, inside = range(2, 2 + 2 * rank, 2), range(3, 3 + 2 * rank, 2)
    patches = images.permute(0, *grid, 1, *inside)
    return patches.flatten(rank + 1).flatten(1, rank)


def unpatchify(patches: Tensor, channels: int, spatial: Sequence[int], patch: int) -> Tensor:
    """(B, N, C * patch**rank) -> (B, C, *spatial): the inverse of `patchify`, padding cut off."""
    rank = len(spatial)
    grid = [-(-n // patch) for n in spatial]
    tiles = patches.unflatten(1, grid).unflatten(-1, (channels, *[patch] * rank))
    order = [0, rank + 1, *(a for i in range(rank) for a in (1 + i, rank + 2 + i))]
    images = tiles.permute(order)
    for axis in range(2, 2 + rank):
        images = images.flatten(axis, axis + 1)
    return images[(..., *(slice(n) for n in spatial))]
