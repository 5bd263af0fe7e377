"""The Renyi filter keeps the budget that it promises, and admits more runs than adding epsilons."""

import json
import math
import random
import sqlite3
from pathlib import Path

import pytest
from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon
from opacus.accountants.analysis.rdp import compute_rdp

from client.ledger.chain import LedgerError
from client.ledger.export import as_text, read
from client.ledger.ledger import Ledger
from client.privacy.accounting import Steps, epsilon
from client.privacy.composition import Budget, Cost, best_order, renyi, renyi_limit
from client.privacy.plan import PhasePlan, PrivacyPlan, solve
from client.refusals import BudgetExhausted
from client.site import Privacy
from medformer.common.rounding import percent_up
from server.protocol import Phase, Schedule

RDP = Privacy(epsilon=2, epsilon_budget=8, rule="rdp", n_public=1000)
SCHEDULE = Schedule(
    phases=(Phase(name="a", rounds=30, objectives={"supervised": 1}, expected_batch_size=100),),
    spare_rounds=3,
)


def run(steps: list[Steps], delta: float = 1e-5) -> PrivacyPlan:
    """Return a plan of these steps, with the PLD's epsilon."""
    phases = tuple(
        PhasePlan(f"p{i}", s.steps, s.steps, 1, s.sample_rate, s.noise_multiplier, 1.0, 10.0)
        for i, s in enumerate(steps)
    )
    cost = epsilon(steps, delta, interval=1e-2)
    return PrivacyPlan("image", "add or remove one image", delta, cost, phases)


@pytest.mark.parametrize(
    ("eps", "delta"), [(0.5, 1e-6), (1, 1e-5), (8, 1e-5), (16, 2e-5), (50, 1e-4)]
)
def test_the_limit_is_what_dp_accounting_converts_to_the_budget(eps: float, delta: float):
    """dp_accounting converts the limit to the budget exactly, and a slightly larger divergence to
    more."""
    order = best_order(eps, delta)
    limit = renyi_limit(order, eps, delta)
    assert compute_epsilon([order], [limit], delta)[0] == pytest.approx(eps, rel=1e-12)
    assert compute_epsilon([order], [limit * 1.001], delta)[0] > eps


@pytest.mark.parametrize("steps", [Steps(0.1, 1.2, 50), Steps(1.0, 3.0, 2), Steps(0.003, 0.7, 900)])
@pytest.mark.parametrize("order", [2, 3, 14])
def test_the_divergence_is_opacus_too(steps: Steps, order: int):
    """Opacus computes the same divergence; ours is never the smaller one."""
    other = compute_rdp(q=steps.sample_rate, noise_multiplier=steps.noise_multiplier,
                        steps=steps.steps, orders=[order])  # fmt: skip
    assert float(other[0]) <= renyi(steps, order) <= float(other[0]) * (1 + 1e-7)


@pytest.mark.parametrize("seed", range(8))
def test_no_sequence_of_admitted_runs_passes_the_budget(tmp_path: Path, seed: int):
    """Random runs are reserved until many are refused. PLD, which uses no Renyi divergence, then
    finds all admitted steps together within the lifetime budget at its delta."""
    draw = random.Random(seed)
    eps = draw.choice([1.0, 4.0, 16.0])
    privacy = Privacy(epsilon=eps, epsilon_budget=eps, rule="rdp", n_public=1000)
    admitted: list[Steps] = []
    refused = 0
    with Ledger(tmp_path / "l", privacy) as ledger:
        for i in range(60):
            steps = [
                Steps(draw.choice([0.01, 0.1, 1.0]),
                      draw.choice([2.0, 4.0, 9.0, 40.0]) * 2 / eps**0.5, draw.randint(1, 40))
                for _ in range(draw.randint(1, 2))
            ]  # fmt: skip
            try:
                ledger.reserve(f"run-{i}", "s", "m", run(steps))
                admitted += steps
            except BudgetExhausted:
                refused += 1
        spent = ledger.account.spent()
    assert refused
    assert admitted
    assert spent == (eps, privacy.lifetime_delta)
    together = epsilon(admitted, privacy.lifetime_delta, interval=1e-2)
    assert together <= eps + 0.01


def test_more_equal_runs_fit_than_by_adding_epsilons(tmp_path: Path):
    """Both rules get the same runs, noise and lifetime budget."""

    def admitted(rule: str) -> int:
        privacy = RDP.model_copy(update={"rule": rule})
        plan = solve(SCHEDULE, privacy)
        plans.append(plan)
        with Ledger(tmp_path / rule, privacy) as ledger:
            for i in range(1000):
                try:
                    ledger.reserve(f"run-{i}", "s", "m", plan)
                except BudgetExhausted:
                    return i
        raise AssertionError

    plans: list[PrivacyPlan] = []
    assert admitted("basic") == 4
    assert admitted("rdp") == 14
    assert plans[0].phases == plans[1].phases


