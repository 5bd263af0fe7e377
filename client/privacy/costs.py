"""Costs of each phase of a plan, for people who choose a schedule."""

from dataclasses import dataclass
from functools import lru_cache

from client.privacy.accounting import epsilon
from client.privacy.plan import PrivacyPlan


@dataclass(frozen=True)
class PhaseCost:
    """The cost of one phase of a plan, for people who choose a schedule."""

    name: str
    epsilon_alone: float
    """Epsilon of this phase's steps alone. All phases together cost less than the sum."""
    epsilon_of_a_round: float | None
    """Increase of the run's epsilon with one more round of this phase, at the same noise; None for
    a phase without rounds."""
    saved_by_a_round: float | None
    """Decrease of the run's epsilon with one round less; None for a phase without rounds."""
    signal_to_noise: float
    """Length of a step's clipped sum, if all drawn gradients have the length of the bound and point
    the same way, over the standard deviation of the noise in that direction."""


@lru_cache(maxsize=64)
def costs(plan: PrivacyPlan) -> tuple[PhaseCost, ...]:
    """Return the cost of each phase; a function of the plan alone.

    Args:
        plan: A solved plan.
    Returns:
        One cost for each phase, in the plan's order.
    """

    def total(changed: int, rounds: int) -> float:
        """Return the run's epsilon with `rounds` more rounds in the phase number `changed`."""
        parts = [
            p.mechanism(p.steps + (rounds * p.steps_per_round if i == changed else 0))
            for i, p in enumerate(plan.phases)
        ]
        return epsilon(parts, plan.delta)

    # Differences of two totals: epsilon is not additive over phases.
    now = total(0, 0)
    return tuple(
        PhaseCost(
            name=p.name,
            epsilon_alone=epsilon([p.mechanism()], plan.delta),
            epsilon_of_a_round=total(i, 1) - now if p.rounds else None,
            saved_by_a_round=now - total(i, -1) if p.rounds else None,
            signal_to_noise=p.expected_batch_size / p.noise_multiplier,
        )
        for i, p in enumerate(plan.phases)
    )
