"""Epsilon of Poisson-subsampled Gaussian steps, add/remove one unit.

The guaranteed number is the PLD composition of dp_accounting (Koskela et al. 2020; Doroshenko et
al. 2022, pessimistic "connect the dots" estimate), so it is an upper bound. Opacus' PRV and RDP
accountants are the independent check (tests/client/test_accounting.py).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

ACCOUNTANT = f"PLD (dp-accounting {version('dp-accounting')})"
FINE, COARSE = 5e-4, 1e-3
"""Discretisation of the privacy loss: for reported values, and while searching. At epsilon 2 to 8
the finer one reports 2e-6 too much, relative, and never too little."""

ARITHMETIC_EPSILON = 1e-6
"""Added to the epsilon of a plan: the noise is discrete, the accounting that of the continuous
Gaussian. Enough for a million steps (docs/privacy.md)."""


@dataclass(frozen=True)
class Steps:
    """A number of equal steps of one mechanism."""

    sample_rate: float
    """q: each unit joins a step with this probability, independently."""
    noise_multiplier: float
    """Standard deviation of the noise over the L2 sensitivity of the clipped sum."""
    steps: int


def epsilon(mechanisms: Iterable[Steps], delta: float, *, interval: float = FINE) -> float:
    """Smallest epsilon (as an upper bound) for which all steps together are (epsilon, delta)-DP.

    Args:
        mechanisms: All steps, in any order; the schedule was fixed before the first.
        delta: In (0, 1).
        interval: Discretisation of the privacy loss; the error grows with it, upwards only.
    """
    return epsilons(mechanisms, [delta], interval=interval)[0]


def epsilons(
    mechanisms: Iterable[Steps], deltas: Iterable[float], *, interval: float = FINE
) -> list[float]:
    """The same at several deltas, from one composition: all of these pairs hold at once.

    Args:
        mechanisms: All steps, in any order; the schedule was fixed before the first.
        deltas: Each in (0, 1).
        interval: Discretisation of the privacy loss; the error grows with it, upwards only.
    Returns:
        An epsilon for each delta; infinity where delta is below what the discretisation cut off.
    """
    equal: dict[tuple[float, float], int] = {}
    for m in mechanisms:
        equal[m.sample_rate, m.noise_multiplier] = (
            equal.get((m.sample_rate, m.noise_multiplier), 0) + m.steps
        )
    composed = None
    for (rate, sigma), steps in equal.items():
        if steps:
            part = _composed(rate, sigma, steps, interval)
            composed = part if composed is None else composed.compose(part)
    if composed is None:
        return [0.0 for _ in deltas]
    return [float(composed.get_epsilon_for_delta(delta)) for delta in deltas]


@lru_cache(maxsize=16)
def _composed(sample_rate: float, noise_multiplier: float, steps: int, interval: float) -> Any:
    return _loss_distribution(sample_rate, noise_multiplier, interval).self_compose(steps)


@lru_cache(maxsize=64)
def _loss_distribution(sample_rate: float, noise_multiplier: float, interval: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier, value_discretization_interval=interval, sampling_prob=sample_rate
    )


def solve_noise_multiplier(
    rates_and_steps: list[tuple[float, int]],
    target_epsilon: float,
    target_delta: float,
    fixed: Sequence[Steps] = (),
) -> float:
    """Smallest noise multiplier, in steps of 0.001 rounded up, that keeps within the target.

    Args:
        rates_and_steps: (sample_rate, steps) of everything that will be admitted.
        fixed: What is admitted besides, with noise of its own.
    Raises:
        ValueError: Not reachable with a noise multiplier of at most 1,000, or `fixed` alone costs
            more.
    """
    if (alone := epsilon(fixed, target_delta, interval=COARSE)) > target_epsilon:
        raise ValueError(
            f"what has noise of its own costs epsilon {alone:.3g} of {target_epsilon:.4g} already: "
            "raise class_balance_noise or epsilon"
        )

    def fits(thousandths: int, interval: float) -> bool:
        sigma = thousandths / 1000
        parts = [*fixed, *(Steps(q, sigma, n) for q, n in rates_and_steps)]
        return epsilon(parts, target_delta, interval=interval) <= target_epsilon

    rough_grid = max(COARSE, min(0.01, target_epsilon / 800))
    high = 1000
    while not fits(high, rough_grid):
        high *= 2
        if high > 1_000_000:
            raise ValueError(
                f"epsilon {target_epsilon:.4g} at delta {target_delta:g} is not reachable with a "
                "noise multiplier of at most 1000: plan fewer steps or a smaller batch"
            )
    rough = smallest(LEAST - 1, high, lambda sigma: fits(sigma, rough_grid))
    # A finer grid gives a smaller epsilon, so `rough` fits; the answer is a little below it.
    low, reach = rough - 2, 2
    while low >= LEAST and fits(low, COARSE):
        rough, reach = low, 2 * reach
        low = rough - reach
    return smallest(max(low, LEAST - 1), rough, lambda sigma: fits(sigma, COARSE)) / 1000


LEAST = 200
"""Less noise than a multiplier of 0.2, in thousandths, is never planned."""


def smallest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Smallest number above `low` that fits, by bisection; `high` does, and so do all above."""
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def gaussian_epsilon(noise_multiplier: float, steps: int, delta: float) -> float:
    """Exact epsilon of `steps` unsubsampled Gaussians (Balle and Wang 2018, arXiv:1805.06530)."""
    mu = math.sqrt(steps) / noise_multiplier

    def normal_cdf(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    def delta_at(eps: float) -> float:
        return normal_cdf(mu / 2 - eps / mu) - math.exp(eps) * normal_cdf(-mu / 2 - eps / mu)

    low, high = 0.0, 1.0
    while delta_at(high) > delta:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_at(middle) > delta else (low, middle)
    return high
