"""Holds every claim of a receipt against its steps: none may promise more than they keep.

A claim may be larger than what this version computes: another version of the accountant may have
been less tight. It may not be smaller.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from client.privacy.accounting import ARITHMETIC_EPSILON, Steps, epsilons
from client.privacy.meaning import BestAttack
from client.privacy.others import other_epsilons
from client.privacy.plan import PrivacyPlan, recomputed
from medformer.common.rounding import exact, rounded_up
from server.protocol import Schedule
from simulations.verification.reading import strict_json

RELATIVE = 1e-6
"""Relative difference of two results of the same arithmetic on different machines."""
SHARES = 2e-3
"""Largest difference of two bounds of what an attack finds: versions read the curve at other
deltas."""
OTHERS = 0.02
"""Relative difference of two versions of another accountant."""
NOISE = 1e-2, 1e7
"""Smallest and largest noise multiplier that is examined."""
RATE = 1e-9
"""Smallest sample rate that is examined."""


@lru_cache(maxsize=256)
def faults(receipt: str, schedule_text: str) -> tuple[tuple[str, ...], str]:
    """Return in what a receipt promises too much, and what it costs.

    Args:
        receipt: `Receipt.to_json`.
        schedule_text: The run's schedule as JSON.
    Returns:
        The faults, none if it keeps what it promises; and its cost in words.
    Raises:
        ValueError: A text cannot be read, or the steps are not those of the schedule.
    """
    strict_json(receipt)
    plan = PrivacyPlan.from_json(receipt)
    for phase in plan.phases:
        fits = NOISE[0] <= phase.noise_multiplier <= NOISE[1]
        if not fits or not RATE <= phase.sample_rate <= 1 or not 0 <= phase.steps < 2**31:
            raise ValueError(f"phase {phase.name!r} has noise or steps that nobody plans")
    if not 1e-20 < plan.delta < 0.5:
        raise ValueError(f"delta {exact(plan.delta)} is none that is ever planned")
    again = recomputed(plan, Schedule.model_validate_json(schedule_text))
    steps = [phase.mechanism() for phase in plan.phases]
    others = other_epsilons(steps, again.epsilon - ARITHMETIC_EPSILON, plan.delta)
    found = [*_costs(plan, again), *_attacks(plan, steps), *_others(plan, others)]
    beside = ", ".join(f"{method} {rounded_up(value)}" for method, value in others) or "none"
    cost = f"epsilon {rounded_up(plan.epsilon)} at delta {exact(plan.delta)} follows from its "
    return tuple(dict.fromkeys(found)), f"{cost}{plan.steps} steps; other accountants: {beside}"


def _costs(plan: PrivacyPlan, again: PrivacyPlan) -> Iterator[str]:
    """Compare epsilons, at the run's delta and at others."""
    if (plan.unit, plan.adjacency, plan.colluders) != (
        again.unit,
        again.adjacency,
        again.colluders,
    ):
        yield "unit, adjacency or colluders"
    for name in ("epsilon", "epsilon_few_collude", "epsilon_all_collude"):
        if not _at_least(getattr(plan, name), getattr(again, name)):
            yield f"{name} (it is {_shown(getattr(again, name))})"
    deltas = [delta for delta, _ in plan.curve]
    if len(set(deltas)) < len(deltas) or not all(0 < delta < 1 for delta in deltas):
        yield "curve"
    else:
        steps = [phase.mechanism() for phase in plan.phases]
        true = epsilons(steps, deltas)
        if not all(_at_least(e, t) for (_, e), t in zip(plan.curve, true, strict=True)):
            yield "curve"
    # Progress is computed on a coarse grid, and promises nothing.
    known = dict(again.progress)
    if any(
        value < 0.99 * known.get(number, 0.0) or not value <= plan.epsilon
        for number, value in plan.progress
    ):
        yield "progress"


def _attacks(plan: PrivacyPlan, steps: Sequence[Steps]) -> Iterator[str]:
    """Compare what an attacker could find; plans of earlier versions say nothing of it."""
    if not plan.roc and not plan.detected and plan.mu is None and not plan.others:
        return
    attack = BestAttack.on(steps)
    true = attack.detected([alarms for alarms, _ in plan.detected])
    if not plan.detected or any(
        share < bound - SHARES for (_, share), bound in zip(plan.detected, true, strict=True)
    ):
        yield "detected"
    corners = np.array(plan.roc, dtype=np.float64).reshape(-1, 2)
    whole = len(corners) > 1 and tuple(corners[-1]) == (1.0, 1.0) and corners[0][0] == 0
    if not whole or (np.diff(corners, axis=0) < 0).any():
        yield "roc"
    else:
        # Two broken lines differ most at a corner of one of them.
        alarms = np.concatenate([corners[:, 0], [a for a, _ in attack.roc()]])
        bound = np.array(attack.detected(list(alarms)))
        if (np.interp(alarms, *corners.T) < bound - SHARES).any():
            yield "roc"
    if plan.mu is None:
        # Where no mu is a promise, none is made.
        if math.isfinite(attack.mu):
            yield "mu"
    elif not plan.mu >= attack.mu * (1 - OTHERS):
        yield f"mu (it is {_shown(attack.mu)})"


def _others(plan: PrivacyPlan, others: Sequence[tuple[str, float]]) -> Iterator[str]:
    """Compare the bounds by other accountants."""
    true = dict(others)
    for name, value in plan.others:
        if name in true and not value >= true[name] * (1 - OTHERS):
            yield f"{name} (it is {_shown(true[name])})"


def _at_least(claimed: float | None, true: float | None) -> bool:
    """Tell whether a claim is no smaller than the truth, which has to be finite."""
    if claimed is None or true is None:
        return claimed is true
    return math.isfinite(true) and claimed >= true - RELATIVE * max(1.0, true)


def _shown(value: float | None) -> str:
    if value is None:
        return "not claimed"
    return rounded_up(value) if math.isfinite(value) else "infinite"
