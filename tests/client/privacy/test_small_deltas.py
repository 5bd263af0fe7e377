"""Epsilon is an upper bound at every delta, however small, and for any number of steps.

Two oracles share nothing with the accountant: the closed form of unsampled Gaussians, and for
sampled ones an integral along a line of the complex plane, without grid, discretisation or FFT.
"""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import ndtr

from client.privacy.accounting import (
    GRID,
    Steps,
    epsilon,
    epsilons,
    gaussian_epsilon,
    grid_of,
    solve_noise_multiplier,
)
from client.privacy.pld import tilted
from client.privacy.pld.losses import losses
from client.privacy.pld.tilted import curve
from medformer.common.rounding import rounded_up

DELTAS = (1e-3, 1e-5, 1e-9, 1e-12, 1e-15, 1e-19)


@pytest.mark.parametrize(
    ("sigma", "steps"),
    [(2.0, 1), (1.0, 3), (100.0, 10_000), (40.0, 1_000), (300.0, 100_000), (671.0, 1_000)],
)
def test_no_epsilon_is_below_the_closed_form_of_a_gaussian(sigma: float, steps: int):
    """Epsilon is at most a thousandth above the closed form, so charging the error costs nearly
    nothing."""
    for delta, ours in zip(DELTAS, epsilons([Steps(1.0, sigma, steps)], DELTAS), strict=True):
        exact = gaussian_epsilon(sigma, steps, delta)
        assert exact <= ours <= 1.001 * exact + 1e-5


def test_different_gaussians_add_up_as_the_closed_form_says():
    """The mu^2 of several Gaussians together is the sum of theirs."""
    parts = [Steps(1.0, 20.0, 1), Steps(1.0, 90.0, 5_000), Steps(1.0, 30.0, 40)]
    joined = sum(p.steps / p.noise_multiplier**2 for p in parts) ** -0.5
    for delta in DELTAS:
        exact = gaussian_epsilon(joined, 1, delta)
        assert exact <= epsilon(parts, delta) <= 1.001 * exact


def log_moments(z: np.ndarray, steps: Steps, adding: bool) -> np.ndarray:
    """Return log E exp(z L) of a step's loss L, by the trapezoidal rule over the released value."""
    q, sigma = steps.sample_rate, steps.noise_multiplier
    reach = 12 * sigma + max(1.0, float(z.real[0]) + 1)
    x = np.arange(-reach, reach, sigma / 25)
    log_ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * x - 1) / (2 * sigma**2))
    log_normal = -(x**2) / (2 * sigma**2) - math.log(sigma * math.sqrt(2 * math.pi))
    power = -z if adding else z + 1
    exponent = log_normal + power[:, None] * log_ratio
    top = exponent.real.max(axis=1)
    return top + np.log(np.exp(exponent - top[:, None]).sum(axis=1) * sigma / 25)


def log_delta(parts: Sequence[Steps], eps: float, adding: bool) -> float:
    """Return the exact logarithm of delta at `eps`.

    delta = E max(0, 1 - e^(eps - L)) is the integral of M(z)^n e^(-z eps) / (z (z + 1)) over a line
    of constant positive real part, divided by 2 pi i (the Laplace transform's inverse).
    """

    def exponent(z: np.ndarray) -> np.ndarray:
        return sum(p.steps * log_moments(z, p, adding) for p in parts) - z * eps  # type: ignore[return-value]

    lines = 2.0 ** np.arange(-3, 9, 0.5) + 0j
    line = lines[np.argmin([exponent(lines[i : i + 1]).real[0] for i in range(len(lines))])].real
    near = exponent(line * np.array([0.98, 1.0, 1.02]) + 0j).real
    spread = math.sqrt(near @ [1, -2, 1]) / (0.02 * line)
    step = min(0.1 / spread, line / 20)
    z = line + 1j * step * (np.arange(int(40 / spread / step)) + 0.5)
    values = exponent(z) - np.log(z) - np.log(z + 1)
    top = values.real.max()
    return float(top + np.log(np.exp(values - top).real.sum() * step / math.pi))


SAMPLED = [
    [Steps(0.1, 1.0, 100)],
    [Steps(0.02, 0.8, 500)],
    [Steps(0.01, 2.0, 10_000)],
    [Steps(0.5, 20.0, 20_000)],
    [Steps(0.1, 3.0, 600), Steps(0.3, 3.0, 100)],
]


