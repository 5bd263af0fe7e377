"""The bound of the best attack: that of a Gaussian, and no attack that is played beats it."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from client.privacy.accounting import Steps, epsilons
from client.privacy.meaning import DELTAS, FALSE_ALARMS, SLACK, BestAttack, max_detected

SAMPLED = [Steps(0.1, 1.0, 30), Steps(0.2, 1.0, 40), Steps(1.0, 20.0, 1)]


@pytest.mark.parametrize(("noise", "steps"), [(2.0, 1), (4.0, 10), (1.0, 3)])
def test_without_sampling_it_is_the_gaussians(noise: float, steps: int):
    """The best test against a Gaussian is known in closed form (Neyman and Pearson)."""
    mu = math.sqrt(steps) / noise
    found = BestAttack.on([Steps(1.0, noise, steps)]).detected(FALSE_ALARMS)
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
    bounds = BestAttack.on([Steps(q, noise, steps)]).detected([0.01, 0.05, 0.1])
    for alarms, bound in zip((0.01, 0.05, 0.1), bounds, strict=True):
        played = float((present > np.quantile(absent, 1 - alarms)).mean())
        assert 0.97 * bound < played < bound + 0.003


def test_the_whole_curve_says_more_than_one_pair():
    """At epsilon 8 the pair excludes nothing, and the curve three quarters at 1 % false alarms."""
    steps = [Steps(256 / 900, 3.0, 300)]
    (epsilon,) = epsilons(steps, [1e-5])
    assert 6 < epsilon < 9
    (share,) = BestAttack.on(steps).detected([0.01])
    assert share < 0.3
    assert max_detected(epsilon, 1e-5, 0.01) > 0.99
    # The pair is one of the curve's, so that the curve is never worse.
    pairs = zip(DELTAS, epsilons(steps, DELTAS), strict=True)
    assert share <= min(max_detected(e, d, 0.01) for d, e in pairs) + 1e-5


def test_no_steps_are_found_by_chance_alone():
    """And a step with hardly any noise is found."""
    assert BestAttack.on([]).detected([0.05]) == pytest.approx([0.05], abs=1e-5)
    assert BestAttack.on([]).mu < 1e-5
    assert BestAttack.on([Steps(1.0, 0.2, 5)]).detected([0.01])[0] > 0.999


def test_steps_without_protection_have_no_mu():
    """No Gaussian mechanism is found without any false alarm."""
    assert BestAttack.on([Steps(1.0, 0.02, 1)]).mu == math.inf
    assert BestAttack.of([(math.inf, math.inf)] * len(DELTAS)).mu == math.inf
    assert BestAttack.of([(math.inf, math.inf)] * len(DELTAS)).detected([0.01]) == [1.0]
    assert max_detected(5000.0, 1e-6, 0.01) == pytest.approx(1.0)


@pytest.mark.parametrize(("noise", "steps"), [(2.0, 1), (4.0, 10), (1.0, 3), (100.0, 1)])
def test_mu_of_gaussian_steps_is_their_own(noise: float, steps: int):
    """Steps without sampling are a Gaussian mechanism: mu is never smaller, and hardly larger."""
    own = math.sqrt(steps) / noise
    assert own <= BestAttack.on([Steps(1.0, noise, steps)]).mu <= 1.02 * own


@pytest.mark.parametrize("parts", [SAMPLED, [Steps(0.15, 2.1, 60)], [Steps(0.01, 0.8, 2000)]])
def test_no_attack_beats_the_one_on_the_gaussian_that_mu_names(parts: list[Steps]):
    """The promise of mu holds at every rate, and would break if mu were a little smaller."""
    attack = BestAttack.on(parts)
    # Less than the same steps without sampling have.
    assert attack.mu < math.sqrt(sum(p.steps / p.noise_multiplier**2 for p in parts))
    alarms = np.concatenate([np.geomspace(1e-12, 0.5, 3000), 1 - np.geomspace(1e-9, 0.5, 2000)])
    found = np.array(attack.detected(list(alarms)))
    assert (found <= norm.cdf(attack.mu - norm.isf(alarms)) + SLACK * (1 + 1e-6)).all()
    assert (found > norm.cdf(0.99 * attack.mu - norm.isf(alarms)) + SLACK).any()


def test_the_plotted_curve_is_a_bound_between_its_corners_too():
    """The lines of a plot lie above every test, by less than a plot can show."""
    attack = BestAttack.on(SAMPLED)
    corners = np.array(attack.roc())
    assert corners[0][0] == 0
    assert corners[-1].tolist() == [1.0, 1.0]
    assert (np.diff(corners, axis=0) >= 0).all()
    alarms = np.linspace(0, 1, 5001)
    above = np.interp(alarms, *corners.T) - np.array(attack.detected(list(alarms)))
    assert above.min() > -1e-12
    assert above.max() < 0.01
