"""Acquisition faults: what each changes, what it leaves, and on what it may depend."""

import pytest
import torch
from torch import Tensor

from medformer.degradations import DEGRADATIONS, blur, degrade, rescan, tint, undersampling

SHAPES = [(5, 1, 28, 28), (4, 3, 33, 21), (3, 1, 17, 20, 19)]


def images_of(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def put(name: str, images: Tensor, strength: float | Tensor, seed: int = 7) -> Tensor:
    strengths = torch.as_tensor(strength).expand(len(images))
    return DEGRADATIONS[name](images, strengths, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", DEGRADATIONS)
def test_full_strength_changes_every_image_and_none_changes_nothing(name: str, shape):
    """Shape stays, pixels stay finite; strength is each image's own."""
    images = images_of(shape)
    strength = torch.ones(len(images))
    strength[0] = 0
    out = put(name, images, strength)
    assert out.shape == images.shape
    assert out.isfinite().all()
    assert torch.allclose(out[0], images[0], atol=1e-5)
    changes = (out - images)[1:].flatten(1).square().mean(1).sqrt()
    assert (changes > 0.05).all(), changes


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_stronger_changes_more(name: str):
    """The mean change over many images grows with the strength."""
    images = images_of((40, 1, 28, 28))
    changes = [float((put(name, images, s) - images).square().mean()) for s in (0.2, 0.5, 1.0)]
    assert changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", DEGRADATIONS)
def test_an_image_is_degraded_by_its_own_pixels_and_draws_alone(name: str, shape):
    """It stays as it was when all other images change: neither they nor draws from them count."""
    images = images_of(shape)
    others = images_of(shape, seed=1) * 9 + 3
    others[0] = images[0]
    assert torch.equal(put(name, images, 0.8)[0], put(name, others, 0.8)[0])


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_draws_differ_between_images_and_generators(name: str):
    """Equal images get a fault of their own each, and another one from another seed."""
    images = images_of((1, 1, 28, 28)).expand(6, -1, -1, -1)
    out = put(name, images, 0.8)
    if name == "blur":  # has nothing to draw
        assert torch.equal(out[0], out[1])
        return
    assert not torch.equal(out[0], out[1:].mean(0))
    assert torch.equal(out, put(name, images, 0.8))
    assert not torch.equal(out, put(name, images, 0.8, seed=8))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_blurred_constant_is_constant(shape):
    """It is so at the edges, too, where the kernel is cut off."""
    constant = torch.full(shape, 3.5)
    assert torch.allclose(put("blur", constant, 1.0), constant)


def test_blur_is_the_gaussian_of_its_width():
    """A point far from the edges becomes a normal density along each axis."""
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1
    strength = torch.tensor([0.8])
    spread = blur(point, strength, torch.Generator())[0, 0]
    places = torch.arange(41.0) - 20
    density = torch.distributions.Normal(0.0, 2.0).log_prob(places).exp()
    assert torch.allclose(spread, density[:, None] * density, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_missing_lines_leave_the_mean_and_only_take_away(shape):
    """The centre of k-space is kept: mean of each channel. Energy can only fall (Parseval)."""
    images = images_of(shape) + 2
    out = undersampling(images, torch.ones(len(images)), torch.Generator().manual_seed(3))
    assert torch.allclose(out.flatten(2).mean(2), images.flatten(2).mean(2), atol=1e-5)
    assert (out.flatten(1).norm(dim=1) <= images.flatten(1).norm(dim=1) * (1 + 1e-5)).all()


def test_every_image_gets_the_fault_of_its_kind():
    """Kind 0 is none; the others follow the order of DEGRADATIONS."""
    count = 2 * (1 + len(DEGRADATIONS))
    images, strength = images_of((count, 1, 16, 16)), torch.ones(count)
    kinds = torch.arange(count) % (1 + len(DEGRADATIONS))
    out = degrade(images, kinds, strength, torch.Generator().manual_seed(2))
    assert torch.equal(out[kinds == 0], images[kinds == 0])
    generator = torch.Generator().manual_seed(2)
    for kind, function in enumerate(DEGRADATIONS.values(), start=1):
        rows = kinds == kind
        assert torch.equal(out[rows], function(images[rows], strength[rows], generator))


def test_a_constant_image_stays_finite():
    """It has no range and no contrast to divide by."""
    for name in DEGRADATIONS:
        assert put(name, torch.zeros(2, 1, 16, 16), 1.0).isfinite().all(), name


def test_tint_gives_every_channel_a_gain_of_its_own_and_keeps_the_darkest_value():
    """Ratios of the distances from the darkest value are the same all over a channel."""
    images = images_of((4, 3, 28, 28))
    out = tint(images, torch.tensor([0.0, 0.5, 1.0, 1.0]), torch.Generator().manual_seed(1))
    floor = images.flatten(1).amin(1).view(-1, 1, 1, 1)
    gains = ((out - floor) / (images - floor).clamp(min=1e-9)).flatten(2).median(2).values
    assert torch.allclose(out, floor + gains[:, :, None, None] * (images - floor), atol=1e-4)
    assert torch.allclose(gains[0], torch.ones(3))
    assert gains[1:].std(1).min() > 0.05


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_image_is_rescanned_by_its_own_pixels_and_draws_alone(shape):
    """The first image stays as it was when all others change; most images change, some do not."""
    images, others = images_of(shape), images_of(shape, seed=1) * 9 + 3
    others[0] = images[0]
    one, other = (rescan(x, torch.Generator().manual_seed(7)) for x in (images, others))
    assert torch.equal(one[0], other[0])
    many = images_of((1, *shape[1:])).expand(200, *shape[1:])
    changed = (rescan(many, torch.Generator().manual_seed(1)) - many).flatten(1).abs().amax(1)
    assert 0.9 <= float((changed > 1e-3).float().mean()) < 1