@pytest.mark.parametrize("adding", [False, True])
@pytest.mark.parametrize("parts", SAMPLED)
def test_no_epsilon_of_sampled_steps_is_below_the_integral(parts: list[Steps], adding: bool):
    """In each direction delta is at most two percent too large, which is about a thousandth of
    epsilon. The larger of the two is reported."""
    grid = grid_of(parts)
    sides = [losses(p.sample_rate, p.noise_multiplier, grid) for p in parts]
    one = [(side[-1] if adding else side[0], p.steps) for side, p in zip(sides, parts, strict=True)]
    for delta in (1e-5, 1e-12, 1e-18):
        eps = curve(one, grid, delta).epsilon(delta)
        assert math.log(delta) - 0.02 <= log_delta(parts, eps, adding) <= math.log(delta)
        assert eps <= epsilon(parts, delta) * (1 + 1e-7)


@pytest.mark.parametrize(
    ("steps", "reported"),
    [(Steps(0.0128, 0.251, 110), "49.860"), (Steps(0.0002, 0.361, 10_000), "7.954")],
)
def test_two_plans_on_which_accountants_differ(steps: Steps, reported: str):
    """For rarely sampled steps with little noise, other accountants report up to 49.873, and 7.998.
    The integral shows that the reported epsilon suffices and that a thousandth less would not."""
    eps = epsilon([steps], 1e-5)
    assert rounded_up(eps) == reported
    assert log_delta([steps], eps, adding=False) <= math.log(1e-5)
    assert log_delta([steps], 0.999 * eps, adding=False) > math.log(1e-5)


@pytest.mark.parametrize("steps", [Steps(4e-4, 0.68, 6), Steps(0.013, 1.3, 2)])
def test_a_large_delta_alone_is_enough(steps: Steps):
    """No epsilon is needed if delta exceeds the probability that a unit is drawn at all."""
    delta = 1.01 * steps.sample_rate * steps.steps
    assert epsilon([steps], delta) == 0


@pytest.mark.parametrize("q", [1e-5, 1e-6])
def test_rarely_sampled_steps_need_no_memory(q: float):
    """The grid is bounded, however large a step's loss is in standard deviations."""
    steps = Steps(q, 0.4, 1000)
    sides = losses(q, 0.4, grid_of([steps]))
    assert max(len(side.mass) for side in sides) <= 2**18 + 2
    assert len(curve([(sides[0], 1000)], grid_of([steps]), 1e-5).epsilons) < 2**22


def one_step_delta(q: float, sigma: float, eps: float) -> float:
    """Return the larger hockey-stick divergence of one step's two directions, in closed form."""

    def beyond(cut: float) -> tuple[float, float]:
        return float(ndtr(-cut / sigma)), float(ndtr((1 - cut) / sigma))

    absent, present = beyond(sigma**2 * math.log1p(math.expm1(eps) / q) + 0.5)
    removing = (1 - q) * absent + q * present - math.exp(eps) * absent
    if math.expm1(-eps) <= -q:
        return removing
    below, with_it = (1 - b for b in beyond(sigma**2 * math.log1p(math.expm1(-eps) / q) + 0.5))
    return max(removing, below - math.exp(eps) * ((1 - q) * below + q * with_it))


@pytest.mark.parametrize(("q", "sigma"), [(0.3, 0.7), (0.01, 1.0), (1e-4, 0.5), (0.999, 2.0)])
def test_one_sampled_step_has_the_epsilon_of_its_closed_form(q: float, sigma: float):
    """At the reported epsilon delta is not exceeded, and at a slightly smaller one it is."""
    for delta in (1e-3, 1e-6, 1e-11):
        eps = epsilon([Steps(q, sigma, 1)], delta)
        assert one_step_delta(q, sigma, eps) <= delta * (1 + 1e-9)
        assert eps < 2e-3 or one_step_delta(q, sigma, 0.999 * eps - 1e-3) > delta


