"""The privacy loss of many steps, composed with a relative error that is bounded and charged.

A composed distribution is a product of Fourier transforms, but the fast transform errs by about
1e-16 of the LARGEST probability, and every step adds to the error: at a delta of 1e-12 the sum of
the tail would be rounding error. The losses are therefore tilted first (Chernoff's change of
measure): each probability is multiplied by exp(theta loss), with a theta that makes losses near the
epsilon in question the likeliest ones. The remaining error is bounded and added to delta
(docs/privacy.md, "Accounting").

Letters: K losses of a step, N points of the transform.

Source: Alghamdi et al. 2023, arXiv:2208.09595, whose saddle-point accountant tilts for the same
reason.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import lfilter

from client.privacy.pld.losses import Array, Losses

UNIT = 2.0**-53
"""Relative rounding error of float64."""
CUT = 1e-18
"""Probability of a loss above the window under the tilted distribution, and of one below it."""
MIN_LOG = -200.0
"""Logarithm of a negligible probability; smaller floats are denormal and slow."""
SUMMATION = 1e-9
"""Largest relative error of a sum of positive numbers over the window."""
MAX_LOOSE = 1e-3
"""Largest charge for errors, relative to the bound, before another tilt is tried."""
THETAS = 2.0**-20, 2.0**20
"""Range in which the best tilt is searched."""
DEVIATIONS = 0.3, 1.0, 3.0, 9.0, 27.0, 81.0, 243.0
"""Chernoff rates that are tried for the bounds of a window, times the standard deviation."""

Part = tuple[Losses, int]
"""One mechanism's losses, and the number of its steps."""


@dataclass(frozen=True)
class Curve:
    """Upper bound of delta as a function of epsilon."""

    epsilons: Array
    """Points of the grid, (N,) ascending."""
    log_finite: Array
    """Logarithm of the bound at each epsilon, (N,), without the infinite losses."""
    infinite: float
    """Probability of an infinite loss, which is a part of delta at every epsilon."""
    largest: float
    """Sum of the largest finite losses."""
    loose: NDArray[np.bool_]
    """True where the charge for errors is more than a thousandth of the bound, (N,)."""

    def is_loose(self, delta: float) -> bool:
        """Tell whether the error, or the end of the window, determines epsilon.

        Args:
            delta: The delta at which epsilon is asked for.
        """
        found = self._fitting(delta)
        if found is None:
            return False
        first = found[1]
        return first is None or first == 0 or bool(self.loose[first - 1])

    def epsilon(self, delta: float) -> float:
        """Return the smallest epsilon, 0 or more, at which the bound is at most `delta`.

        Args:
            delta: In (0, 1).
        Returns:
            Epsilon; infinity if the infinite losses alone exceed `delta`.
        """
        if (found := self._fitting(delta)) is None:
            return math.inf
        log_left, k = found
        if k is None:  # only a loss larger than all would exceed it
            return max(0.0, self.largest)
        high = float(self.epsilons[k])
        if k == 0 or high <= 0:
            return max(0.0, high)
        # Between two grid points the divergence of losses on a grid is linear in e^epsilon.
        low = float(self.epsilons[k - 1])
        above, below = (float(log) - log_left for log in self.log_finite[k - 1 : k + 1])
        share = math.expm1(-above) / math.expm1(below - above)
        return max(0.0, min(high, low + math.log1p(share * math.expm1(high - low))))

    def _fitting(self, delta: float) -> tuple[float, int | None] | None:
        """Return the logarithm of the rest of delta, and the first point that keeps it.

        None if the infinite losses leave no rest.
        """
        left = delta - self.infinite
        if left <= 0:
            return None
        fitting = np.flatnonzero(self.log_finite <= math.log(left))
        return math.log(left), int(fitting[0]) if len(fitting) else None


def curve(parts: Sequence[Part], grid: float, delta: float) -> Curve:
    """Compose all steps of one direction.

    Args:
        parts: At least one mechanism, all on the same grid.
        grid: Distance of two losses.
        delta: The delta at which the bound is tightest; it holds at every other delta too.
    Returns:
        An upper bound of delta at every epsilon of the window.
    Source: Alghamdi et al. 2023, arXiv:2208.09595, for the tilt.
    """
    infinite = sum(n * losses.infinite for losses, n in parts) * (1 + SUMMATION)
    if infinite >= delta:  # no epsilon is large enough
        return Curve(np.zeros(1), np.zeros(1), infinite, math.inf, np.zeros(1, dtype=bool))
    theta = _best_tilt(parts, grid, delta)
    tilted = [_tilted(losses, theta * grid) for losses, _ in parts]
    log_mass = sum(n * log for (log, _), (_, n) in zip(tilted, parts, strict=True))
    weights = [w for _, w in tilted]
    first, last = _window(parts, weights, theta, log_mass, grid)
    probability, error = _convolved(parts, weights, first, last - first + 1)

    # A tilted loss that lies m intervals beyond epsilon adds (1 - e^(-m grid)) e^(-theta m grid)
    # to delta, which is r^m - s^m. The filters below sum positive numbers only, so nothing cancels.
    r, s = math.exp(-theta * grid), math.exp(-(1 + theta) * grid)
    beyond = np.concatenate(([0.0], probability[:0:-1])) + math.exp(MIN_LOG)
    finite = lfilter([-r * math.expm1(-grid)], [1.0, -r], lfilter([1.0], [1.0, -s], beyond))[::-1]
    tail = lfilter([r], [1.0, -r], beyond)[::-1]
    terms = min(float(len(probability)), 1 + 1 / (grid * theta * (1 + theta)))
    bound = finite * (1 + SUMMATION) + _rounding(parts, weights, theta * grid) * tail
    bound += error * terms + CUT
    epsilons = np.arange(first, last + 1, dtype=np.float64) * grid
    largest = grid * sum(n * int(losses.index[-1]) for losses, n in parts)
    log_finite = log_mass - theta * epsilons + np.log(bound)
    loose = finite * (1 + MAX_LOOSE) < bound
    return Curve(epsilons, np.asarray(log_finite), infinite, largest, np.asarray(loose))


