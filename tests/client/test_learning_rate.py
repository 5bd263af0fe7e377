"""The learning rate that follows the declared noise."""

import numpy as np
import pytest

from client.privacy.plan import PhasePlan, solve
from client.site import Privacy
from server.protocol import Phase, Schedule, learning_rate
from server.protocol.schedule import MAX_LEARNING_RATE

PLAIN = Phase(name="p", rounds=20, objectives={"supervised": 1.0}, expected_batch_size=64)
FOLLOWS = PLAIN.model_copy(update={"noise_floor": 4e-6})


def plan_of(phase: Phase, epsilon: float, n_public: int) -> PhasePlan:
    schedule = Schedule(phases=(phase,), spare_rounds=0)
    return solve(schedule, Privacy(epsilon=epsilon, n_public=n_public)).phases[0]


@pytest.mark.parametrize(("epsilon", "n_public"), [(1, 500), (8, 500), (8, 5_000)])
def test_rate_times_variance_is_what_the_phase_says(epsilon: float, n_public: int):
    """Rate times variance equals the floor for any epsilon and number of records."""
    plan = plan_of(FOLLOWS, epsilon, n_public)
    assert plan == plan_of(PLAIN, epsilon, n_public)
    drawn = np.random.default_rng(0).normal(0, plan.noise_std, 100_000)
    variance = (drawn / plan.expected_batch_size).var()
    assert learning_rate(FOLLOWS, plan.gradient_noise) * variance == pytest.approx(4e-6, rel=0.02)


def test_noise_has_the_same_price_at_every_site():
    """After many steps of SGD on a parabola, the mean excess loss is the same for any noise if the
    rate follows the noise."""
    losses = []
    for epsilon in (1, 8):
        plan = plan_of(FOLLOWS, epsilon, 500)
        rate, rng, at = (
            learning_rate(FOLLOWS, plan.gradient_noise),
            np.random.default_rng(0),
            np.zeros(4_000),
        )
        kept = []
        for step in range(int(40 / rate)):
            at = at - rate * (0.5 * at + rng.normal(0, plan.gradient_noise, at.shape))
            if step > 10 / rate:
                kept.append(0.25 * float((at**2).mean()))
        losses.append(np.mean(kept))
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert losses[0] == pytest.approx(4e-6 / 4, rel=0.1)


def test_without_it_the_rate_is_the_phases_and_there_is_a_largest_one():
    """Without a floor, the rate is the phase's; with almost no noise, it is bounded."""
    assert learning_rate(PLAIN, plan_of(PLAIN, 8, 500).gradient_noise) == PLAIN.learning_rate
    far = FOLLOWS.model_copy(update={"noise_floor": 1.0})
    assert learning_rate(far, plan_of(far, 100, 50_000).gradient_noise) == MAX_LEARNING_RATE
