"""The privacy loss of one Poisson-subsampled Gaussian step on a grid, never too small.

"Connect the dots": the probability between two grid points is split over both so that the mass
under both distributions is preserved. The hockey-stick divergence of the result equals the true one
at the grid points and exceeds it between them.

Letters: K grid points, q the sample rate, sigma the noise multiplier.

Source: Doroshenko et al. 2022, arXiv:2207.04380, algorithm 1.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]

TAIL = 13.2
"""Standard deviations of noise that are considered. Values beyond, with a probability of 2^-131,
count as a loss of infinity; the sampler of the noise ends there too (`client.privacy.discrete`)."""
BLOCKS = 2048
"""Number of neighbourhoods that stand for all losses in an estimate."""
MIN_MASS = 1e-300
"""Probability of an empty neighbourhood: its logarithm has to be finite."""
MAX_LOSS = 700.0
"""Largest loss that is finite here, whatever the noise: e^710 is not a float."""


@dataclass(frozen=True)
class Losses:
    """Distribution of the privacy loss of a step under the larger of the two hypotheses."""

    first: int
    """Loss of the first entry, in grid intervals."""
    mass: Array
    """Probability of each loss, (K,)."""
    infinite: float
    """Probability of an infinite loss."""

    @cached_property
    def index(self) -> Array:
        """Losses in grid intervals, (K,)."""
        return self.first + np.arange(len(self.mass), dtype=np.float64)

    @cached_property
    def log(self) -> Array:
        """Logarithms of the probabilities, (K,)."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.mass))

    @cached_property
    def blocks(self) -> tuple[Array, Array]:
        """Log probabilities and mean losses of a few times `BLOCKS` neighbourhoods.

        They are used for estimates only. Each of the likeliest losses is a neighbourhood by itself:
        where steps are rarely sampled, nearly all of the probability lies on a dozen of a million
        losses.
        """
        count = len(self.mass)
        likeliest = np.argpartition(self.mass, -min(BLOCKS, count))[-BLOCKS:]
        alone = np.zeros(count + 1, dtype=bool)
        alone[:: max(1, count // BLOCKS)] = True
        for shift in (0, 1):
            alone[likeliest + shift] = True
        starts = np.flatnonzero(alone[:count])
        mass = np.maximum(np.add.reduceat(self.mass, starts), MIN_MASS)
        return np.log(mass), np.add.reduceat(self.mass * self.index, starts) / mass


@lru_cache(maxsize=32)
def losses(sample_rate: float, noise_multiplier: float, grid: float) -> tuple[Losses, ...]:
    """Return the losses of removing a unit and of adding one.

    Args:
        sample_rate: q in (0, 1].
        noise_multiplier: sigma, standard deviation of the noise over the sensitivity.
        grid: Distance of two losses.
    Returns:
        Both directions, or a single one for q = 1, where they are equal.
    Source: Doroshenko et al. 2022, arXiv:2207.04380, algorithm 1.
    """
    q, sigma = sample_rate, noise_multiplier
    lowest = _loss(-TAIL * sigma, q, sigma)
    highest = largest_loss(q, sigma)
    first, last = math.floor(lowest / grid), math.ceil(highest / grid)
    last = max(last, first + 1)  # two points at least, between which mass can be split
    index = np.arange(first, last + 1, dtype=np.float64)
    cuts = _value(index * grid, q, sigma)
    without = cuts / sigma
    with_it = (cuts - 1) / sigma
    absent = _between(without)
    present = (1 - q) * absent + q * _between(with_it)
    # Rounding is always up: below the first cut to the first point, above the last to infinity.
    low = (1 - q) * float(ndtr(without[0])) + q * float(ndtr(with_it[0]))
    high = (1 - q) * float(ndtr(-without[-1])) + q * float(ndtr(-with_it[-1]))
    remove = _split(present, absent, index[:-1] * grid, grid)
    remove[0] += low
    found = [Losses(first, remove, high)]
    if q < 1:
        # Adding a unit swaps the two distributions, so losses change their sign.
        add = _split(absent[::-1], present[::-1], -index[:0:-1] * grid, grid)
        add[0] += float(ndtr(-without[-1]))
        found.append(Losses(-last, add, float(ndtr(without[0]))))
    return tuple(found)


def largest_loss(q: float, sigma: float) -> float:
    """Return the largest finite loss of a step; a larger one counts as infinite.

    Args:
        q: Sample rate in (0, 1].
        sigma: Noise multiplier.
    """
    return min(_loss(1 + TAIL * sigma, q, sigma), MAX_LOSS)


def _loss(value: float, q: float, sigma: float) -> float:
    """Return the log of a value's density with the unit over its density without it."""
    unsampled = (2 * value - 1) / (2 * sigma**2)
    return float(np.logaddexp(math.log1p(-q), math.log(q) + unsampled)) if q < 1 else unsampled


def _value(loss: Array, q: float, sigma: float) -> Array:
    """Return the released values with these losses; minus infinity where every loss is larger."""
    if q == 1:
        return sigma**2 * loss + 0.5
    # Two forms of log(1 + (e^loss - 1) / q): the second does not overflow for large losses.
    small = np.maximum(np.expm1(np.minimum(loss, 1.0)) / q, -1.0)
    with np.errstate(divide="ignore"):
        unsampled = np.where(
            loss < 1,
            np.log1p(small),
            loss - math.log(q) + np.log1p((q - 1) * np.exp(-np.abs(loss))),
        )
    return np.asarray(sigma**2 * unsampled + 0.5)


def _between(z: Array) -> Array:
    """Return the normal mass between neighbouring scores, (K,) ascending -> (K - 1,).

    It is computed from the nearer tail, so that the sum of the masses beyond a score is as exact as
    the tail itself.
    """
    upper, lower = ndtr(-z), ndtr(z)
    return np.maximum(np.where(z[:-1] > 0, upper[:-1] - upper[1:], lower[1:] - lower[:-1]), 0.0)


def _split(larger: Array, smaller: Array, low: Array, grid: float) -> Array:
    """Split the masses of K - 1 intervals over their K grid points.

    Args:
        larger, smaller: (K - 1,) mass of each interval under either distribution.
        low: (K - 1,) loss at the lower end of each interval.
        grid: Distance of two losses.
    Returns:
        (K,) mass of each point under `larger`, which keeps the masses under both distributions.
    """
    up = np.clip((larger - np.exp(low) * smaller) / -math.expm1(-grid), 0.0, larger)
    points = np.zeros(len(larger) + 1)
    points[:-1] = larger - up
    points[1:] += up
    return points
