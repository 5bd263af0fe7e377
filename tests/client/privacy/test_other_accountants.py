"""Two other accountants stand beside ours, and a plan that they contradict is refused."""

from dataclasses import replace

import pytest

from client.privacy import others
from client.privacy.accounting import Steps, epsilon
from client.privacy.others import AccountantsDisagreeError, other_epsilons
from client.privacy.plan import PrivacyPlan, solve
from client.site import Privacy
from client.trainable import compared
from server.protocol import Phase, Schedule
from server.protocol.receipt import read_receipt

DELTA = 1e-6
CASES = [
    [Steps(0.15, 2.1, 60)],
    [Steps(0.1, 1.0, 30), Steps(0.2, 1.0, 40), Steps(1.0, 20.0, 1)],
    [Steps(0.01, 0.8, 2000)],
    [Steps(0.9, 0.4, 5)],
]
PHASE = Phase(name="all", rounds=20, objectives={"supervised": 1}, expected_batch_size=100)
PLAN = solve(Schedule(phases=(PHASE,), spare_rounds=1), Privacy(epsilon=3, n_public=1000))


@pytest.mark.parametrize("steps", CASES)
def test_both_are_upper_bounds_close_to_ours(steps: list[Steps]):
    """PRV lies above by at most two of its errors, RDP by less than a fifth."""
    ours = epsilon(steps, DELTA)
    (prv, high), (rdp, loose) = other_epsilons(steps, ours, DELTA)
    assert (prv.split()[0], rdp.split()[0]) == ("PRV", "RDP")
    assert ours <= high <= ours + 0.02 * max(1, ours)
    assert ours <= loose <= 1.2 * ours


@pytest.mark.parametrize("steps", CASES)
def test_an_epsilon_that_is_too_small_by_more_than_the_error_is_refused(steps: list[Steps]):
    """3 % are found, and the text says what to do with them."""
    ours = epsilon(steps, DELTA)
    with pytest.raises(AccountantsDisagreeError, match=r"PLD has epsilon .* and PRV proves"):
        other_epsilons(steps, 0.97 * ours, DELTA)


def test_a_bound_by_rdp_below_the_truth_is_found_too(monkeypatch: pytest.MonkeyPatch):
    """A disagreement says that some accountant is wrong: none of them is relied on."""
    ours = epsilon(CASES[0], DELTA)
    monkeypatch.setattr(others, "_rdp", lambda *args: 0.9 * ours)
    with pytest.raises(AccountantsDisagreeError, match="RDP"):
        other_epsilons(CASES[0], ours, DELTA)


def test_prv_is_left_out_where_it_has_no_answer(monkeypatch: pytest.MonkeyPatch):
    """At tiny deltas and huge epsilons RDP alone stands beside ours; no steps need neither."""
    assert [name for name, _ in other_epsilons(CASES[0], 99.0, DELTA)] == ["RDP (Opacus)"]
    assert [name for name, _ in other_epsilons(CASES[0], 9.0, 1e-12)] == ["RDP (Opacus)"]
    assert other_epsilons([Steps(0.1, 1.0, 0)], 0.0, DELTA) == ()

    def gives_up(*args: object, **kwargs: object) -> float:
        raise RuntimeError("Discrete mean differs significantly from continuous mean.")

    monkeypatch.setattr("opacus.accountants.PRVAccountant.get_epsilon", gives_up)
    steps = [Steps(0.1, 1.234, 7)]
    assert [name for name, _ in other_epsilons(steps, 9.0, DELTA)] == ["RDP (Opacus)"]


def test_a_plan_that_is_admitted_carries_them(monkeypatch: pytest.MonkeyPatch):
    """In the receipt, on the ledger and for the coordinator; a plan that claims less is refused."""
    plan = compared(PLAN)
    assert [name for name, _ in plan.others] == ["PRV (Opacus)", "RDP (Opacus)"]
    assert PrivacyPlan.from_json(plan.to_json()) == plan
    assert read_receipt(plan.to_json())["others"] == plan.others
    with pytest.raises(ValueError, match="the accountants disagree"):
        compared(replace(PLAN, epsilon=0.95 * PLAN.epsilon))
