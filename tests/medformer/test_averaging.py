"""The running mean that server and sites keep of their iterates."""

import numpy as np
import torch

from medformer.postprocessing.averaging import running_mean


def iterates(count: int) -> list[np.ndarray]:
    """Return float32 iterates of shape (3, 2) that hold zeros of both signs."""
    rng = np.random.default_rng(0)
    values = [rng.standard_normal((3, 2)).astype(np.float32) for _ in range(count)]
    values[0][0] = -0.0, 0.0
    return values


def test_the_running_mean_is_the_mean_of_all_iterates():
    """The mean after each iterate equals the mean of all so far, computed at once in float64."""
    mean: dict[str, np.ndarray] = {}
    values = iterates(7)
    for count, value in enumerate(values, start=1):
        mean = running_mean(mean, {"a": value}, count)
        expected = np.mean(values[:count], axis=0, dtype=np.float64)
        np.testing.assert_allclose(mean["a"], expected, rtol=1e-6, atol=1e-7)
        assert mean["a"].dtype == np.float32


def test_server_and_site_average_to_the_same_bytes():
    """numpy arrays and torch tensors give equal float32 bits, signs of zeros included."""
    at_server: dict[str, np.ndarray] = {}
    at_site: dict[str, torch.Tensor] = {}
    for count, value in enumerate(iterates(5), start=1):
        at_server = running_mean(at_server, {"a": value}, count)
        at_site = running_mean(at_site, {"a": torch.from_numpy(value)}, count)
        assert at_server["a"].tobytes() == at_site["a"].numpy().tobytes()


def test_the_mean_shares_no_memory_with_the_iterate():
    """A later change of the iterate in place does not change the mean."""
    value = torch.ones(2)
    mean = running_mean({}, {"a": value}, 1)
    value.zero_()
    assert torch.equal(mean["a"], torch.ones(2))
