"""Costs of each phase of a plan, for people who choose a schedule."""

from dataclasses import dataclass
from functools import lru_cache

from client.privacy.accounting import epsilon
from client.privacy.plan import PrivacyPlan


@dataclass(frozen=True)
class PhaseCost:
    """What one phase of a plan costs, for people who choose a schedule."""

    name: str
    epsilon_alone: float
    """Of this phase's steps, as if there were no other. Together they cost less than the sum."""
    epsilon_of_a_round: float | None
    """What all steps would cost more with one more round of this phase, at the same noise; None of
    a phase that has no rounds."""
    saved_by_a_round: float | None
    """What they would cost less with one round less."""
    signal_to_noise: float
    """Length of a step's clipped sum, if all drawn gradients are as long as the bound and point the
    same way, over the standard deviation of the noise in that direction."""


@lru_cache(maxsize=64)
def costs(plan: PrivacyPlan) -> tuple[PhaseCost, ...]:
    """What each phase costs; a function of the plan alone."""

    def total(changed: int, rounds: int) -> float:
        """Epsilon with so many rounds more in one phase."""
        parts = [
            p.mechanism(p.steps + (rounds * p.steps_per_round if i == changed else 0))
            for i, p in enumerate(plan.phases)
        ]
        return epsilon(parts, plan.delta)

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
