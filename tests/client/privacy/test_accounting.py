"""Epsilon agrees with three independent accountants and with a closed form."""

import json
from dataclasses import replace

import pytest
from opacus.accountants import PRVAccountant, RDPAccountant

from client.privacy import accounting
from client.privacy.accounting import (
    ARITHMETIC_EPSILON,
    Steps,
    epsilon,
    epsilons,
    gaussian_epsilon,
    solve_noise_multiplier,
)
from client.privacy.costs import costs
from client.privacy.meaning import FALSE_ALARMS, BestAttack
from client.privacy.plan import CURVE, SPARE, PrivacyPlan, solve
from client.site import Privacy
from server.protocol import Phase, Schedule

DELTA = 1e-5
CASES = [
    [Steps(512 / 4708, 0.98, 100)],
    [Steps(512 / 4708, 4.272, 100)],
    [Steps(0.1, 1.2, 20), Steps(0.3, 1.2, 40), Steps(0.3, 1.2, 4)],
    [Steps(0.02, 0.8, 500)],
]

TWO_PHASES = Schedule(
    phases=(
        Phase(name="a", rounds=4, local_steps=3, objectives={"inpainting": 1},
              expected_batch_size=20),
        Phase(name="b", rounds=5, objectives={"supervised": 1}, expected_batch_size=60),
    ),
    spare_rounds=2,
)  # fmt: skip


def history(steps: list[Steps]) -> list[tuple[float, float, int]]:
    return [(s.noise_multiplier, s.sample_rate, s.steps) for s in steps]


@pytest.mark.parametrize("steps", CASES)
def test_pld_lies_in_the_interval_of_opacus_prv_and_below_rdp(steps: list[Steps]):
    """PRV brackets our epsilon within 0.2 % by its own error bound, and RDP lies above it."""
    ours = epsilon(steps, DELTA)
    accountant = PRVAccountant()
    accountant.history = history(steps)
    error = 0.002 * ours
    dprv = accountant._get_dprv(eps_error=error, delta_error=DELTA / 1000)
    low, _, high = dprv.compute_epsilon(DELTA, DELTA / 1000, error)
    assert low <= ours <= high

    rdp = RDPAccountant()
    rdp.history = history(steps)
    assert ours <= rdp.get_epsilon(DELTA)


@pytest.mark.parametrize(("sigma", "steps"), [(2.0, 1), (5.0, 30), (1.0, 3)])
def test_unsubsampled_gaussian_agrees_with_its_closed_form(sigma: float, steps: int):
    """Epsilon equals that of Balle and Wang 2018 to 1e-4."""
    ours = epsilon([Steps(1.0, sigma, steps)], DELTA)
    assert ours == pytest.approx(gaussian_epsilon(sigma, steps, DELTA), rel=1e-4)


@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-9])
def test_the_privacy_curve_of_a_gaussian_is_its_closed_form(delta: float):
    """The closed form is met at every delta of one composition."""
    curve = epsilons([Steps(1.0, 2.0, 1)], [1e-4, delta])
    assert curve[1] == pytest.approx(gaussian_epsilon(2.0, 1, delta), rel=1e-4)


def test_a_plan_holds_its_privacy_curve_from_one_composition(monkeypatch: pytest.MonkeyPatch):
    """Each pair of the curve is what its delta alone would give, and epsilon falls as delta grows.
    The steps are composed once for all pairs, and not at all when a plan is read from a ledger."""
    compositions: list[object] = []
    real = accounting.both_epsilons

    def counted(*args, **kwargs):  # type: ignore[no-untyped-def]
        compositions.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr("client.privacy.plan.both_epsilons", counted)
    plan = solve(TWO_PHASES, Privacy(epsilon=4.5, n_public=200))
    assert PrivacyPlan.from_json(plan.to_json()) == plan
    assert len(compositions) == 1
    assert [d for d, _ in plan.curve] == list(CURVE)
    assert [e for _, e in plan.curve] == sorted(e for _, e in plan.curve)
    assert dict(plan.curve)[1e-5] == plan.epsilon
    parts = [p.mechanism() for p in plan.phases]
    for delta, value in plan.curve[::4]:
        assert value == epsilon(parts, delta) + ARITHMETIC_EPSILON
    attack = BestAttack.on(parts)
    assert (plan.mu, list(plan.roc)) == (attack.mu, attack.roc())
    assert [share for _, share in plan.detected] == attack.detected(FALSE_ALARMS)


