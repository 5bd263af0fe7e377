"""Epsilon of Poisson-subsampled Gaussian steps, add/remove one unit: an upper bound at every delta.

The losses of a step lie on a grid and are never too small (`client.privacy.pld.losses`). Their
composition has a known relative error, which is charged (`client.privacy.pld.tilted`). Independent
checks are dp_accounting, Opacus' accountants, the closed form of the Gaussian and an integral
without any grid (test_accounting.py and test_small_deltas.py in tests/client/privacy).

Source: Koskela et al. 2020, arXiv:1906.03049, for the composition of privacy losses.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from scipy.special import log_ndtr

from client.privacy.pld.losses import largest_loss, losses
from client.privacy.pld.tilted import Curve, curve
from medformer.common.rounding import rounded_up

ACCOUNTANT = "PLD (connect the dots, tilted FFT)"
"""Name of the method, as receipts hold it."""
GRID = 5e-4
"""Distance of two privacy losses, unless the steps need another (`grid_of`)."""
COARSE_GRID = 64 * GRID
"""The same where speed matters more than a thousandth of epsilon."""
MIN_POINTS = 16
"""Grid intervals in one standard deviation of a step's loss, at least: epsilon is then less than
0.1 % too large (docs/privacy.md)."""
MIN_POINTS_ROUGH = 3
"""The same for the first part of a search."""
MAX_WIDTH = 2.0**16
"""Grid intervals in one standard deviation of the summed loss, at most: more would take minutes."""
MAX_REACH = 2.0**18
"""Grid intervals in the largest loss of a step, at most: rarely sampled steps with little noise
have largest losses of a million standard deviations."""
MIN_DELTA = 1e-20
"""No epsilon is given at a smaller delta: the noise ends at 13.2 standard deviations, and a value
beyond has a probability of less than 1e-26 in 10^11 coordinates times steps (docs/privacy.md)."""

ARITHMETIC_EPSILON = 1e-6
"""Added to the epsilon of a plan, because the noise is discrete and the accounting is that of the
continuous Gaussian. It is enough for a million steps (docs/privacy.md)."""

MIN_THOUSANDTHS, MAX_THOUSANDTHS = 200, 100_000_000
"""Smallest and largest noise multiplier that is planned, in thousandths."""


@dataclass(frozen=True)
class Steps:
    """A number of equal steps of one mechanism."""

    sample_rate: float
    """Probability q with which each unit joins a step, independently."""
    noise_multiplier: float
    """Standard deviation of the noise over the L2 sensitivity of the clipped sum."""
    steps: int


def epsilon(mechanisms: Iterable[Steps], delta: float, *, interval: float | None = None) -> float:
    """Return an upper bound of the smallest epsilon at which all steps are (epsilon, delta)-DP.

    Args:
        mechanisms: All steps, in any order; the schedule must be fixed before the first one.
        delta: In (0, 1).
        interval: Grid of the privacy loss; `grid_of` the mechanisms if omitted. A coarser grid is
            faster and gives a larger epsilon.
    Returns:
        As `epsilons` does, for one delta.

    >>> forty = Steps(sample_rate=0.1, noise_multiplier=1.5, steps=40)
    >>> f"{epsilon([forty], 1e-5):.4f}"
    '2.2839'
    >>> epsilon([], 1e-5)
    0.0
    """
    return epsilons(mechanisms, [delta], interval=interval)[0]


def epsilons(
    mechanisms: Iterable[Steps], deltas: Iterable[float], *, interval: float | None = None
) -> list[float]:
    """Return an upper bound of epsilon at each delta; all of these pairs hold at once.

    Args:
        mechanisms: All steps, in any order; the schedule must be fixed before the first one.
        deltas: Each in (0, 1).
        interval: As in `epsilon`.
    Returns:
        An epsilon for each delta; infinity where delta is below 1e-20, or no epsilon suffices.

    >>> epsilons([Steps(0.1, 1.5, 40)], [1e-21])
    [inf]
    """
    return [max(both) for both in both_epsilons(mechanisms, deltas, interval=interval)]


def both_epsilons(
    mechanisms: Iterable[Steps], deltas: Iterable[float], *, interval: float | None = None
) -> list[tuple[float, float]]:
    """Return an upper bound of epsilon at each delta, for both directions of the adjacency.

    Args:
        mechanisms, deltas, interval: As in `epsilons`.
    Returns:
        For each delta epsilon of removing a unit, which bounds how much likelier an event is with
        the unit than without, and that of adding one, which bounds the reverse.
    """
    # Phases share one noise multiplier, so joining equal mechanisms leaves few to compose.
    equal: dict[tuple[float, float], int] = {}
    for m in mechanisms:
        key = m.sample_rate, m.noise_multiplier
        equal[key] = equal.get(key, 0) + m.steps
    parts = tuple(Steps(q, sigma, steps) for (q, sigma), steps in equal.items() if steps)
    if not parts:
        return [(0.0, 0.0) for _ in deltas]
    grid = grid_of(parts) if interval is None else interval
    return [_epsilons(parts, delta, grid) for delta in deltas]


def grid_of(
    mechanisms: Sequence[Steps], coarsest: float = GRID, points: float = MIN_POINTS
) -> float:
    """Return the grid on which a plan is solved, reported and compared with its budget.

    Args:
        mechanisms: At least one, each with at least one step.
        coarsest: Grid to begin with.
        points: Smallest number of grid intervals in a standard deviation of a step's loss.
    Returns:
        A power of two times `coarsest`; the finer, the less a step loses.

    >>> grid_of([Steps(0.1, 1.0, 100)])
    0.0005
    """
    total = math.sqrt(sum(m.steps * _variance(m) for m in mechanisms))
    steps = sum(m.steps for m in mechanisms)
    grid = coarsest
    while points * grid > total / math.sqrt(steps):
        grid /= 2
    longest = max(largest_loss(m.sample_rate, m.noise_multiplier) for m in mechanisms)
    # Memory and time have the last word: a coarser grid is still an upper bound.
    while MAX_WIDTH * grid < total or MAX_REACH * grid < longest:
        grid *= 2
    return grid


def _variance(m: Steps) -> float:
    """Return the approximate variance of one step's loss.

    It is exact for q = 1, and nearly so for small q with much noise.
    """
    inverse = 1 / m.noise_multiplier**2
    if inverse > 600:  # expm1 would overflow
        return max(inverse + 2 * math.log(m.sample_rate), 1.0)
    return math.log1p(m.sample_rate**2 * math.expm1(inverse))


def _epsilons(parts: tuple[Steps, ...], delta: float, grid: float) -> tuple[float, float]:
    """Return epsilon of removing and of adding a unit at one delta."""
    if delta < MIN_DELTA:
        return math.inf, math.inf
    # Deltas close to each other share one composition, which is cached.
    near = 10.0 ** (3 * round(math.log10(delta) / 3))
    sides = _composed(parts, grid, near)
    found = [side.epsilon(delta) for side in sides]
    if max(found) and any(side.is_loose(delta) for side in sides):
        # The best tilt can lie far beyond a large delta. With hardly any tilt the bound holds too.
        others = [side.epsilon(delta) for side in _composed(parts, grid, 1.0)]
        found = [min(pair) for pair in zip(found, others, strict=True)]
    # Without sampling there is one side, which serves both directions.
    return found[0], found[-1]


@lru_cache(maxsize=16)
def _composed(parts: tuple[Steps, ...], grid: float, near: float) -> list[Curve]:
    """Return the curves for removing a unit and for adding one, most exact around delta `near`."""
    sides = [losses(m.sample_rate, m.noise_multiplier, grid) for m in parts]
    counts = [m.steps for m in parts]
    both = max(len(side) for side in sides)
    # An unsampled part has one side only, which serves both directions.
    return [
        curve([(side[min(i, len(side) - 1)], n) for side, n in zip(sides, counts, strict=True)],
              grid, near)
        for i in range(both)
    ]  # fmt: skip


def solve_noise_multiplier(
    rates_and_steps: Sequence[tuple[float, int]],
    target_epsilon: float,
    target_delta: float,
    fixed: Sequence[Steps] = (),
) -> float:
    """Return the smallest noise multiplier, a multiple of 0.001, that keeps within the target.

    Args:
        rates_and_steps: (sample_rate, steps) of everything that will be admitted with this noise.
        target_epsilon: Largest epsilon of all steps together, `fixed` included.
        target_delta: Delta at which it is computed.
        fixed: Steps that are admitted besides, with their own noise.
    Raises:
        ValueError: No noise multiplier up to 100,000 suffices, delta is below 1e-20, or `fixed`
            alone costs more than the target.

    >>> solve_noise_multiplier([(0.1, 40)], target_epsilon=2.0, target_delta=1e-5)
    1.633
    """
    _check_target(target_epsilon, target_delta, fixed)

    def fits(thousandths: int, rough: bool = False) -> bool:
        sigma = thousandths / 1000
        parts = [*fixed, *(Steps(q, sigma, n) for q, n in rates_and_steps)]
        grid = grid_of(parts, COARSE_GRID, MIN_POINTS_ROUGH) if rough else None
        return epsilon(parts, target_delta, interval=grid) <= target_epsilon

    rough = _smallest_rough(fits)
    if rough is None:
        raise ValueError(
            f"epsilon {target_epsilon:.4g} at delta {target_delta:g} is not reachable with a "
            f"noise multiplier of at most {MAX_THOUSANDTHS // 1000}: plan fewer steps or a "
            "smaller batch"
        )
    low, reach = rough - 1, 1  # a coarse grid gives a larger epsilon: the answer is `rough` or less
    while low >= MIN_THOUSANDTHS and fits(low):
        rough, reach = low, 2 * reach
        low = max(rough - reach, MIN_THOUSANDTHS - 1)
    return smallest(low, rough, fits) / 1000


def _check_target(target_epsilon: float, target_delta: float, fixed: Sequence[Steps]) -> None:
    """Refuse a target that no noise of the other steps can meet."""
    if target_delta < MIN_DELTA:
        raise ValueError(
            f"delta {target_delta:g} is below {MIN_DELTA:g}, where no epsilon is given: choose a "
            "larger delta"
        )
    if (alone := epsilon(fixed, target_delta)) > target_epsilon:
        raise ValueError(
            f"the steps with fixed noise alone cost epsilon {rounded_up(alone)} of "
            f"{target_epsilon:.4g}: raise class_balance_noise or epsilon, or lower the epsilon of "
            "the run's `evaluation`"
        )


def _smallest_rough(fits: Callable[[int, bool], bool]) -> int | None:
    """Return the smallest noise multiplier, in thousandths, that fits on the rough grid.

    None if even the largest does not.
    """
    low, high = MIN_THOUSANDTHS - 1, 1000
    while not fits(high, True):
        if high == MAX_THOUSANDTHS:
            return None
        low, high = high, min(2 * high, MAX_THOUSANDTHS)
    return smallest(low, high, lambda thousandths: fits(thousandths, True))


def smallest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Return the smallest number above `low` that fits, by bisection.

    Args:
        low: A number that does not fit, or the lower end of the search.
        high: A number that fits.
        fits: Once true, it stays true for all larger numbers.

    >>> smallest(0, 100, lambda number: number * number >= 50)
    8
    """
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def gaussian_epsilon(noise_multiplier: float, steps: int, delta: float) -> float:
    """Return the exact epsilon of Gaussian steps without sampling, a check on the accountant.

    Args:
        noise_multiplier: Standard deviation of the noise over the sensitivity.
        steps: Number of steps.
        delta: In (0, 1).
    Source: Balle and Wang 2018, arXiv:1805.06530, theorem 8.

    >>> f"{gaussian_epsilon(2.0, 1, 1e-5):.4f} <= {epsilon([Steps(1.0, 2.0, 1)], 1e-5):.4f}"
    '1.9931 <= 1.9931'
    """
    mu = math.sqrt(steps) / noise_multiplier

    def log_delta_at(eps: float) -> float:
        """Return the logarithm of the Gaussian's delta at an epsilon."""
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
