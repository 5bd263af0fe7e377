"""The bound of the best attack: that of a Gaussian, and no attack that is played beats it."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from client.privacy.accounting import Steps, epsilons
from client.privacy.meaning import DELTAS, FALSE_ALARMS, detected, max_detected


@pytest.mark.parametrize(("noise", "steps"), [(2.0, 1), (4.0, 10), (1.0, 3)])
def test_without_sampling_it_is_the_gaussians(noise: float, steps: int):
    """The best test against a Gaussian is known in closed form (Neyman and Pearson)."""
    mu = math.sqrt(steps) / noise
    found = detected([Steps(1.0, noise, steps)], FALSE_ALARMS)
    for alarms, share in zip(FALSE_ALARMS, found, strict=True):
        exact = norm.cdf(mu - norm.isf(alarms))
        assert exact <= share <= 1.005 * exact + 1e-6


def test_an_attack_on_sampled_steps_comes_close_and_no_further():
    """The likelihood ratio of all steps, played a million times."""
    q, noise, steps, runs = 0.2, 1.5, 12, 400_000
    generator = np.random.default_rng(0)

    def score(used: bool) -> np.ndarray:
        total = np.zeros(runs)
        for _ in range(steps):
            drawn = generator.random(runs) < q if used else np.zeros(runs)
            value = drawn + generator.normal(0, noise, runs)
            total += np.log1p(q * np.expm1((2 * value - 1) / (2 * noise**2)))
        return total

    absent, present = score(used=False), score(used=True)
    bounds = detected([Steps(q, noise, steps)], [0.01, 0.05, 0.1])
    for alarms, bound in zip((0.01, 0.05, 0.1), bounds, strict=True):
        played = float((present > np.quantile(absent, 1 - alarms)).mean())
        assert 0.97 * bound < played < bound + 0.003


def test_the_whole_curve_says_more_than_one_pair():
    """At epsilon 8 the pair excludes nothing, and the curve three quarters at 1 % false alarms."""
    steps = [Steps(256 / 900, 3.0, 300)]
    (epsilon,) = epsilons(steps, [1e-5])
    assert 6 < epsilon < 9
    (share,) = detected(steps, [0.01])
    assert share < 0.3
    assert max_detected(epsilon, 1e-5, 0.01) > 0.99
    # The pair is one of the curve's, so that the curve is never worse.
    pairs = zip(DELTAS, epsilons(steps, DELTAS), strict=True)
    assert share <= min(max_detected(e, d, 0.01) for d, e in pairs) + 1e-5


def test_no_steps_are_found_by_chance_alone():
    """And a step with hardly any noise is found."""
    assert detected([], [0.05]) == pytest.approx([0.05], abs=1e-5)
    assert detected([Steps(1.0, 0.2, 5)], [0.01])[0] > 0.999