def test_a_plan_of_before_the_curve_is_read():
    """A plan that an older version wrote without a curve can still be read."""
    plan = solve(TWO_PHASES, Privacy(epsilon=4.5, n_public=200))
    values = json.loads(plan.to_json())
    del values["curve"]
    assert PrivacyPlan.from_json(json.dumps(values)) == replace(plan, curve=())


def test_epsilon_grows_with_steps_and_rate_and_falls_with_noise():
    """Epsilon is monotone in everything that costs privacy."""
    base = epsilon([Steps(0.1, 1.0, 50)], DELTA)
    assert epsilon([Steps(0.1, 1.0, 51)], DELTA) > base
    assert epsilon([Steps(0.11, 1.0, 50)], DELTA) > base
    assert epsilon([Steps(0.1, 1.01, 50)], DELTA) < base
    assert epsilon([], DELTA) == 0


def test_solved_noise_is_the_smallest_that_fits():
    """A thousandth less noise would exceed the target."""
    sigma = solve_noise_multiplier([(0.2, 100)], 8.0, DELTA)
    assert epsilon([Steps(0.2, sigma, 100)], DELTA) <= 8.0
    assert epsilon([Steps(0.2, sigma - 0.001, 100)], DELTA, interval=1e-3) > 8.0


def test_a_plan_lists_and_charges_every_step_spares_at_the_highest_price():
    """The reported epsilon can be recomputed from q, sigma and steps of the plan's phases."""
    plan = solve(TWO_PHASES, Privacy(epsilon=4, n_public=200))
    assert [(p.name, p.steps, p.sample_rate) for p in plan.phases] == [
        ("a", 12, 0.1), ("b", 5, 0.3), (SPARE, 6, 0.3),
    ]  # fmt: skip
    again = epsilon(
        [Steps(p.sample_rate, p.noise_multiplier, p.steps) for p in plan.phases], plan.delta
    )
    assert plan.epsilon == pytest.approx(again + ARITHMETIC_EPSILON, rel=1e-9)
    assert 3.9 < plan.epsilon <= 4
    assert plan.progress[-1][0] == 9
    assert plan.progress[-1][1] < plan.epsilon


def test_epsilon_of_a_run_is_not_that_of_one_round():
    """A fresh accountant for each round, the mistake of other systems, would report far less."""
    run = epsilon([Steps(0.2, 1.2, 50)], DELTA)
    one_round = epsilon([Steps(0.2, 1.2, 2)], DELTA)
    assert run > 3 * one_round


def test_the_price_of_a_phase_and_of_one_more_round():
    """The costs equal a recomputation of each phase alone, and of the plan with one round more or
    less."""
    plan = solve(TWO_PHASES, Privacy(epsilon=4, n_public=200))
    found = costs(plan)
    assert [cost.name for cost in found] == ["a", "b", SPARE]
    sigma = plan.phases[0].noise_multiplier
    more = [Steps(0.1, sigma, 15), Steps(0.3, sigma, 11)]
    price = found[0].epsilon_of_a_round
    assert price == pytest.approx(epsilon(more, DELTA) - plan.epsilon, rel=1e-3)
    fewer = epsilon([Steps(0.1, sigma, 9), Steps(0.3, sigma, 11)], DELTA)
    assert found[0].saved_by_a_round == pytest.approx(plan.epsilon - fewer, rel=1e-3)
    assert found[1].epsilon_alone == pytest.approx(epsilon([Steps(0.3, sigma, 5)], DELTA), rel=1e-3)
    assert sum(cost.epsilon_alone for cost in found) > plan.epsilon
    assert found[1].signal_to_noise == pytest.approx(60 / sigma)
