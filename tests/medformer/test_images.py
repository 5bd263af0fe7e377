"""Images before they meet the model: standardised, moved, seen in several views."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medformer.images import over_views, shift_and_flip, standardise
from medformer.model import Medformer
from tests.conftest import CHEST, OPACITY


def test_standardised_images_have_mean_zero_and_deviation_one():
    """Each image is standardised by itself; a constant image becomes zero."""
    images = torch.rand(3, 1, 28, 28) * torch.tensor([1, 50, 0.0])[:, None, None, None]
    out = standardise(images)
    assert torch.allclose(out.mean((1, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(out[:2].std((1, 2, 3)), torch.ones(2), atol=2e-2)
    assert torch.equal(out[2], torch.zeros(1, 28, 28))


@given(
    value=st.floats(-(2.0**99), 2.0**99, width=32),
    spatial=st.sampled_from([(16, 16), (17, 31), (29, 28), (16, 17, 19)]),
    channels=st.sampled_from([1, 3]),
)
def test_a_constant_image_becomes_exactly_zero(
    value: float, spatial: tuple[int, ...], channels: int
):
    """The rounding of its mean is not divided by almost zero."""
    images = torch.full((2, channels, *spatial), value)
    assert not standardise(images).any()


@pytest.mark.parametrize("value", [0, 1, 37, 254, 255])
def test_a_constant_image_of_bytes_becomes_exactly_zero(value: int):
    """The extremes of uint8 are among the values."""
    assert not standardise(torch.full((1, 3, 21, 30), value, dtype=torch.uint8)).any()


@pytest.mark.parametrize(
    ("scale", "offset"), [(1, 0), (255, 0), (2000, -1024), (1e-6, 0), (1, 3e3)]
)
def test_standardised_values_are_those_of_float64(scale: float, offset: float):
    """They agree to float32 rounding, also where contrast is small beside the values."""
    images = offset + scale * torch.rand(4, 1, 28, 30, generator=torch.Generator().manual_seed(0))
    exact = images.double()
    centred = exact - exact.mean((1, 2, 3), keepdim=True)
    deviation = centred.square().mean((1, 2, 3), keepdim=True).sqrt()
    wanted = centred / (deviation + 1e-5 * (1 + exact.abs().amax((1, 2, 3), keepdim=True)))
    assert torch.allclose(standardise(images).double(), wanted, rtol=1e-6, atol=1e-7)


def test_shifts_move_and_repeat_edges():
    """Every row of the result is a row of the image; no shift and no mirror changes nothing."""
    images = torch.arange(28 * 28.0).reshape(1, 1, 28, 28)
    assert torch.equal(shift_and_flip(images, torch.Generator(), shift=0), images)
    moved = shift_and_flip(images.repeat(50, 1, 1, 1), torch.Generator(), shift=2, flip=True)
    assert set(moved.unique().tolist()) <= set(images.unique().tolist())
    assert len({tuple(m.flatten().tolist()) for m in moved}) > 10


def test_volumes_move_along_every_axis():
    """A bright voxel in the middle ends up at most `shift` away, and along each axis somewhere."""
    volume = torch.zeros(60, 1, 9, 9, 9)
    volume[:, :, 4, 4, 4] = 1
    moved = shift_and_flip(volume, torch.Generator(), shift=2)
    places = moved.nonzero()
    assert len(places) == 60
    offsets = places[:, 2:] - 4
    assert int(offsets.abs().max()) == 2
    assert all(len(set(offsets[:, axis].tolist())) == 5 for axis in range(3))


def views_of(images: torch.Tensor, **options: bool) -> list[torch.Tensor]:
    """Return the standardised views of an answer, in order."""
    views: list[torch.Tensor] = []

    def logits(view: torch.Tensor) -> torch.Tensor:
        views.append(view)
        return torch.full((len(view), 2), float(len(views)))

    mean = over_views(logits, images, **options)
    assert torch.equal(mean, torch.full((len(images), 2), (1 + len(views)) / 2))
    return views


@pytest.mark.parametrize("rank", [2, 3])
def test_an_answer_has_every_shift_of_training_once_along_every_axis(rank: int):
    """One view is the image itself; with `flip` each has its mirror image beside it."""
    images = torch.zeros(1, 1, *[16] * rank)
    images[0, 0][(8,) * rank] = 1
    places = [int(view.argmax()) for view in views_of(images)]
    for axis in range(rank):
        assert sorted(place // 16**axis % 16 for place in places) == [6, 7, 8, 9, 10]
    alone, both = views_of(images), views_of(images, flip=True)
    assert any(torch.equal(view, standardise(images)) for view in alone)
    assert all(torch.equal(a, b) for a, b in zip(alone, both[::2], strict=True))
    picture = torch.rand(2, 1, *[16] * rank, generator=torch.Generator().manual_seed(0))
    turned = views_of(picture.flip(-1), flip=True)
    as_it_is = views_of(picture, flip=True)
    (middle,) = (i for i, v in enumerate(as_it_is) if torch.equal(v, standardise(picture)))
    assert torch.equal(turned[middle + 1], as_it_is[middle])


def test_a_prediction_is_the_mean_over_views(model: Medformer):
    """An image is answered alone as it is among others."""
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 255
    wanted = torch.stack([model.logits(v, CHEST, OPACITY.name) for v in views_of(images)]).mean(0)
    given = model.answer(images, CHEST, OPACITY.name)
    assert torch.allclose(given, wanted, atol=1e-6)
    assert not torch.allclose(given, model.logits(standardise(images), CHEST, OPACITY.name))
    assert torch.allclose(given[:1], model.answer(images[:1], CHEST, OPACITY.name), atol=1e-5)
