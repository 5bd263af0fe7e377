"""The statistics of the audit: the bound is valid and sharp, and the checks find defects."""

import math
from itertools import product

import numpy as np
import pytest

from client.audit.checks import Trace, checks
from client.audit.statistics import (
    Floats,
    Seen,
    aim,
    count_correct,
    epsilon_lower_bound,
    judge,
    p_value,
    step_scores,
)
from client.privacy.accounting import solve_noise_multiplier

DELTA = 1e-5
RATE, STEPS, CANARIES = 0.1, 100, 24_000
SIGMA = solve_noise_multiplier([(RATE, STEPS)], 2.0, DELTA)
SEEN = Seen(RATE, SIGMA)


def trace_of(seed: int, noise: float = 1.0, canaries: int = CANARIES, steps: int = STEPS) -> Trace:
    """Return an ideal training whose noise is `noise` times the claimed one."""
    rng = np.random.default_rng(seed)
    included = rng.random(canaries) < 0.5
    joined = rng.random((steps, canaries)) < RATE
    released = joined * included + noise * SIGMA * rng.standard_normal((steps, canaries))
    return Trace(released, joined[:, included], (SEEN,) * steps, included)


def scores_of(trace: Trace) -> Floats:
    return np.sum([step_scores(r, s) for r, s in zip(trace.released, trace.seen, strict=True)], 0)


@pytest.mark.parametrize(("guesses", "correct"), [(5, 5), (6, 4), (8, 8), (7, 0)])
def test_without_delta_the_p_value_is_the_binomial_tail(guesses: int, correct: int):
    """For delta = 0, the p-value equals the sum over all outcomes, one by one."""
    right = 1 / (1 + math.exp(-1.3))
    tail = sum(
        math.prod(right if hit else 1 - right for hit in hits)
        for hits in product([0, 1], repeat=guesses)
        if sum(hits) >= correct
    )
    assert p_value(guesses, guesses, correct, 1.3, 0.0) == pytest.approx(tail, rel=1e-9)


def test_delta_costs_what_the_worst_leak_of_that_mean_could_give():
    """The p-value bounds the largest P[W + F >= v] that a direct search over F finds."""
    canaries, guesses, correct, epsilon, delta = 40, 20, 18, 1.0, 0.01
    rng = np.random.default_rng(0)
    right = 1 / (1 + math.exp(-epsilon))
    hits = rng.binomial(guesses, right, 400_000)
    worst = 0.0
    for i in range(1, correct + 1):
        often = min(1.0, 2 * canaries * delta / i)
        leaked = np.where(rng.random(len(hits)) < often, i, 0)
        worst = max(worst, float(np.mean(hits + leaked >= correct)))
    assert p_value(canaries, guesses, correct, epsilon, delta) == pytest.approx(worst, abs=0.004)


def test_the_bound_refutes_a_correct_mechanism_as_rarely_as_it_says():
    """For randomised response, which is exactly epsilon-DP, the bound fails in 5 % of the runs."""
    epsilon, guesses = 1.0, 400
    right = 1 / (1 + math.exp(-epsilon))
    rng = np.random.default_rng(1)
    hits = rng.binomial(guesses, right, 1_000)
    known = {int(v): epsilon_lower_bound(guesses, guesses, int(v), 0.0) for v in set(hits)}
    above = np.mean([known[int(v)] > epsilon for v in hits])
    assert 0.02 < above <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1_000)


def test_more_right_guesses_prove_more_and_delta_or_confidence_less():
    """The bound is monotone in every argument."""
    base = epsilon_lower_bound(1000, 200, 180, 1e-5)
    assert epsilon_lower_bound(1000, 200, 185, 1e-5) > base
    assert epsilon_lower_bound(1000, 200, 180, 1e-3) < base
    assert epsilon_lower_bound(1000, 200, 180, 1e-5, confidence=0.99) < base
    assert epsilon_lower_bound(1000, 200, 100, 1e-5) == 0.0
    with pytest.raises(ValueError, match="must be 0 <= correct <= guesses"):
        p_value(10, 5, 6, 1.0, 0.0)


def test_guesses_come_from_both_ends():
    """The highest scores are guessed in and the lowest out; there is no guess for the others."""
    scores = np.array([5.0, -3.0, 0.1, 4.0, -2.0, 0.0])
    included = np.array([True, False, False, False, True, True])
    assert count_correct(scores, included, 2) == 2
    assert count_correct(scores, included, 4) == 2


