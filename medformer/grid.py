"""Geometry of tokens: positions, neighbourhoods and patches of grids of any rank and size.

Letters as in layers.py: B images, C channels, N tokens, D width; `*spatial` and `*grid` are (H, W)
or (D, H, W).
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def positions(grid: Sequence[int], width: int, spacing: Tensor | None = None) -> Tensor:
    """Return sine-cosine positions of a grid, whose origin is its centre.

    Args:
        grid: Tokens along each axis.
        width: D; the rest that does not divide among the axes stays 0.
        spacing: (B, rank), distance between pixels along each axis; the finest axis of an image
            counts as 1, so that only the ratios matter.
    Returns:
        (N, D), or (B, N, D) with a spacing.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5, here for several axes.
    """
    # Centred, so that images of other sizes share positions near the middle.
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in grid]
    coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    if spacing is not None:
        coordinates = coordinates * (spacing / spacing.amin(1, keepdim=True))[:, None]
    bands = width // (2 * len(grid))
    frequencies = 100.0 ** (-torch.arange(bands) / bands)
    angles = (coordinates[..., None] * frequencies).flatten(-2)
    waves = torch.cat([angles.sin(), angles.cos()], -1)
    # Each axis gets an equal share of D; the rest stays 0.
    return F.pad(waves, (0, width - 2 * angles.shape[-1]))


@lru_cache(maxsize=64)
def along_curve(grid: tuple[int, ...]) -> Tensor:
    """Return the rank of each token on a Z-order curve (Morton 1966) through the grid, (N,).

    Tokens that follow each other on the curve are neighbours in space, whatever the rank and size
    of the grid: a window of a sequence in this order is a patch of the image.

    Args:
        grid: Tokens along each axis.

    Source: Wu et al. 2024, arXiv:2312.10035 (point clouds in this order).
    """
    # The code of a token interleaves the bits of its coordinates.
    axes = torch.meshgrid(*[torch.arange(n) for n in grid], indexing="ij")
    code = torch.zeros(grid, dtype=torch.int64)
    for bit in range(max(grid).bit_length()):
        for axis, place in enumerate(axes):
            code |= ((place >> bit) & 1) << (bit * len(grid) + axis)
    return code.flatten().argsort().argsort()


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Enlarge maps by repetition: each place gets the value of the smaller map's place around it.

    Place i of m takes place floor(i * n / m) of n, in whole numbers. `F.interpolate` multiplies
    i by n / m in float32 and misses at some sizes (50 to 198: place 99), other programs at others,
    so an exported model never relies on it.

    Args:
        maps: (B, C, *grid).
        size: Places along each axis afterwards.
    Returns:
        (B, C, *size).
    """
    chosen = [_nearest(n, m) for n, m in zip(maps.shape[2:], size, strict=True)]
    exact = [_rounds_right(n, m) for n, m in zip(maps.shape[2:], size, strict=True)]
    if all(exact) and not torch.compiler.is_compiling():
        return F.interpolate(maps, tuple(size))  # the same values, and faster
    for axis, (places, m) in enumerate(zip(chosen, size, strict=True), start=2):
        # Index tables instead of interpolation: exported programs repeat them exactly.
        if maps.shape[axis] != m:
            maps = maps.index_select(axis, places)
    return maps


@lru_cache(maxsize=256)
def _nearest(n: int, m: int) -> Tensor:
    """Return which of n places each of m places lies in, (m,)."""
    return torch.arange(m) * n // m


@lru_cache(maxsize=256)
def _rounds_right(n: int, m: int) -> bool:
    """Return whether `F.interpolate` takes the same places as `_nearest`."""
    taken = F.interpolate(torch.arange(n, dtype=torch.float32)[None, None], m)
    return torch.equal(taken[0, 0].long(), _nearest(n, m))


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images into patches, (B, C, *spatial) -> (B, N, C * patch**rank).

    Args:
        images: (B, C, *spatial); padded with zeros where a side is not divisible.
        patch: Side of a patch, pixels.
    """
    rank = images.ndim - 2
    # F.pad counts axes from the last, and pads only behind each.
    pads = [p for n in reversed(images.shape[2:]) for p in (0, -n % patch)]
    images = F.pad(images, pads)
    for axis in range(2, 2 + 2 * rank, 2):
        images = images.unflatten(axis, (-1, patch))
    grid, inside = range(2, 2 + 2 * rank, 2), range(3, 3 + 2 * rank, 2)
    patches = images.permute(0, *grid, 1, *inside)
    return patches.flatten(rank + 1).flatten(1, rank)


def unpatchify(patches: Tensor, channels: int, spatial: Sequence[int], patch: int) -> Tensor:
    """Join patches to images, (B, N, C * patch**rank) -> (B, C, *spatial): undo `patchify`.

    Args:
        patches: (B, N, C * patch**rank).
        channels: C.
        spatial: Pixels along each axis; the padding is cut off.
        patch: Side of a patch, pixels.
    """
    rank = len(spatial)
    grid = [-(-n // patch) for n in spatial]
    tiles = patches.unflatten(1, grid).unflatten(-1, (channels, *[patch] * rank))
    # (B, *grid, C, *inside) -> (B, C, grid 1, inside 1, grid 2, inside 2, ...)
    order = [0, rank + 1, *(a for i in range(rank) for a in (1 + i, rank + 2 + i))]
    images = tiles.permute(order)
    for axis in range(2, 2 + rank):
        images = images.flatten(axis, axis + 1)
    return images[(..., *(slice(n) for n in spatial))]
