"""The comparison of independent and correlated noise: its matrices match their definitions."""

import numpy as np
import pytest

from simulations.benchmarks.correlated_noise import (
    bands,
    compare,
    iterates,
    noise_of_iterates,
)


def test_iterates_are_those_of_momentum():
    """The matrix equals SGD with momentum, run on one gradient after the other."""
    matrix = iterates(6, 0.9)
    for at in range(6):
        velocity = place = 0.0
        for step in range(6):
            velocity = 0.9 * velocity + (step == at)
            place += velocity
            assert matrix[step, at] == pytest.approx(place)


def test_bands_are_of_unit_norm_and_the_square_root_of_the_sum():
    """The square of the bands is the prefix sum, up to the norm, if there are as many as steps."""
    assert np.linalg.norm(bands(5)) == pytest.approx(1)
    column = bands(8) / bands(8)[0]
    root = sum(np.diag(np.full(8 - j, value), -j) for j, value in enumerate(column))
    np.testing.assert_allclose(root @ root, np.tril(np.ones((8, 8))), atol=1e-12)


def test_one_band_is_independent_noise_and_more_leave_less():
    """Without the cost in amplification, more bands always leave less noise."""
    one = noise_of_iterates(1, 40, 0.9)
    assert one == pytest.approx(np.linalg.norm(iterates(40, 0.9)) / np.sqrt(40))
    assert one > noise_of_iterates(2, 40, 0.9) > noise_of_iterates(8, 40, 0.9)


def test_what_correlation_gains_depends_on_the_amplification_it_costs():
    """It loses with few records at a small epsilon, and gains with many at a large one."""
    few, many = compare(3_600, 1.0, 4), compare(12_000, 8.0, 4)
    assert few is not None
    assert few["banded"] > 1.05
    assert many is not None
    assert many["banded"] < 0.9
    assert many["four_times_the_batch"] < many["banded"]
    assert compare(900, 8.0, 2) is None