def test_the_aim_is_a_function_of_public_constants_and_is_met():
    """Two calls give the same aim, and nine of ten ideal trainings reach its bounds."""
    steps = [(SEEN, STEPS)]
    aimed = aim(steps, 8_000, DELTA)
    assert aimed == aim(steps, 8_000, DELTA)
    for noise, promised in ((1.0, aimed.bound_if_correct), (0.5, aimed.bound_at_half_noise)):
        bounds = []
        for seed in range(10):
            trace = trace_of(seed, noise, 8_000)
            verdict = judge(scores_of(trace), trace.included, aimed.guesses, DELTA)
            bounds.append(verdict.epsilon_lower_bound)
        assert sorted(bounds)[1] >= 0.93 * promised


@pytest.mark.slow
def test_power_of_an_ideal_training():
    """In nine of ten seeds, a correct mechanism gives at least 30 % of the claim, and one with half
    the noise more than the claim. A heavy test in test_canaries.py checks real training."""
    aimed = aim([(SEEN, STEPS)], CANARIES, DELTA)
    found = {1.0: [], 0.5: []}
    for noise, bounds in found.items():
        for seed in range(10):
            trace = trace_of(seed, noise)
            bound = judge(scores_of(trace), trace.included, aimed.guesses, DELTA)
            bounds.append(bound.epsilon_lower_bound)
    assert sum(0.6 <= b <= 2 for b in found[1.0]) >= 9
    assert sum(b > 2 for b in found[0.5]) >= 9


def test_checks_let_a_correct_mechanism_pass():
    """No check fails in twenty correct trainings."""
    failed = [c.name for seed in range(20) for c in checks(trace_of(seed, canaries=1_000))
              if not c.passed]  # fmt: skip
    assert failed == []


def test_checks_see_a_little_less_noise_however_large_epsilon_is():
    """The check of the noise fails where the bound from guesses is far below the claim."""
    sigma = 0.5
    rng = np.random.default_rng(0)
    included = rng.random(1_000) < 0.5
    joined = rng.random((40, 1_000)) < 0.3
    released = joined * included + 0.95 * sigma * rng.standard_normal((40, 1_000))
    trace = Trace(released, joined[:, included], (Seen(0.3, sigma),) * 40, included)
    assert [c.name for c in checks(trace) if not c.passed] == [
        "standard deviation of the noise, over the claimed one"
    ]


def test_checks_see_noise_that_is_not_finite():
    """NaN does not count as noise."""
    trace = trace_of(0, canaries=1_000)
    trace.released[:, :] = np.nan
    assert not all(c.passed for c in checks(trace))


def test_checks_see_noise_that_comes_again():
    """One repeated pair among 4,950 pairs of steps is found."""
    trace = trace_of(0, canaries=2_000)
    trace.released[77] = trace.released[3]
    assert any("correlation" in c.name and not c.passed for c in checks(trace))


def test_checks_see_a_bound_that_is_not_kept():
    """Canaries that move the sum by 1.5 times the bound are found."""
    trace = trace_of(0, canaries=8_000)
    trace.released[:, trace.included] += 0.5 * trace.joined
    assert any("canary" in c.name and not c.passed for c in checks(trace))


@pytest.mark.parametrize("sampler", ["fixed size", "shuffled"])
def test_checks_see_sampling_that_is_not_poisson(sampler: str):
    """Batches of a fixed size are found, and passes over shuffled data."""
    rng = np.random.default_rng(0)
    steps, units = 60, 1_000
    included = np.zeros(2 * units, dtype=bool)
    included[:units] = True
    joined = np.zeros((steps, units), dtype=bool)
    for start in range(0, steps, 10):
        order = rng.permutation(units)
        for i in range(10):
            if sampler == "fixed size":
                order = rng.permutation(units)
                chosen = order[:100]
            else:
                chosen = order[100 * i : 100 * (i + 1)]
            joined[start + i, chosen] = True
    released = SIGMA * rng.standard_normal((steps, 2 * units))
    released[:, :units] += joined
    found = checks(Trace(released, joined, (SEEN,) * steps, included))
    failed = {c.name for c in found if not c.passed}
    assert "spread of the batch sizes" in failed
    assert ("spread of how often a unit is drawn" in failed) == (sampler == "shuffled")


def test_checks_of_a_single_step_with_everybody():
    """The checks ask only that every unit was drawn, since nothing varies at a sample rate of 1."""
    rng = np.random.default_rng(0)
    included = rng.random(1_000) < 0.5
    joined = np.ones((1, int(included.sum())), dtype=bool)
    released = included + 2.0 * rng.standard_normal((1, 1_000))
    trace = Trace(released, joined, (Seen(1.0, 2.0),), included)
    assert all(c.passed for c in checks(trace))
    joined[0, 3] = False
    assert not all(c.passed for c in checks(trace))
