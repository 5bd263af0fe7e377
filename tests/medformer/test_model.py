"""The model and its objectives: any size, per example, shared and local apart."""

import pytest
import torch

from medformer.config import PRESETS, ModelConfig
from medformer.errors import ConfigError, ShapeError
from medformer.images import shift_and_flip, standardise
from medformer.model import Medformer
from medformer.objectives import OBJECTIVES, Batch, mix_losses, trained_parameters
from medformer.sharing import is_local, shared_names, shared_shapes
from tests.conftest import CELLS, CHEST, CONFIG, OPACITY, TISSUE


def batch_of(size: tuple[int, int], count: int = 4) -> Batch:
    images = torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(0))
    return Batch(standardise(images), {OPACITY.name: torch.arange(count) % 2}, CHEST)


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (28, 40), (64, 64), (33, 70)])
@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_one_set_of_weights_takes_any_size(objective: str, size: tuple[int, int], model: Medformer):
    """One finite loss per example."""
    losses = mix_losses(model, batch_of(size), {objective: 1.0}, torch.Generator())
    assert losses.shape == (4,)
    assert losses.isfinite().all()


def test_the_demo_images_have_sixteen_tokens(model: Medformer):
    """28 x 28 and stride 8."""
    assert model.tokens(batch_of((28, 28)).images, CHEST).shape == (4, 16, PRESETS["tiny"].width)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_a_record_does_not_see_the_other_records_of_its_batch(objective: str, model: Medformer):
    """Loss and gradient of record 0 stay when all other records change."""
    batch = batch_of((28, 28))
    images = batch.images.clone()
    images[1:] = torch.randn(images[1:].shape, generator=torch.Generator().manual_seed(9))
    labels = 1 - batch.labels[OPACITY.name]
    labels[0] = batch.labels[OPACITY.name][0]
    other = Batch(images, {OPACITY.name: labels}, CHEST)

    def first(batch: Batch) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        model.zero_grad()
        loss = mix_losses(model, batch, {objective: 1.0}, generator)[0]
        loss.backward()
        names = trained_parameters(model, CHEST, [OPACITY.name], {objective: 1.0})
        named = dict(model.named_parameters())
        grads = [named[n].grad for n in names]
        assert all(g is not None for g in grads)
        return [loss.detach(), *(g.clone() for g in grads if g is not None)]

    for one, changed in zip(first(batch), first(other), strict=True):
        assert torch.allclose(one, changed, atol=1e-6)


def test_hidden_patches_do_not_leak_into_the_encoder(model: Medformer):
    """Inpainting: the visible tokens are the same whatever the hidden pixels hold."""
    seen = []
    real = model.tokens

    def spy(images, domain, **more):
        seen.append(images.clone())
        return real(images, domain, **more)

    model.tokens = spy  # type: ignore[method-assign]
    batch = batch_of((28, 28), 1)
    mix_losses(model, batch, {"inpainting": 1.0}, torch.Generator().manual_seed(1))
    hidden = seen[0] == 0
    assert 0.4 < float(hidden.float().mean()) < 0.75


def test_the_reversed_gradient_confuses_the_domains(model: Medformer):
    """The discriminator descends, the encoder ascends the same loss."""
    batch = batch_of((28, 28))

    def grads(weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        mix_losses(model, batch, {"domain_adversarial": weight}, torch.Generator()).sum().backward()
        encoder = model.encoder.norm.weight.grad
        judge = model.discriminator[0].weight.grad  # type: ignore[union-attr]
        assert encoder is not None
        return encoder.clone(), judge.clone()  # type: ignore[operator]

    one, two = grads(0.5), grads(1.0)
    assert torch.allclose(2 * one[0], two[0], atol=1e-6)
    assert torch.allclose(one[1], two[1], atol=1e-6)


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
