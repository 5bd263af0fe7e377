"""Checks of the audited mechanism against its plan: noise, clip and sampler.

The bound on epsilon holds for any mechanism, and therefore detects little where epsilon is large.
These checks compare the training with the Gaussian mechanism that the accountant assumed.

S steps, m canaries, N units of privacy.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, norm

from client.audit.statistics import Flags, Floats, Seen

FALSE_ALARM = 1e-4
"""Approximate probability that a check fails for a correct mechanism."""


@dataclass(frozen=True)
class Trace:
    """The auditor's observations of every step of a training."""

    released: Floats
    """(S, m) noisy sum along each canary's coordinate, in units of the step's bound C."""
    joined: Flags
    """(S, N) True for the units that a step drew."""
    seen: tuple[Seen, ...]
    """(S,) the plan of each step."""
    included: Flags
    """(m,) True for the canaries that were among the units."""


@dataclass(frozen=True)
class Check:
    """One measured property of the mechanism, next to its planned value."""

    name: str
    claimed: float
    measured: float
    limit: str
    """Accepted range of `measured`, in words."""
    passed: bool


def checks(trace: Trace) -> list[Check]:
    """Check noise, independence of the noise, clip and sampler against the plan.

    Coordinates of canaries that were left out show the noise alone; those of canaries that were in
    show what a unit adds. Each check fails for a correct mechanism with a probability of about
    `FALSE_ALARM`.

    Args:
        trace: Every step of a training.
    """
    return [_noise(trace), _repeats(trace), _reach(trace), *_sampler(trace)]


def _standard(trace: Trace) -> Floats:
    """Return (S, m - included) values that are independent and standard normal by the plan."""
    # Coordinates of canaries that were left out hold nothing but noise.
    sigma = np.array([[s.noise_multiplier] for s in trace.seen])
    return np.nan_to_num(trace.released[:, ~trace.included] / sigma)


def _noise(trace: Trace) -> Check:
    """Check for less noise than claimed: the sum of squares is chi-square distributed."""
    values = _standard(trace)
    lower = math.sqrt(chi2.ppf(FALSE_ALARM, values.size) / values.size)
    measured = float(np.sqrt(np.mean(values**2)))
    name = "standard deviation of the noise, over the claimed one"
    return Check(name, 1.0, measured, f"at least {lower:.4f}", bool(measured >= lower))


def _repeats(trace: Trace) -> Check:
    """Check that no two steps have the same noise, which an attacker could subtract."""
    values = _standard(trace)
    norms = np.linalg.norm(values, axis=1)
    count = len(values) * (len(values) - 1) // 2
    name = "largest correlation of two steps' noise"
    # A step without noise has no direction to compare; the check of the noise fails for it.
    if not count or not norms.all():
        return Check(name, 0.0, 0.0, "needs two steps with noise", True)
    products = np.triu((values @ values.T) / np.outer(norms, norms), 1)
    # Two-sided, and divided by the number of pairs.
    upper = float(norm.isf(FALSE_ALARM / (2 * count))) / math.sqrt(values.shape[1])
    measured = float(np.abs(products).max())
    return Check(name, 0.0, measured, f"at most {upper:.4f}", measured <= upper)


def _reach(trace: Trace) -> Check:
    """Check clip and sample rate together: how far canaries move the sum, relative to the plan."""
    # NaN is counted as an infinite move, so that it cannot hide one.
    values = np.nan_to_num(trace.released[:, trace.included], nan=np.inf)
    rate = np.array([s.sample_rate for s in trace.seen])
    reach = np.array([s.reach for s in trace.seen])
    sigma = np.array([s.noise_multiplier for s in trace.seen])
    expected = values.shape[1] * float((rate * reach).sum())
    # Noise of each coordinate, and the variance of how often a canary joins.
    variance = values.shape[1] * float((sigma**2 + rate * (1 - rate) * reach**2).sum())
    upper = 1 + float(norm.isf(FALSE_ALARM)) * math.sqrt(variance) / expected
    measured = float(values.sum()) / expected
    name = "what a canary adds to the sum, over sample_rate times the bound"
    return Check(name, 1.0, measured, f"at most {upper:.4f}", measured <= upper)


def _sampler(trace: Trace) -> list[Check]:
    """Check for Poisson sampling: batch sizes, and draws of one unit, vary as binomials do.

    Batches of a fixed size and shuffled passes over the data vary less; a unit that is drawn more
    often than others varies more. The test is chi-square and two-sided. At a sample rate of 1,
    every unit is drawn and nothing varies.
    """
    rate = np.array([s.sample_rate for s in trace.seen])[:, None]
    spread = rate * (1 - rate)
    joined = trace.joined - rate
    units = trace.joined.shape[1]
    found = []
    for name, values, freedom in (
        ("spread of the batch sizes", joined.sum(1) ** 2 / np.maximum(units * spread[:, 0], 1e-12),
         int((spread > 0).sum())),
        ("spread of how often a unit is drawn", joined.sum(0) ** 2 / max(spread.sum(), 1e-12),
         units if spread.any() else 0),
    ):  # fmt: skip
        total = float(values.sum())
        low, high = chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], max(freedom, 1))
        # At rate 1 nothing varies: every unit has to be drawn in every step.
        passed = bool(low <= total <= high) if freedom else total < 1e-6
        scale = max(freedom, 1)
        limit = f"{low / scale:.3f} to {high / scale:.3f}" if freedom else "0: all are drawn"
        found.append(Check(name, 1.0 if freedom else 0.0, total / scale, limit, passed))
    return found
