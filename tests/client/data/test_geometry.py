"""Slices of which each says where it lies: one grid, or a sentence that says what is wrong."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from client.data.errors import Unusable
from client.data.geometry.orientation import Grid
from client.data.geometry.shifts import in_place, straightened
from client.data.geometry.stacking import Place, Stack, laid, stacked

SIDES = (20, 24)
HEAD = np.array([0.0, 0.0, 1.0])
UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def at(z: float, x: float = 0.0, y: float = 0.0, **other: Any) -> Place:
    """Return an axial slice of 20 x 24 pixels of 0.5 x 0.75 mm at a position."""
    return Place(**{"position": (x, y, z), "orientation": UPRIGHT, "spacing": (0.5, 0.75), **other})


def stack(places: Sequence[Place]) -> Stack:
    return stacked(list(places), SIDES)


@pytest.mark.parametrize("apart", [0.5, 0.625, 0.7, 1.25, 2.0833, 3.27, 5.0])
@pytest.mark.parametrize("decimals", [1, 2, 6])
@pytest.mark.parametrize("first", [0.0, -137.3149])
def test_rounded_positions_make_the_grid_that_they_were_rounded_from(apart, decimals, first):
    """Within the rounding; all slices are used, in order."""
    found = stack([at(round(first + apart * i, decimals)) for i in range(24)][::-1])

    assert found.order == list(range(24))[::-1]
    assert found.shifts is None
    assert found.spacing is not None
    assert found.spacing[0] == pytest.approx(apart, abs=10.0**-decimals / 12)


def test_positions_in_whole_millimetres_are_read_where_a_missing_slice_would_show():
    """3.27 mm apart, written as 0, 3, 7, 10, 13."""
    found = stack([at(round(3.27 * i)) for i in range(12)])
    assert found.spacing is not None
    assert found.spacing[0] == pytest.approx(3.27, abs=0.05)
    with pytest.raises(Unusable, match=r"slices are missing: 1 between the 11 that there are"):
        stack([at(round(3.27 * i)) for i in range(12) if i != 6])


@pytest.mark.parametrize("apart", [0.625, 1.0, 3.0])
@pytest.mark.parametrize("count", [4, 5, 12, 40])
def test_a_missing_slice_is_missed_wherever_it_was(apart: float, count: int):
    """A missing slice is found in positions that are exact or rounded to a tenth."""
    for gone in range(1, count - 1):
        for decimals in (1, 4):
            places = [at(round(apart * i, decimals)) for i in range(count) if i != gone]
            with pytest.raises(Unusable, match=r"slices are missing|lie unevenly"):
                stack(places)


def test_jitter_below_a_twentieth_of_the_distance_is_fine():
    """Positions of a table that moves to the tenth of a millimetre are accepted."""
    rng = np.random.default_rng(0)
    jitter = rng.uniform(-0.14, 0.14, (30, 3))
    places = [at(3 * i + z, x, y) for i, (x, y, z) in enumerate(jitter.tolist())]
    found = stack(places)
    assert found.shifts is None
    assert found.order == list(range(30))


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        ([at(0), at(1), at(1), at(2)], r"several slices lie at one place \(1 of 4"),
        ([at(0), at(0), at(3), at(3), at(6), at(6)], r"lie at one place \(3 of 6"),
        ([at(z) for z in (0, 5, 10, 15, 25, 35)], "missing: 2 between the 6"),
        ([at(z) for z in (0, 1, 2, 3, 4.6, 6.2)], "lie unevenly: neighbours are 1 to 1.6 mm apart"),
        ([at(z) for z in (0, 0.6, 3, 3.6, 6, 6.6, 9)], "unevenly: neighbours are 0.6 to 2.4 mm"),
        ([at(0), Place(), at(2)], "does not state where its slices lie"),
        ([at(i, spacing=(0.5, 0.75 + 0.01 * i)) for i in range(3)], "differ in .* pixel spacing"),
        ([at(0), at(1, spacing=None), at(2)], "1 of unknown size"),
        ([at(i, orientation=(1.0, 0, 0, 1, 0, 0)) for i in range(3)], "orientation is impossible"),
        ([at(i, orientation=(0.0,) * 6) for i in range(3)], "orientation is impossible"),
        ([at(float("nan")), at(1), at(2)], "not finite"),
        ([*(at(i) for i in range(5)), at(5, orientation=(0.0, 1, 0, 0, 0, -1))],
         r"not parallel: 1 of 6 are turned by up to 90\.0 degrees"),
        ([*(at(i) for i in range(5)), at(5, orientation=(-1.0, 0, 0, 0, -1, 0))],
         r"not parallel: 1 of 6 are turned by up to 180\.0 degrees"),
    ],
)  # fmt: skip
def test_what_makes_no_volume_is_said(places: list[Place], reason: str):
    """In the words of what is wrong; slices that are turned within their plane too."""
    with pytest.raises(Unusable, match=reason):
        stack(places)


def test_pixel_spacing_is_a_number():
    """A millionth, or the last decimal of a text, is no other spacing."""
    found = stack([at(3 * i, spacing=(0.488281, 0.7) if i % 2 else (0.48828125, 0.700001))
                   for i in range(9)])  # fmt: skip
    assert found.spacing is not None
    assert found.spacing == pytest.approx((3, 0.48828, 0.7), rel=1e-5)


def test_directions_that_differ_by_their_rounding_are_parallel():
    """.70711 here and .7071 or .707 there; and slices that a scanner turned by a tenth of a
    milliradian."""
    c = np.sqrt(0.5)
    places = []
    for i in range(12):
        turn = 1e-4 * (i % 2)
        way = (1.0, turn, 0.0, -turn * c, round(c, 3 + i % 3), round(c, 3 + i % 3))
        places.append(at(0, orientation=way, position=(0, -2.5 * i * c, 2.5 * i * c)))
    found = stack(places)
    assert found.spacing is not None
    assert found.spacing[0] == pytest.approx(2.5, rel=1e-3)


def sphere(places: np.ndarray) -> np.ndarray:
    """Smooth, off centre in every direction."""
    return np.exp(-((places - [16.0, 9.0, 11.0]) ** 2 / [60.0, 30.0, 60.0]).sum(-1))


def sheared(angle: float, count: int = 12, gap: float = 2.0) -> tuple[list[Place], np.ndarray]:
    """A head taken with a tilted gantry: planes are tilted, the table moves along z."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    way = (1.0, 0.0, 0.0, 0.0, c, s)
    places = [at(0, position=(0.0, 0.0, gap * k), orientation=way) for k in range(count)]
    rows, columns = np.meshgrid(0.5 * np.arange(40), 0.75 * np.arange(48), indexing="ij")
    planes = np.stack([columns, c * rows, s * rows], -1)
    values = np.stack([sphere(planes + gap * k * HEAD) for k in range(count)])
    return places, values


