"""The objective `moments` learns mean and covariance of the features, and whitens them anew."""

import numpy as np
import pytest
import torch

from client.training import as_torch
from medformer.config import ModelConfig, Task
from medformer.library.models import seeded
from medformer.model import Medformer
from medformer.objectives import Batch, mix_losses, trained_parameters
from medformer.postprocessing.whitening import adapted
from tests.conftest import CHEST

TASK = Task(name="chest", kind="binary-class", classes=2)
PARTS = ["weight", "bias"]


@pytest.fixture
def model() -> Medformer:
    """Return a model whose whitening is no identity; features have the length that the public
    whitening gives them."""
    model = seeded(ModelConfig.for_domains([CHEST]), [TASK], site=True, seed=0)
    generator = torch.Generator().manual_seed(1)
    for whitening in model.output.whitening:
        noise = 0.05 * torch.randn(whitening.matrix.shape, generator=generator)
        whitening.matrix.data += noise + noise.T
        whitening.mean.data += 0.1
    for whitening, features in zip(model.output.whitening, whitened(model, batch()), strict=True):
        whitening.matrix.data *= 2 / features.norm(dim=1).mean()
    return model


def batch(count: int = 40, seed: int = 0) -> Batch:
    """Return images whose features vary in a few directions."""
    images = torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed))
    return Batch(images.cumsum(3) / 5, {}, CHEST)


def whitened(model: Medformer, images: Batch) -> list[torch.Tensor]:
    """Return the whitened features of images, part by part."""
    with torch.no_grad():
        depths = model.depths(images.images, images.domain)
        features = model.output.features(depths, depths[-1].mean(1))
        return model.output.whitened(features)


def learned(model: Medformer, steps: int = 1, rate: float = 1.0) -> dict[str, np.ndarray]:
    """Take steps of SGD on all images, and return the tensors."""
    names = trained_parameters(model, CHEST, ["chest"], {"moments": 1.0})
    parameters = [dict(model.named_parameters())[name] for name in names]
    optimizer = torch.optim.SGD(parameters, rate, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        mix_losses(model, batch(), {"moments": 1.0}, torch.Generator()).mean().backward()
        optimizer.step()
    return {k: v.detach().numpy().copy() for k, v in model.named_parameters()}


def test_a_step_adds_mean_and_second_moment_of_unit_features(model: Medformer):
    """The gradient is the moments themselves, so that clipping bounds what an image adds."""
    after = learned(model)
    for part, features in enumerate(whitened(model, batch())):
        unit = features / features.norm(dim=1, keepdim=True)
        second, first = (torch.from_numpy(after[f"pretext.moments.{part}.{p}"]) for p in PARTS)
        torch.testing.assert_close(first, unit.mean(0), atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(second, unit.T @ unit / len(unit), atol=1e-6, rtol=1e-4)


def test_moments_train_nothing_else(model: Medformer):
    """Every tensor of the encoder stays as it is, bit for bit."""
    before = {k: v.detach().clone() for k, v in model.named_parameters()}
    after = learned(model, steps=2)
    changed = {k for k in before if not np.array_equal(before[k].numpy(), after[k])}
    assert changed == {k for k in before if k.startswith("pretext.moments.")}


def test_whitened_anew_features_vary_more_evenly(model: Medformer):
    """The largest variance of a direction falls against the mean one, in every part."""
    ratio = []
    for anew in (False, True):
        tensors = learned(model)
        if anew:
            model.load_state_dict(as_torch(adapted(tensors)))
        values = [torch.linalg.eigvalsh(f.T.cov()) for f in whitened(model, batch())]
        ratio.append([float(v[-1] / v.mean()) for v in values])
    assert all(after < 0.9 * before for before, after in zip(*ratio, strict=True))


def test_centred_at_the_mean_of_the_images(model: Medformer):
    """Whitened anew, the mean of the features is nearly gone."""
    before = [float(f.mean(0).norm() / f.norm(dim=1).mean()) for f in whitened(model, batch())]
    model.load_state_dict(as_torch(adapted(learned(model))))
    after = [float(f.mean(0).norm() / f.norm(dim=1).mean()) for f in whitened(model, batch())]
    assert all(b < 0.3 * a for a, b in zip(before, after, strict=True)), (before, after)


def test_number_and_size_of_the_steps_cancel_out(model: Medformer):
    """Sites with less noise take longer steps; momentum repeats early ones: the whitening is the
    same."""
    start = {k: v.detach().clone() for k, v in model.named_parameters()}
    one = adapted(learned(model))
    model.load_state_dict(start)
    many = adapted(learned(model, steps=5, rate=0.01))
    for name in (n for n in one if n.startswith("output.whitening.")):
        np.testing.assert_allclose(one[name], many[name], rtol=2e-3, atol=2e-4)


def test_without_moments_the_public_whitening_stays(model: Medformer):
    """Sites that were all away have taught nothing; a negative trace is noise alone."""
    tensors = {k: v.detach().numpy().copy() for k, v in model.named_parameters()}
    for value in (0.0, -1.0):
        for part in range(4):
            np.fill_diagonal(tensors[f"pretext.moments.{part}.weight"], value)
        after = adapted(tensors)
        for name in (n for n in tensors if n.startswith("output.whitening.")):
            assert np.array_equal(after[name], tensors[name])


def test_noise_alone_changes_no_direction_much(model: Medformer):
    """No direction is stretched to more than twice another where moments are mostly noise."""
    tensors = {k: v.detach().numpy().copy() for k, v in model.named_parameters()}
    rng = np.random.default_rng(0)
    for part in range(4):
        noise = rng.standard_normal((64, 64)).astype(np.float32)
        tensors[f"pretext.moments.{part}.weight"] = noise + 0.01 * np.eye(64, dtype=np.float32)
    after = adapted(tensors)
    for part in range(4):
        old, new = (t[f"output.whitening.{part}.matrix"] for t in (tensors, after))
        stretch = np.linalg.svd(np.linalg.solve(old, new), compute_uv=False)
        assert stretch[0] < 2 * stretch[-1]


def test_the_next_phase_of_moments_starts_from_nothing(model: Medformer):
    """Moments of other features would be added to the new ones."""
    after = adapted(learned(model))
    assert not any(after[f"pretext.moments.{i}.{p}"].any() for i in range(4) for p in PARTS)
