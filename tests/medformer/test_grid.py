"""Positions, curve and patches of grids of any rank and size."""

import pytest
import torch
import torch.nn.functional as F

from medformer.grid import along_curve, enlarge, patchify, positions, unpatchify


@pytest.mark.parametrize("grid", [(4, 4), (7, 3), (5,), (2, 3, 9), (8, 8, 8)])
def test_the_curve_visits_every_token_once(grid: tuple[int, ...]):
    """Ranks are a permutation."""
    assert along_curve(grid).sort().values.tolist() == list(range(along_curve(grid).numel()))


@pytest.mark.parametrize("grid", [(16, 16), (8, 8, 8)])
def test_a_window_of_the_curve_is_a_patch_of_the_image(grid: tuple[int, ...]):
    """64 consecutive tokens of a power-of-two grid fill a square of 8 x 8, a cube of 4 x 4 x 4."""
    places = torch.stack(torch.meshgrid(*[torch.arange(n) for n in grid], indexing="ij"), -1)
    ordered = places.flatten(0, -2)[along_curve(grid).argsort()]
    for window in ordered.split(64):
        sides = window.amax(0) - window.amin(0) + 1
        assert sides.tolist() == [round(64 ** (1 / len(grid)))] * len(grid)


def test_positions_know_the_spacing():
    """Only ratios matter; the finest axis counts 1 a token, a coarser one more."""
    plain = positions((4, 6), 64)
    assert torch.equal(positions((4, 6), 64, torch.tensor([[0.7, 0.7]]))[0], plain)
    thick = positions((4, 6), 64, torch.tensor([[1.4, 0.7]]))[0]
    assert not torch.allclose(thick, plain)
    assert torch.allclose(thick.view(4, 6, 64)[3], _row(2 * 1.5, 6))


def _row(height: float, width: int) -> torch.Tensor:
    """Return the positions of a row of tokens at `x` from the centre, by the formula."""
    x = torch.arange(width) - (width - 1) / 2
    frequencies = 100.0 ** (-torch.arange(16) / 16)
    angles = torch.cat(
        [(torch.full((width, 1), height)) * frequencies, x[:, None] * frequencies], 1
    )
    return torch.cat([angles.sin(), angles.cos()], 1)


@pytest.mark.parametrize(
    ("shape", "patch"), [((2, 1, 28, 28), 8), ((2, 3, 33, 70), 4), ((1, 2, 17, 20, 16), 8)]
)
def test_patches_cover_the_image_once_and_can_be_put_back(shape: tuple[int, ...], patch: int):
    """Every pixel lies in exactly one patch, apart from the padding."""
    images = torch.rand(shape) + 1
    patches = patchify(images, patch)
    assert torch.isclose(patches.sum(), images.sum())
    assert torch.equal(unpatchify(patches, shape[1], shape[2:], patch), images)


def test_patches_are_in_the_order_of_the_stem():
    """The first patch is the first corner."""
    images = torch.arange(2 * 28 * 28.0).reshape(2, 1, 28, 28) + 1
    patches = patchify(images, 8)
    assert patches.shape == (2, 16, 64)
    assert torch.equal(patches[0, 0].reshape(8, 8), images[0, 0, :8, :8])


MISSED = [(50, 198), (58, 230), (75, 297), (87, 345), (92, 366), (96, 382), (106, 422), (116, 462)]
"""The grids of stride 4 that float32 misses, up to 512 pixels."""


@pytest.mark.parametrize(("grid", "size"), [*MISSED, (50, 99), (4, 7), (100, 100), (33, 132)])
def test_enlarging_takes_neighbours_in_whole_numbers(grid: int, size: int):
    """Place i of m takes place floor(i n / m) of n, by Python's integers; along either axis."""
    wanted = [i * grid // size for i in range(size)]
    row = torch.arange(grid, dtype=torch.float32)
    maps = row[:, None] + 1000 * torch.arange(5.0)
    found = enlarge(maps[None, None], (size, 5))[0, 0]
    assert torch.equal(found, maps[wanted])
    assert torch.equal(enlarge(maps.T[None, None], (5, size))[0, 0], maps.T[:, wanted])


def test_a_volume_is_enlarged_along_every_axis():
    """It is enlarged as torch does it where torch is right."""
    maps = torch.rand(2, 3, 4, 5, 6)
    assert torch.equal(enlarge(maps, (8, 9, 23)), F.interpolate(maps, (8, 9, 23)))
    column = enlarge(maps.repeat(1, 1, 1, 10, 1), (8, 198, 23))
    places = [i * 50 // 198 % 5 for i in range(198)]
    assert torch.equal(column, enlarge(maps, (8, 5, 23))[:, :, :, places])


def test_only_eight_sides_differ_from_what_float32_takes():
    """At all other pairs of grids that a stem makes, models answer and learn as with
    `F.interpolate`."""
    missed = []
    for size in range(16, 513):
        for grid in {-(-size // 2), -(-size // 4)}:
            row = torch.arange(grid, dtype=torch.float32)[None, None]
            if not torch.equal(enlarge(row, (size,)), F.interpolate(row, size)):
                missed.append((grid, size))
    assert sorted(missed) == sorted(MISSED)