@pytest.mark.parametrize("angle", [-20.0, 5.0, 15.0, 30.0])
@pytest.mark.parametrize("scale", [1, 255])
def test_a_tilted_stack_is_put_right(angle: float, scale: int):
    """Against the object itself, sampled on the grid that the volume says it has."""
    places, values = sheared(angle)
    kind = np.float32 if scale == 1 else np.uint8
    found = stacked(places, (40, 48))
    assert found.grid is not None
    assert f"(a tilt of {abs(angle):.0f} degrees)" in found.notes[0]
    volume, spacing = laid((scale * values).astype(kind), found, canonical=False)

    index = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), -1)
    wanted = sphere(found.grid.place(index)) * scale
    covered = laid(np.ones(values.shape, np.float32), found, canonical=False)[0] > 0.999
    assert volume.dtype == kind
    assert np.abs(volume[covered].astype(float) - wanted[covered]).max() < 0.02 * scale + (
        scale > 1
    )
    assert volume.sum() == pytest.approx(float((scale * values).astype(kind).sum()), rel=1e-2)
    gram = found.grid.directions @ found.grid.directions.T
    assert gram == pytest.approx(np.eye(3), abs=1e-9)
    assert spacing == pytest.approx((2 * np.cos(np.radians(angle)), 0.5, 0.75))