@pytest.mark.parametrize("sampled", [Steps(0.05, 1.0, 40), Steps(1.0, 3.0, 1)])
def test_a_steps_losses_are_never_too_small(sampled: Steps):
    """The masses of each direction sum to 1, and their divergence is the closed form's at the grid
    points, so no composition of them can be too small."""
    q, sigma, grid = sampled.sample_rate, sampled.noise_multiplier, 1e-3
    sides = losses(q, sigma, grid)
    assert len(sides) == (1 if q == 1 else 2)
    for eps in (0.0, 0.05, 0.4):
        made = [
            side.infinite + float(np.maximum(0, -np.expm1(eps - grid * side.index)) @ side.mass)
            for side in sides
        ]
        assert max(made) == pytest.approx(one_step_delta(q, sigma, eps), rel=1e-9)
    for side in sides:
        assert side.mass.min() >= 0
        assert float(side.mass.sum()) + side.infinite == pytest.approx(1, abs=1e-12)


def test_below_the_smallest_delta_there_is_no_epsilon():
    """The noise ends at 13.2 standard deviations, and no epsilon covers what lies beyond."""
    assert epsilons([Steps(0.1, 2.0, 10)], [1e-20, 9e-21, 1e-300])[1:] == [math.inf] * 2
    assert math.isfinite(epsilon([Steps(0.1, 2.0, 10)], 1e-20))
    with pytest.raises(ValueError, match=r"delta 1e-21 is below 1e-20.*choose a larger delta"):
        solve_noise_multiplier([(0.1, 10)], 8.0, 1e-21)


@pytest.mark.parametrize("delta", [1e-5, 1e-13, 1e-17])
def test_a_promise_of_8_over_ten_thousand_steps_is_kept(delta: float):
    """The closed form confirms the solved noise, and a thousandth less noise would break the
    promise."""
    sigma = solve_noise_multiplier([(1.0, 10_000)], 8.0, delta)
    assert gaussian_epsilon(sigma, 10_000, delta) <= 8
    assert gaussian_epsilon(0.999 * sigma, 10_000, delta) > 8


@pytest.mark.parametrize("target", [0.01, 0.1, 0.5])
@pytest.mark.parametrize(("q", "steps"), [(1.0, 20), (1.0, 1_000), (1.0, 100_000)])
def test_a_small_epsilon_takes_half_a_percent_more_noise_than_it_needs_at_most(
    q: float, steps: int, target: float
):
    """The limit holds even where thousands of standard deviations are needed."""
    sigma = solve_noise_multiplier([(q, steps)], target, 1e-5)
    assert gaussian_epsilon(sigma, steps, 1e-5) <= target
    assert gaussian_epsilon(sigma / 1.005, steps, 1e-5) > target


def test_what_no_noise_can_reach_is_refused_with_the_true_limit():
    """The search ends at the limit that the refusal names."""
    assert 50_000 < solve_noise_multiplier([(1.0, 100)], 1e-4, 1e-5) < 100_000
    with pytest.raises(ValueError, match="noise multiplier of at most 100000: plan fewer steps"):
        solve_noise_multiplier([(1.0, 10_000)], 1e-4, 1e-5)


def test_the_grid_follows_what_a_step_loses():
    """Usual steps get the usual grid, and no grid is so coarse that it blurs one step's loss."""
    assert grid_of([Steps(0.1, 1.0, 100)]) == 5e-4
    assert grid_of([Steps(1.0, 671.0, 1000)]) <= 1 / 671 / 16
    assert grid_of([Steps(1.0, 0.2, 10**6)]) > 5e-4


@pytest.mark.parametrize("steps", [10_000, 100_000])
def test_the_error_of_a_composition_is_charged(steps: int, monkeypatch: pytest.MonkeyPatch):
    """Without the tilt the error of the transform exceeds these deltas: the reported epsilon is
    then far too large, and never too small."""
    monkeypatch.setattr(tilted, "_best_tilt", lambda *_: 2.0**-20)
    for delta in (1e-10, 1e-12, 1e-13):
        plain = tilted.curve(
            [(losses(1.0, 100.0, GRID)[0], steps)], GRID, delta
        ).epsilon(delta)  # fmt: skip
        assert plain >= gaussian_epsilon(100.0, steps, delta)


@pytest.mark.parametrize("sigma", [0.02, 0.0285, 0.03, 0.031])
def test_losses_beyond_the_largest_float_are_part_of_delta(sigma: float):
    """If they alone exceed delta, no epsilon holds; otherwise the rest of delta has to suffice."""
    assert epsilon([Steps(1.0, sigma, 1)], 1e-5) >= gaussian_epsilon(sigma, 1, 1e-5)
