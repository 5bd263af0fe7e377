"""The meaning of epsilon for a person is a bound, and a tight one."""

import math

import pytest
from scipy.stats import norm

from client.privacy.meaning import max_detected, percent


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the exact delta of a Gaussian mechanism (Balle and Wang 2018)."""
    first = norm.cdf(mu / 2 - epsilon / mu)
    return float(first - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu))


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("epsilon", [0.2, 1.0, 3.0])
def test_no_test_against_a_gaussian_does_better_and_the_best_one_as_well(mu: float, epsilon: float):
    """The likelihood ratio test detects Phi(Phi^-1(f) + mu) of the members. It never exceeds the
    bound at the mechanism's (epsilon, delta), and meets it at one rate of false alarms."""
    delta = gaussian_delta(mu, epsilon)
    touching = norm.sf(mu / 2 + epsilon / mu)
    for false_alarms in (1e-6, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.9, touching):
        best = norm.cdf(norm.ppf(false_alarms) + mu)
        assert best <= max_detected(epsilon, delta, false_alarms) + 1e-12
    best = norm.cdf(norm.ppf(touching) + mu)
    assert best == pytest.approx(max_detected(epsilon, delta, touching), abs=1e-9)
    mirrored = float(1 - best)
    assert 1 - touching == pytest.approx(max_detected(epsilon, delta, mirrored), abs=1e-9)


def test_without_privacy_loss_a_test_guesses():
    """Detections are as frequent as false alarms, and never more than all."""
    assert max_detected(0, 0, 0.03) == pytest.approx(0.03)
    assert max_detected(50, 0, 0.03) == pytest.approx(1)
    assert max_detected(1, 1e-3, 0) == pytest.approx(1e-3)


def test_what_is_shown_is_never_less():
    """Shares are rounded up."""
    assert (percent(0.0272), percent(0.02001), percent(0.02), percent(0.99966)) == (
        "2.8 %", "2.1 %", "2.0 %", "100.0 %",
    )  # fmt: skip
