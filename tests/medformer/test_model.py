"""The model: any size, shared and local apart, clear errors; images before they meet it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medformer.config import PRESETS, ModelConfig
from medformer.errors import ConfigError, ShapeError
from medformer.images import over_views, shift_and_flip, standardise
from medformer.model import Medformer
from medformer.objectives import Batch, trained_parameters
from medformer.sharing import is_local, shared_names, shared_shapes
from tests.conftest import CELLS, CHEST, CONFIG, OPACITY, TISSUE


def batch_of(size: tuple[int, int], count: int = 4) -> Batch:
    images = torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(0))
    return Batch(standardise(images), {OPACITY.name: torch.arange(count) % 2}, CHEST)


def test_the_demo_images_have_sixteen_tokens(model: Medformer):
    """28 x 28 and stride 8."""
    assert model.tokens(batch_of((28, 28)).images, CHEST).shape == (4, 16, PRESETS["tiny"].width)


def test_local_tensors_are_those_of_tasks_and_site():
    """The server's model has none of them, and a site's has them on top."""
    shared = Medformer(CONFIG)
    whole = Medformer(CONFIG, [OPACITY, TISSUE], site=True)
    names = [n for n, _ in whole.named_parameters()]
    assert shared_names(names) == list(shared_shapes(shared))
    local = [n for n in names if is_local(n)]
    for word in ("input.site", "input.task", "output.queries", "output.heads"):
        assert any(n.startswith(word) for n in local)
    assert not any("encoder" in n or "stems" in n or "discriminator" in n for n in local)


def test_a_site_trains_only_its_own_stem_and_modality(model: Medformer):
    """So that the average of a tensor is over those who know it."""
    names = trained_parameters(model, CHEST, [OPACITY.name], {"supervised": 1})
    assert any("stems.2d-1" in n for n in names)
    assert not any("stems.2d-3" in n or "modality.histology" in n for n in names)


def test_clear_errors(model: Medformer):
    """Expected and given are named."""
    with pytest.raises(ShapeError, match=r"declares 1-channel 2D images.*got \(2, 3, 28, 28\)"):
        model.tokens(torch.zeros(2, 3, 28, 28), CHEST)
    with pytest.raises(ConfigError, match="no task 'other'"):
        model.logits(torch.zeros(1, 1, 28, 28), CHEST, "other")
    with pytest.raises(ConfigError, match="objectives must be some of"):
        trained_parameters(model, CHEST, ["chest"], {"jigsaw": 1})
    with pytest.raises(ShapeError, match="unsqueeze"):
        standardise(torch.zeros(1, 28, 28))
    with pytest.raises(ValueError, match="Did you mean 'tiny'"):
        ModelConfig.for_domains([CHEST, CELLS], preset="tinny")


def test_standardised_images_have_mean_zero_and_deviation_one():
    """Each on its own; a constant image becomes zero."""
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
    """Not the rounding of its mean, divided by almost nothing."""
    images = torch.full((2, channels, *spatial), value)
    assert not standardise(images).any()


@pytest.mark.parametrize("value", [0, 1, 37, 254, 255])
def test_a_constant_image_of_bytes_becomes_exactly_zero(value: int):
    """Extremes of uint8 among them."""
    assert not standardise(torch.full((1, 3, 21, 30), value, dtype=torch.uint8)).any()


@pytest.mark.parametrize(
    ("scale", "offset"), [(1, 0), (255, 0), (2000, -1024), (1e-6, 0), (1, 3e3)]
)
def test_standardised_values_are_those_of_float64(scale: float, offset: float):
    """To float32 rounding, also where the contrast is small beside the values."""
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


def seen(images: torch.Tensor, **options: bool) -> list[torch.Tensor]:
    """The standardised views of an answer, in order."""
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
    places = [int(view.argmax()) for view in seen(images)]
    for axis in range(rank):
        assert sorted(place // 16**axis % 16 for place in places) == [6, 7, 8, 9, 10]
    alone, both = seen(images), seen(images, flip=True)
    assert any(torch.equal(view, standardise(images)) for view in alone)
    assert all(torch.equal(a, b) for a, b in zip(alone, both[::2], strict=True))
    picture = torch.rand(2, 1, *[16] * rank, generator=torch.Generator().manual_seed(0))
    turned = seen(picture.flip(-1), flip=True)
    as_it_is = seen(picture, flip=True)
    (middle,) = (i for i, v in enumerate(as_it_is) if torch.equal(v, standardise(picture)))
    assert torch.equal(turned[middle + 1], as_it_is[middle])


def test_a_prediction_is_the_mean_over_views(model: Medformer):
    """An image alone is answered as among others."""
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 255
    wanted = torch.stack([model.logits(v, CHEST, OPACITY.name) for v in seen(images)]).mean(0)
    given = model.answer(images, CHEST, OPACITY.name)
    assert torch.allclose(given, wanted, atol=1e-6)
    assert not torch.allclose(given, model.logits(standardise(images), CHEST, OPACITY.name))
    assert torch.allclose(given[:1], model.answer(images[:1], CHEST, OPACITY.name), atol=1e-5)
