"""Epsilon of Poisson-subsampled Gaussian steps, add/remove one unit: an upper bound at every delta.

The losses of a step lie on a grid and are never too small (`client.privacy.losses`); their
composition has a known relative error, which is charged (`client.privacy.tilted`). dp_accounting,
Opacus' accountants, the Gaussian's closed form and an integral without any grid are the independent
checks (tests/client/privacy/test_accounting.py, tests/client/privacy/test_small_deltas.py).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from scipy.special import log_ndtr

from client.privacy.losses import largest_loss, losses
from client.privacy.tilted import Curve, curve
from medformer.common.rounding import rounded_up

ACCOUNTANT = "PLD (connect the dots, tilted FFT)"
GRID = 5e-4
"""Distance of two privacy losses, unless the steps ask for another (`grid_of`)."""
COARSEST = 64 * GRID
"""The same where an epsilon may be a thousandth too large for speed."""
POINTS = 16
"""Grid intervals in a standard deviation of a step's loss, at least: epsilon is then less than
0.1 % too large (docs/privacy.md)."""
ROUGHLY = 3
"""The same for the first part of a search."""
WIDEST = 2.0**16
"""Grid intervals in a standard deviation of all steps' loss, at most: more would take minutes."""
LONGEST = 2.0**18
"""Grid intervals in the largest loss of a step, at most: those of rarely sampled steps with little
noise are a million times as large as their standard deviation."""
LEAST_DELTA = 1e-20
"""No epsilon is given at a smaller delta: the noise ends at 13.2 standard deviations, which in
10^11 coordinates times steps has a probability of less than 1e-26 (docs/privacy.md)."""

ARITHMETIC_EPSILON = 1e-6
"""Added to the epsilon of a plan: the noise is discrete, the accounting that of the continuous
Gaussian. Enough for a million steps (docs/privacy.md)."""

LEAST, MOST = 200, 100_000_000
"""Noise multipliers that are planned, in thousandths."""


@dataclass(frozen=True)
class Steps:
    """A number of equal steps of one mechanism."""

    sample_rate: float
    """q: each unit joins a step with this probability, independently."""
    noise_multiplier: float
    """Standard deviation of the noise over the L2 sensitivity of the clipped sum."""
    steps: int


def epsilon(mechanisms: Iterable[Steps], delta: float, *, interval: float | None = None) -> float:
    """Smallest epsilon (as an upper bound) for which all steps together are (epsilon, delta)-DP.

    Args:
        mechanisms: All steps, in any order; the schedule was fixed before the first.
        delta: In (0, 1).
        interval: Grid of the privacy loss, `grid_of` the mechanisms if left out; a coarser one is
            faster and gives a larger epsilon.
    """
    return epsilons(mechanisms, [delta], interval=interval)[0]


def epsilons(
    mechanisms: Iterable[Steps], deltas: Iterable[float], *, interval: float | None = None
) -> list[float]:
    """The same at several deltas: all of these pairs hold at once.

    Args:
        mechanisms: All steps, in any order; the schedule was fixed before the first.
        deltas: Each in (0, 1).
        interval: As in `epsilon`.
    Returns:
        An epsilon for each delta; infinity where delta is below 1e-20, or no epsilon suffices.
    """
    equal: dict[tuple[float, float], int] = {}
    for m in mechanisms:
        key = m.sample_rate, m.noise_multiplier
        equal[key] = equal.get(key, 0) + m.steps
    parts = tuple(Steps(q, sigma, steps) for (q, sigma), steps in equal.items() if steps)
    if not parts:
        return [0.0 for _ in deltas]
    grid = grid_of(parts) if interval is None else interval
    return [_epsilon(parts, delta, grid) for delta in deltas]


def grid_of(mechanisms: Sequence[Steps], coarsest: float = GRID, points: float = POINTS) -> float:
    """The grid that decides: a plan is solved, reported and held against its budget on this one.

    A power of two times `GRID`, the finer the less a step loses.
    """
    total = math.sqrt(sum(m.steps * _variance(m) for m in mechanisms))
    steps = sum(m.steps for m in mechanisms)
    grid = coarsest
    while points * grid > total / math.sqrt(steps):
        grid /= 2
    longest = max(largest_loss(m.sample_rate, m.noise_multiplier) for m in mechanisms)
    while WIDEST * grid < total or LONGEST * grid < longest:
        grid *= 2
    return grid


