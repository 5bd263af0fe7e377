"""Arithmetic of the budget at its edges: registration, cost, admission and the rest."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from client.ledger.ledger import Ledger, LedgerError
from client.privacy.accounting import ARITHMETIC_EPSILON, Steps, epsilons, gaussian_epsilon
from client.privacy.composition import ARITHMETIC, MAX_ORDER, Budget, Cost, renyi
from client.privacy.plan import SPARE, PrivacyPlan, solve
from client.refusals import BadRequest, BudgetExhausted
from client.site import Privacy
from server.protocol import Phase, Schedule
from tests.client.ledger.test_ledger import plan

LONG = Phase(
    name="long", rounds=2, local_steps=3, objectives={"inpainting": 1}, expected_batch_size=20
)
WIDE = Phase(name="wide", rounds=2, objectives={"supervised": 1}, expected_batch_size=60)


def declared(rule: str = "basic", epsilon: float = 7.0, delta: float = 7e-5) -> Privacy:
    """Return a lifetime budget of which one run takes a part."""
    return Privacy(epsilon=1, n_public=100, epsilon_budget=epsilon, delta_budget=delta, rule=rule)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["basic", "rdp"])
@pytest.mark.parametrize("part", ["epsilon", "delta"])
def test_a_budget_that_was_lowered_stays_lowered(tmp_path: Path, rule: str, part: str):
    """It cannot be raised even to a value that stood before."""
    values = {"epsilon": (7.0, 5.0, 6.0), "delta": (7e-5, 5e-5, 6e-5)}[part]
    first, lowest, between = (declared(rule, **{part: value}) for value in values)
    for privacy in (first, lowest, lowest):
        Ledger(tmp_path / "l", privacy).close()
    for raised in (between, first):
        with pytest.raises(LedgerError, match="can be lowered, not raised"):
            Ledger(tmp_path / "l", raised)
    with Ledger(tmp_path / "l", lowest) as ledger:
        assert ledger.account.limits() == (lowest.lifetime_epsilon, lowest.lifetime_delta)


def test_a_ledger_stays_with_the_unit_that_it_was_registered_for(tmp_path: Path):
    """Costs of images are not costs of patients."""
    Ledger(tmp_path / "l", declared()).close()
    with pytest.raises(LedgerError, match="registered for unit 'image'"):
        Ledger(tmp_path / "l", declared().model_copy(update={"unit": "patient"}))


def test_a_run_cannot_go_on_with_another_schedule_or_model(tmp_path: Path):
    """A run was paid for as it was admitted."""
    with Ledger(tmp_path / "l", declared()) as ledger:
        ledger.reserve("one", "schedule", "model", plan(1.0))
        for schedule, model in (("other", "model"), ("schedule", "other")):
            with pytest.raises(BadRequest, match="admitted with another schedule or model"):
                ledger.reserve("one", schedule, model, plan(1.0))


@pytest.mark.parametrize("part", ["epsilon", "delta"])
def test_of_several_registered_budgets_the_smallest_counts(part: str):
    """The order of the registrations does not matter, and under `rdp` the smallest limit counts
    too."""
    budgets = [Budget.of(declared("rdp", **{part: value})) for value in
               ((7.0, 5.0, 6.0) if part == "epsilon" else (7e-5, 5e-5, 6e-5))]  # fmt: skip
    order = budgets[0].order
    rows = [
        replace(b, order=order, limit=limit).values()
        for b, limit in zip(budgets, (0.7, 0.5, 0.6), strict=True)
    ]
    for turned in (rows, rows[::-1], [rows[1], rows[0]]):
        found = Budget.registered(turned)
        assert found.limit == 0.5
        assert (found.epsilon, found.delta) == (budgets[1].epsilon, budgets[1].delta)


@pytest.mark.parametrize(
    ("budget", "cost"),
    [
        (Budget("basic", 3.0, 1e-5), lambda part: Cost(3.0 * part, 1e-6)),
        (Budget("basic", 3.0, 1e-5), lambda part: Cost(1.0, 1e-5 * part)),
        (Budget("rdp", 3.0, 1e-5, 4, 0.5), lambda part: Cost(99.0, 1.0, 0.5 * part)),
    ],
)
def test_a_budget_is_kept_to_a_millionth(budget: Budget, cost: Callable[[float], Cost]):
    """All of it can be spent, and nothing visible beyond it."""
    assert budget.fits(cost(1.0))
    assert not budget.fits(cost(1.000001))


def test_epsilons_deltas_and_divergences_of_runs_add_up():
    """Each of the three is summed separately."""
    total = Cost(1.0, 1e-5, 0.25) + Cost(2.0, 3e-5, 0.5)
    assert total == Cost(3.0, pytest.approx(4e-5), 0.75)


def test_the_divergence_of_a_run_is_that_of_all_its_steps_and_of_discrete_noise():
    """It includes every phase, in any order, and the allowance for arithmetic once a run."""
    budget = Budget.of(declared("rdp"))
    steps = [Steps(0.1, 2.0, 3), Steps(0.3, 3.0, 5), Steps(1.0, 30.0, 1)]
    assert budget.order is not None
    wanted = sum(renyi(s, budget.order) for s in steps) + ARITHMETIC
    for turned in (steps, steps[::-1]):
        assert budget.cost(1.0, 1e-5, turned).renyi == pytest.approx(wanted, rel=1e-12)


def test_the_allowance_of_a_divergence_is_enough_at_every_order():
    """It covers x (2a - 1) / (a - 1), by which likelihoods that change by a factor of up to e^x can
    change a divergence of order a."""
    assert all(
        ARITHMETIC_EPSILON * (2 * a - 1) / (a - 1) <= ARITHMETIC for a in range(2, MAX_ORDER)
    )


def test_what_is_left_is_never_shown_larger_than_it_is():
    """This holds under both rules, and the cost of a run is never shown smaller."""
    basic = Budget("basic", 3.0, 1e-5)
    words = basic.left(Cost(2.0004, 0.9996e-6), Cost(1.0, 1e-6))
    assert words.startswith("0.999 and 9e-06 are left")
    rdp = Budget("rdp", 3.0, 1e-5, 4, 0.5)
    words = rdp.left(Cost(0.0, 0.0, 0.2504), Cost(1.0, 1e-6, 0.2501))
    assert "order 4 is 0.251, and 0.249 are left" in words


def test_spares_are_for_all_rounds_together(tmp_path: Path):
    """Two spares repeat two rounds, not each round twice. Rounds outside the plan do not exist for
    a ledger."""
    with Ledger(tmp_path / "l", declared()) as ledger:
        standing = ledger.reserve("one", "s", "m", plan(spares=2))
        for round_, attempt in ((1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (4, 0)):
            ledger.start_attempt(standing, round_, attempt, f"{round_} {attempt}")
        for round_, attempt in ((1, 2), (2, 2), (3, 1)):
            with pytest.raises(BudgetExhausted, match="all 2 spare rounds of this run are used"):
                ledger.start_attempt(standing, round_, attempt, "another")
        for outside in (0, 5):
            with pytest.raises(BadRequest, match=r"outside the admitted 1\.\.4"):
                ledger.start_attempt(standing, outside, 0, "another")


@pytest.mark.parametrize("phases", [(LONG, WIDE), (WIDE, LONG)])
def test_spares_are_charged_as_the_costliest_round_that_could_be(phases: tuple[Phase, ...]):
    """They cost the highest rate and the largest number of steps, although no single phase has
    both."""
    solved = solve(Schedule(phases=phases, spare_rounds=2), declared())
    (spare,) = [p for p in solved.phases if p.name == SPARE]
    assert (spare.sample_rate, spare.steps) == (0.6, 6)


def unsampled(rounds: int) -> Schedule:
    """Return a schedule in which every unit takes part in every step, so that epsilon has a closed
    form."""
    phase = Phase(name="all", rounds=rounds, objectives={"supervised": 1}, expected_batch_size=100)
    return Schedule(phases=(phase,), spare_rounds=0)


def closed_form(solved: PrivacyPlan, delta: float) -> float:
    """Return the exact epsilon of a plan of unsampled steps."""
    (phase,) = solved.phases
    return gaussian_epsilon(phase.noise_multiplier, phase.steps, delta)


@pytest.mark.parametrize("rounds", [1, 30])
def test_a_runs_epsilon_is_that_of_its_own_delta(rounds: int):
    """The promise is epsilon 1 at the run's delta, although the lifetime's delta is seven times as
    large."""
    privacy = declared()
    assert privacy.lifetime_delta == pytest.approx(7 * privacy.delta)
    solved = solve(unsampled(rounds), privacy)
    assert solved.delta == privacy.delta
    assert solved.epsilon <= privacy.epsilon
    exact = closed_form(solved, privacy.delta)
    assert exact <= solved.epsilon <= 1.01 * exact
    assert closed_form(solved, privacy.lifetime_delta) < 0.9 * solved.epsilon


def test_a_runs_epsilon_holds_the_allowance_for_discrete_noise():
    """The allowance is added to the accountant's epsilon of continuous noise, on the curve too."""
    solved = solve(Schedule(phases=(LONG, WIDE), spare_rounds=1), declared())
    deltas = [solved.delta, *(delta for delta, _ in solved.curve)]
    exact = epsilons([p.mechanism() for p in solved.phases], deltas)
    for reported, bare in zip([solved.epsilon, *(e for _, e in solved.curve)], exact, strict=True):
        assert reported >= bare + 0.999 * ARITHMETIC_EPSILON