def _best_tilt(parts: Sequence[Part], grid: float, delta: float) -> float:
    """Return the tilt of the smallest Chernoff bound of delta, e^(log_mass - theta epsilon).

    The search uses blocks of losses: any tilt is valid, so the best one need not be exact.
    """
    low, high = (math.log2(theta) for theta in THETAS)
    # The excess grows with theta, so a bisection over its logarithm finds the best tilt.
    while high - low > 0.05:
        theta = 2.0 ** ((low + high) / 2)
        excess = 0.0
        for losses, steps in parts:
            log_mass, weights = _tilted_of(*losses.blocks, theta * grid)
            excess += steps * (theta * grid * float(weights @ losses.blocks[1]) - log_mass)
        low, high = (
            (math.log2(theta), high) if excess < -math.log(delta) else (low, math.log2(theta))
        )
    return float(2.0**high)


def _tilted(losses: Losses, tilt: float) -> tuple[float, Array]:
    """Tilt one step's losses; result as of `_tilted_of`."""
    return _tilted_of(losses.log, losses.index, tilt)


def _tilted_of(log: Array, index: Array, tilt: float) -> tuple[float, Array]:
    """Return the logarithm of the sum of mass x e^(tilt x index), and its terms' shares, (K,)."""
    exponent = log + tilt * index
    top = float(exponent.max())
    weights: Array = np.exp(np.maximum(exponent - top, MIN_LOG))
    total = float(weights.sum())
    return top + math.log(total), weights / total


def _window(
    parts: Sequence[Part], weights: Sequence[Array], theta: float, log_mass: float, grid: float
) -> tuple[int, int]:
    """Return the first and last grid point between which all but `CUT` of the tilted losses lie.

    Both are Chernoff bounds.
    """
    variance = 0.0
    for (losses, steps), w in zip(parts, weights, strict=True):
        variance += steps * float(w @ (losses.index - float(w @ losses.index)) ** 2)
    deviation = max(math.sqrt(variance), 1.0)
    ends = []
    for sign in (1, -1):
        # Every rate gives a valid bound, so the best one may be chosen on blocks.
        rates = [sign * deviations / deviation for deviations in DEVIATIONS]
        reach = {
            rate: (_log_moment(parts, theta * grid + rate, blocks=True) - log_mass) / rate
            - math.log(CUT) / rate
            for rate in rates
        }
        rate = min(rates, key=lambda rate: sign * reach[rate])
        ends.append((_log_moment(parts, theta * grid + rate) - log_mass - math.log(CUT)) / rate)
    last = min(ends[0], float(sum(n * int(losses.index[-1]) for losses, n in parts)))
    first = max(ends[1], float(sum(n * int(losses.index[0]) for losses, n in parts)))
    return math.floor(first), math.ceil(last)


def _log_moment(parts: Sequence[Part], tilt: float, blocks: bool = False) -> float:
    """Return the logarithm of E exp(tilt x loss) of all steps; on blocks, an estimate."""
    return sum(
        n * _tilted_of(*(losses.blocks if blocks else (losses.log, losses.index)), tilt)[0]
        for losses, n in parts
    )


def _convolved(
    parts: Sequence[Part], weights: Sequence[Array], first: int, count: int
) -> tuple[Array, float]:
    """Return the tilted probabilities of the composed losses, and a bound of each one's error.

    The transform is circular, so losses outside of the window are added within it. That can only
    make a probability too large; the losses missing above the window are part of `CUT`.

    Args:
        parts: Losses and number of steps of each mechanism.
        weights: (K,) tilted probabilities of one step, for each part.
        first: Loss of the first entry, in grid intervals.
        count: Number of losses, N.
    Returns:
        (N,) probabilities, and the bound.
    """
    size = next_fast_len(count, real=True)
    # Error of one transform of numbers whose sum is 1.
    one = 16 * UNIT * math.log2(max(size, 2))
    log_size, log_bound, angle = (np.zeros(size // 2 + 1) for _ in range(3))
    start = 0
    with np.errstate(divide="ignore"):
        for (losses, steps), w in zip(parts, weights, strict=True):
            # Centred losses have small phases, which are exact.
            centre = round(float(w @ losses.index))
            start += steps * centre
            places: NDArray[np.int64] = (losses.index.astype(np.int64) - centre) % size
            transform = rfft(np.bincount(places, weights=w, minlength=size))
            modulus = np.abs(transform)
            log_size += steps * np.log(modulus)
            log_bound += steps * np.log(modulus + one)
            angle += steps * np.angle(transform)
    product, upper = np.exp(log_size), np.exp(log_bound)
    angle[product < 1e-40] = 0.0  # the phase of a negligible value is noise
    probability = np.maximum(irfft(product * np.exp(1j * angle), size), 0.0)
    inverse = product * (one + 4 * UNIT * np.abs(angle))
    error = 2 * float(np.sum(upper - product + inverse)) / size
    return np.roll(probability, (start - first) % size)[:count], error


def _rounding(parts: Sequence[Part], weights: Sequence[Array], tilt: float) -> float:
    """Return the relative error of all steps' probabilities, times the mass beyond epsilon."""
    return sum(
        n * UNIT * (128 + 4 * abs(tilt) * float(w @ np.abs(losses.index)))
        for (losses, n), w in zip(parts, weights, strict=True)
    )