def test_slices_that_were_shifted_one_by_one_are_put_right():
    """A staircase: half of the series a centimetre aside; random places within the plane."""
    rng = np.random.default_rng(0)
    for aside in (np.repeat([[0.0, 0.0], [6.0, -3.0]], 10, 0), rng.uniform(-3, 3, (20, 2))):
        rows, columns = np.meshgrid(0.5 * np.arange(40), 0.75 * np.arange(48), indexing="ij")
        places = [at(2.0 * k, x, y) for k, (x, y) in enumerate(aside.tolist())]
        values = np.stack([sphere(np.stack([columns + x, rows + y, 0 * rows + 2.0 * k], -1))
                           for k, (x, y) in enumerate(aside.tolist())])  # fmt: skip
        found = stacked(places, (40, 48))
        volume, _ = laid(values.astype(np.float32), found, canonical=False)
        assert found.grid is not None
        index = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), -1)
        covered = laid(np.ones(values.shape, np.float32), found, canonical=False)[0] > 0.999
        assert np.abs(volume - sphere(found.grid.place(index)))[covered].max() < 0.02
        assert "(no regular tilt)" in found.notes[0]


def test_a_tilt_that_is_too_large_is_refused_with_its_angle():
    """The volume would have more than twice the pixels."""
    places, _ = sheared(50, count=60)
    with pytest.raises(Unusable, match=r"a tilt of 50\.0 degrees\), which is too much"):
        stacked(places, (40, 48))


@pytest.mark.parametrize("decimals", [2, 3, 8])
@pytest.mark.parametrize("seed", range(5))
def test_rounded_directions_are_no_tilt(decimals: int, seed: int):
    """An oblique stack of 200 mm is accepted although rounding moves its normal in the last
    decimal."""
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    normal = np.cross(turn[0], turn[1])
    way = tuple(np.round(turn[:2].ravel(), decimals).tolist())
    found = stack([at(0, position=tuple((4.0 * k * normal).tolist()), orientation=way)
                   for k in range(50)])  # fmt: skip
    assert found.shifts is None


def test_axes_that_are_written_as_whole_numbers_hide_no_tilt():
    """They are exact: a drift of .02 mm a slice within the plane is one."""
    found = stack([at(3.0 * k, y=0.02 * k) for k in range(40)])
    assert found.shifts is not None
    assert "a tilt of 0.38 degrees" in found.notes[0]


def test_a_shift_moves_whole_pixels_exactly_and_a_mask_to_the_nearest():
    """Sums are kept; nothing is lost at an edge."""
    rng = np.random.default_rng(0)
    values = rng.random((3, 5, 4)).astype(np.float32)
    moved = in_place(values, np.array([[0, 0], [2, 1], [1, 3]]))
    assert moved.shape == (3, 7, 7)
    for one, whole, (down, right) in zip(values, moved, [(0, 0), (2, 1), (1, 3)], strict=True):
        assert np.array_equal(whole[down : down + 5, right : right + 4], one)
        assert whole.sum() == pytest.approx(one.sum(), rel=1e-6)
    half = in_place(values, np.array([[0, 0], [0.5, 0], [0.25, 0.75]]))
    assert half.sum(axis=(1, 2)) == pytest.approx(values.sum(axis=(1, 2)), rel=1e-5)
    classes = in_place(
        (values > 0.5).astype(np.float32), np.array([[0, 0], [1.4, 0], [0, 0.6]]), False
    )
    assert set(np.unique(classes)) == {0.0, 1.0}


@pytest.mark.parametrize("angle", [10.0, -25.0])
def test_a_sheared_affine_is_put_right_too(angle: float):
    """A converter wrote the tilted stack as it is stored."""
    places, values = sheared(angle)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    steps = np.array([[0, 0, 2.0], [0, 0.5 * c, 0.5 * s], [0.75, 0, 0]])
    grid, shifts, notes = straightened(Grid(np.zeros(3), steps), values.shape)
    found = stacked(places, (40, 48))
    assert found.grid is not None
    assert shifts == pytest.approx(found.shifts)
    assert grid.origin == pytest.approx(found.grid.origin)
    assert grid.steps == pytest.approx(found.grid.steps)
    assert notes == found.notes


def test_an_upright_affine_stays_as_it_is():
    """And one whose rows and columns are no rectangle is refused."""
    grid = Grid(np.zeros(3), np.diag([3.0, 1.0, 1.0]))
    assert straightened(grid, (20, 30, 30)) == (grid, None, ())
    skewed = Grid(np.zeros(3), np.array([[3.0, 0, 0], [0, 1, 0.2], [0, 0, 1]]))
    with pytest.raises(Unusable, match=r"rows and columns meet at 78\.7 degrees"):
        straightened(skewed, (20, 30, 30))