def _variance(m: Steps) -> float:
    """About the variance of one step's loss: exact for q = 1, and for small q with much noise."""
    inverse = 1 / m.noise_multiplier**2
    if inverse > 600:
        return max(inverse + 2 * math.log(m.sample_rate), 1.0)
    return math.log1p(m.sample_rate**2 * math.expm1(inverse))


def _epsilon(parts: tuple[Steps, ...], delta: float, grid: float) -> float:
    if delta < LEAST_DELTA:
        return math.inf
    near = 10.0 ** (3 * round(math.log10(delta) / 3))
    sides = _composed(parts, grid, near)
    found = max(side.epsilon(delta) for side in sides)
    if found and any(side.is_loose(delta) for side in sides):
        # Chernoff's tilt may lie far beyond a large delta; with hardly any, the bound holds, too.
        found = min(found, max(side.epsilon(delta) for side in _composed(parts, grid, 1.0)))
    return found


@lru_cache(maxsize=16)
def _composed(parts: tuple[Steps, ...], grid: float, near: float) -> list[Curve]:
    """Curves for removing a unit and for adding one, the most exact around the delta `near`."""
    sides = [losses(m.sample_rate, m.noise_multiplier, grid) for m in parts]
    counts = [m.steps for m in parts]
    both = max(len(side) for side in sides)
    return [
        curve([(side[min(i, len(side) - 1)], n) for side, n in zip(sides, counts, strict=True)],
              grid, near)
        for i in range(both)
    ]  # fmt: skip


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
        ValueError: Not reachable with a noise multiplier of at most 100,000, delta is below
            1e-20, or `fixed` alone costs more.
    """
    if target_delta < LEAST_DELTA:
        raise ValueError(
            f"delta {target_delta:g} is below {LEAST_DELTA:g}, where no epsilon is given: choose a "
            "larger delta"
        )
    if (alone := epsilon(fixed, target_delta)) > target_epsilon:
        raise ValueError(
            f"what has noise of its own costs epsilon {rounded_up(alone)} of {target_epsilon:.4g} "
            "already: raise class_balance_noise or epsilon"
        )

    def fits(thousandths: int, rough: bool = False) -> bool:
        sigma = thousandths / 1000
        parts = [*fixed, *(Steps(q, sigma, n) for q, n in rates_and_steps)]
        grid = grid_of(parts, COARSEST, ROUGHLY) if rough else None
        return epsilon(parts, target_delta, interval=grid) <= target_epsilon

    low, high = LEAST - 1, 1000
    while not fits(high, rough=True):
        if high == MOST:
            raise ValueError(
                f"epsilon {target_epsilon:.4g} at delta {target_delta:g} is not reachable with a "
                f"noise multiplier of at most {MOST // 1000}: plan fewer steps or a smaller batch"
            )
        low, high = high, min(2 * high, MOST)
    rough = smallest(low, high, lambda sigma: fits(sigma, rough=True))
    # A coarse grid gives a larger epsilon: the answer is `rough` or somewhat less.
    low, reach = rough - 1, 1
    while low >= LEAST and fits(low):
        rough, reach = low, 2 * reach
        low = max(rough - reach, LEAST - 1)
    return smallest(low, rough, fits) / 1000


def smallest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Smallest number above `low` that fits, by bisection; `high` does, and so do all above."""
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def gaussian_epsilon(noise_multiplier: float, steps: int, delta: float) -> float:
    """Exact epsilon of `steps` unsubsampled Gaussians (Balle and Wang 2018, arXiv:1805.06530)."""
    mu = math.sqrt(steps) / noise_multiplier

    def log_delta_at(eps: float) -> float:
        present = float(log_ndtr(mu / 2 - eps / mu))
        absent = eps + float(log_ndtr(-mu / 2 - eps / mu))
        return present + math.log(-math.expm1(absent - present)) if absent < present else -math.inf

    low, high = 0.0, 1.0
    while log_delta_at(high) > math.log(delta):
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if log_delta_at(middle) > math.log(delta) else (low, middle)
    return high
