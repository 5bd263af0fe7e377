"""Densities of scores, fitted to counts with noise, and what follows from them.

A noisy count says little about one bin, but the bins of a histogram belong together: the logarithm
of a density of scores is smooth on the scale of the bins. A polynomial is fitted to it, with the
known variance of the noise and that of sampling as weights. Every figure is a function of the
fitted densities, and its standard error follows from the covariance of the fit. Nothing here is
private: counts with noise go in.

B bins, F fine points.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.special import expit, logit, ndtri

from server.protocol.score_counts import BINS, STEP

Array = npt.NDArray[np.float64]

DEGREE = 4
"""Degree of the polynomial: 2 is a normal distribution, 4 has room for skew and for two groups."""
FINE = 4
"""Points of the density in each bin."""
CONFIDENCE = 0.95
"""Probability with which an interval holds its value, over sampling and noise, at least."""
CAUTION = (1.1, 2.5)
"""Factor of every standard error: a constant, and a part that is divided by how far the number of
images stands out from its noise. The delta method is too optimistic where noise dominates; with
this factor at least 95 % of simulated intervals held their value."""
STRAIGHT = 0.01
"""Distance from 0 and 1 within which an interval is computed without log odds."""
MAX_OVERLAP = 0.25
"""No figure rests on scores of which a larger share of pairs lies in one bin: nobody can tell how
they lie within it."""
SIGNIFICANT = 3.0
"""No figure rests on fewer images than so many standard deviations of the noise on their number."""

_PLACES = STEP * ((np.arange(BINS * FINE) + 0.5) / FINE - BINS / 2)
POINTS = np.sinh(_PLACES)
"""(F,) log odds at which a density is evaluated; the outer bins end where the next would."""
_POWERS = np.vander(_PLACES / np.abs(_PLACES).max(), DEGREE + 1, increasing=True)[:, 1:]
_RIDGE = np.array([0.02, 0.02, 0.1, 0.1])
"""Weight of each coefficient in the fit: without data the density is flat, and its higher powers
are small."""


@dataclass(frozen=True)
class Density:
    """Number of images by score, fitted to one noisy histogram."""

    std: float
    """Standard deviation of the noise on each count."""
    counts: Array
    """(B,) noisy counts."""
    parameters: Array
    """(DEGREE + 1,) coefficients of the logarithm, then the number of images."""
    covariance: Array
    """(DEGREE + 1, DEGREE + 1), that of the parameters."""

    @classmethod
    def fit(cls, counts: Array, std: float) -> "Density":
        """Fit a density to noisy counts.

        Args:
            counts: (B,) noisy counts.
            std: Standard deviation of the noise on each.
        """
        known = np.maximum(counts, 0)
        total = max(float(counts.sum()), 1.0)
        weights = 1 / np.sqrt(std**2 + np.maximum(known, 1))
        parameters = np.array([*_normal(known), total])
        # Twice: the first fit knows the counts better than their noisy values do.
        for _ in range(2):
            found = least_squares(_residuals(counts, weights), parameters, max_nfev=200)
            parameters = found.x
            weights = 1 / np.sqrt(std**2 + np.maximum(_binned(_mass(parameters)), 1))
        jacobian = found.jac
        return cls(std, counts, parameters, np.linalg.pinv(jacobian.T @ jacobian))

    @property
    def total(self) -> float:
        """Number of images, by the noisy counts."""
        return float(self.counts.sum())

    @property
    def significance(self) -> float:
        """Number of images, in standard deviations of the noise on it."""
        return self.total / (self.std * math.sqrt(BINS))

    @cached_property
    def images(self) -> Array:
        """(F,) number of images at each point."""
        return _mass(self.parameters)


def _normal(counts: Array) -> Array:
    """Return the coefficients of the normal distribution with the mean and variance of counts."""
    middle = _POWERS[:, 0].reshape(BINS, FINE).mean(1)
    share = counts / max(counts.sum(), 1e-9)
    mean = float(share @ middle)
    variance = max(float(share @ (middle - mean) ** 2), (2 / BINS) ** 2)
    return np.array([mean / variance, -0.5 / variance, *[0.0] * (DEGREE - 2)])


def _shares(parameters: Array) -> Array:
    """Return the density of (DEGREE + 1,) parameters at the fine points, its sum 1."""
    logs = _POWERS @ parameters[:DEGREE]
    density = np.exp(logs - logs.max())
    return np.asarray(density / density.sum())


def _mass(parameters: Array) -> Array:
    return np.asarray(parameters[-1] * _shares(parameters))


def _binned(mass: Array) -> Array:
    return np.asarray(mass.reshape(BINS, FINE).sum(1))


def _residuals(counts: Array, weights: Array) -> Callable[[Array], Array]:
    """Return what the fit squares and adds up, as a function of the parameters."""

    def residuals(parameters: Array) -> Array:
        misses = (_binned(_mass(parameters)) - counts) * weights
        return np.concatenate([misses, _RIDGE * parameters[:DEGREE]])

    return residuals


@dataclass(frozen=True)
class Estimate:
    """A value with the interval that holds it."""

    value: float
    low: float
    high: float


def overlap(shown: Density, absent: Density) -> float:
    """Return how often an image that shows a finding and one that does not share a bin.

    Args:
        shown: Images that show the finding.
        absent: Images that do not.
    Returns:
        An estimate without bias, because the two noises are independent; it need not be in [0, 1].
    """
    return float(shown.counts @ absent.counts) / (shown.total * absent.total)


Figure = Callable[[Array, Array], float]
"""(images that show a finding, images that do not), both (F,) by score -> a value in [0, 1]."""


def estimated(figure: Figure, shown: Density, absent: Density) -> Estimate:
    """Return a figure with its interval, by the delta method.

    Args:
        figure: A smooth function of the two densities, with values in [0, 1].
        shown: Images that show the finding.
        absent: Images that do not.
    """
    value = figure(shown.images, absent.images)
    by_shown = _gradient(lambda images: figure(images, absent.images), shown)
    by_absent = _gradient(lambda images: figure(shown.images, images), absent)
    variance = by_shown @ shown.covariance @ by_shown + by_absent @ absent.covariance @ by_absent
    # Nothing is known better than to one image, also where the densities do not overlap.
    fewest = max(1.0, min(shown.total, absent.total))
    error = math.sqrt(float(variance) + fewest**-2)
    caution = CAUTION[0] + CAUTION[1] / max(1.0, min(shown.significance, absent.significance))
    reach = caution * float(ndtri((1 + CONFIDENCE) / 2)) * error
    if not STRAIGHT < value < 1 - STRAIGHT:
        # At 0 and 1 log odds are infinite.
        return Estimate(value, max(0.0, value - reach), min(1.0, value + reach))
    middle, slope = float(logit(value)), value * (1 - value)
    low, high = (float(expit(middle + sign * reach / slope)) for sign in (-1, 1))
    return Estimate(value, low, high)


def _gradient(of: Callable[[Array], float], density: Density) -> Array:
    """Return the derivative of a figure by the parameters of a density, from both sides."""
    gradient = np.zeros(len(density.parameters))
    for i, parameter in enumerate(density.parameters):
        step = np.zeros(len(gradient))
        step[i] = 1e-4 * max(1.0, abs(parameter))
        ahead, behind = (of(_mass(density.parameters + sign * step)) for sign in (1, -1))
        gradient[i] = (ahead - behind) / (2 * step[i])
    return gradient