def test_a_run_is_refused_in_the_words_of_its_rule(tmp_path: Path):
    """The refusal states cost and remaining budget in the same unit."""
    with Ledger(tmp_path / "l", RDP) as ledger:
        with pytest.raises(
            BudgetExhausted, match=r"divergence at order 4 is .* are left of the lif"
        ):
            ledger.reserve("one", "s", "m", run([Steps(1.0, 0.5, 10)]))
        assert ledger.account.spent() == (0.0, 0.0)
        assert ledger.reservation("one") is None


def test_the_noise_lets_the_run_into_the_lifetime_budget():
    """With a budget of one run, the filter needs more noise than the run's epsilon alone."""
    tight = RDP.model_copy(update={"epsilon_budget": 2.0})
    ours, basic = (
        solve(SCHEDULE, tight),
        solve(SCHEDULE, tight.model_copy(update={"rule": "basic"})),
    )
    sigma = ours.phases[0].noise_multiplier
    assert sigma > basic.phases[0].noise_multiplier
    assert ours.epsilon < basic.epsilon <= 2
    budget = Budget.of(tight)
    assert budget.limit is not None
    assert budget.order is not None
    assert renyi(Steps(0.1, sigma, 33), budget.order) <= budget.limit
    assert renyi(Steps(0.1, sigma - 0.001, 33), budget.order) > budget.limit


def test_the_plan_does_not_tell_what_was_spent(tmp_path: Path):
    """A receipt shows the same noise at a fresh site and at a site with little budget left."""
    before = solve(SCHEDULE, RDP)
    with Ledger(tmp_path / "l", RDP) as ledger:
        ledger.reserve("one", "s", "m", before)
        assert solve(SCHEDULE, RDP) == before


@pytest.mark.parametrize(("first", "then"), [("basic", "rdp"), ("rdp", "basic")])
def test_the_rule_never_changes(tmp_path: Path, first: str, then: str):
    """A site cannot choose the better of two rules afterwards."""
    Ledger(tmp_path / "l", RDP.model_copy(update={"rule": first})).close()
    with pytest.raises(LedgerError, match=rf"fixed for the life of these records.*rule: {first}"):
        Ledger(tmp_path / "l", RDP.model_copy(update={"rule": then}))


def test_a_ledger_without_a_rule_stays_basic(tmp_path: Path):
    """The first versions wrote ledgers without a rule."""
    rows = [{"epsilon_budget": 7.0, "delta_budget": 1e-5, "unit": "image"}]
    budget = Budget.registered(rows)
    assert (budget.rule, budget.epsilon, budget.order) == ("basic", 7.0, None)
    total = budget.total([{"epsilon": 3.0, "delta": 1e-6}, {"epsilon": 4.0, "delta": 1e-6}])
    assert budget.fits(total)
    assert not budget.fits(total + Cost(0.1, 0.0))


def test_order_and_limit_are_those_of_the_registration(tmp_path: Path):
    """The first row fixes the order; a lower budget keeps it, whatever would be chosen now."""
    Ledger(tmp_path / "l", RDP).close()
    lower = RDP.model_copy(update={"epsilon_budget": 3.0})
    assert best_order(lower.lifetime_epsilon, lower.lifetime_delta) > 4
    Ledger(tmp_path / "l", lower).close()
    with sqlite3.connect(tmp_path / "l") as db:
        bodies = [json.loads(b) for (b,) in db.execute("SELECT body FROM entries ORDER BY seq")]
    assert [b["order"] for b in bodies] == [4, 4]
    assert bodies[1]["limit"] == renyi_limit(4, 3.0, bodies[1]["delta_budget"])
    assert Budget.registered(bodies).limit == bodies[1]["limit"] < bodies[0]["limit"]


def test_a_budget_that_no_order_can_keep_is_named(tmp_path: Path):
    """The refusal comes before anything is written."""
    tiny = Privacy(epsilon=1e-4, delta=1e-9, rule="rdp", n_public=10)
    with pytest.raises(
        LedgerError, match=r"cannot keep a lifetime budget as small as epsilon 0\.0001"
    ):
        Ledger(tmp_path / "l", tiny)
    assert math.isfinite(best_order(0.05, 1e-6))


def test_the_hospital_sees_the_rule_and_what_it_promises(tmp_path: Path):
    """The ledger shows the filter's limit, not the sum of the epsilons and nothing smaller."""
    with Ledger(tmp_path / "ledger.sqlite", RDP) as ledger:
        for i in range(5):
            ledger.reserve(f"run-{i}", "s", "m", solve(SCHEDULE, RDP))
        used = ledger.account.used()
    assert 0.3 < used < 0.4
    assert 5 * solve(SCHEDULE, RDP).epsilon > 8
    text = as_text(read(tmp_path))
    assert "rule across runs: rdp" in text
    assert "all runs together, however chosen: epsilon 8.000, delta 4e-05" in text
    assert f"{percent_up(used)} of the divergence of order 4 used" in text
