""" "Epsilon so far" is never too small from the first round on, and it never falls."""

import pytest

from client.privacy.accounting import ARITHMETIC_EPSILON, Steps, epsilon
from client.privacy.plan import solve
from client.site import Privacy
from server.protocol import Phase, Schedule
from server.protocol.receipt import epsilon_so_far, read_receipt

PRIVACY = Privacy(epsilon=4, n_public=400)


def schedule(spare_rounds: int) -> Schedule:
    """Make a schedule with many more rounds than a receipt has points."""
    many = Phase(name="a", rounds=90, local_steps=2, objectives={"supervised": 1},
                 expected_batch_size=20)  # fmt: skip
    few = Phase(name="b", rounds=7, objectives={"supervised": 1}, expected_batch_size=60)
    return Schedule(phases=(many, few), spare_rounds=spare_rounds)


@pytest.mark.parametrize("spare_rounds", [0, 3])
def test_it_is_at_least_what_the_rounds_cost_and_at_the_end_the_whole_run(spare_rounds: int):
    """It is recomputed for some rounds; the last value is what is charged, spare rounds
    included."""
    plan = solve(schedule(spare_rounds), PRIVACY)
    receipt = read_receipt(plan.to_json())
    shown = [epsilon_so_far(receipt, r, repeated=False) for r in range(1, 98)]
    assert len(plan.progress) < 40
    assert None not in shown
    assert shown == sorted(shown)  # type: ignore[type-var]
    assert shown[-1] == plan.epsilon
    if not spare_rounds:
        assert plan.progress[-1] == (97, plan.epsilon)
    first, second, *_ = plan.phases
    for r in (1, 2, 3, 50, 89, 90, 91, 96):
        now = [Steps(first.sample_rate, first.noise_multiplier, 2 * min(r, 90)),
               Steps(second.sample_rate, second.noise_multiplier, max(0, r - 90))]  # fmt: skip
        exact = epsilon(now, plan.delta) + ARITHMETIC_EPSILON
        value = shown[r - 1]
        assert value is not None
        assert exact - 1e-7 <= value <= plan.epsilon
    assert shown[0] is not None
    assert shown[0] < 0.5 * plan.epsilon


def test_a_round_that_was_trained_again_is_in_it():
    """The progress of the plan does not contain repeated rounds, so the epsilon of the whole run is
    shown, which pays for them."""
    receipt = read_receipt(solve(schedule(3), PRIVACY).to_json())
    assert epsilon_so_far(receipt, 5, repeated=True) == receipt["epsilon"]


def test_between_two_points_it_is_that_of_the_next():
    """Before the first point it is that of the first, as in receipts of earlier versions."""
    receipt = {"epsilon": 3.0, "progress": [[4, 1.0], [8, 2.0], [12, 2.5]]}
    shown = [epsilon_so_far(receipt, r, repeated=False) for r in (1, 4, 5, 8, 9, 11, 12, 13)]
    assert shown == [1.0, 1.0, 2.0, 2.0, 2.5, 2.5, 3.0, 3.0]


def test_a_baseline_without_privacy_has_none():
    """It shows no epsilon instead of a wrong one."""
    assert epsilon_so_far({"progress": [], "phases": []}, 3, repeated=False) is None
