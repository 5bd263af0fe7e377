"""Checks of a mechanism beside the bound on epsilon: is it the one that the accountant assumed?"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, norm

from client.audit.statistics import Flags, Floats, Seen

FALSE_ALARM = 1e-4
"""Probability, about, that one check of a mechanism that is what it claims to be fails."""


@dataclass(frozen=True)
class Trace:
    """What the auditor saw of every step of a training. S steps, m canaries, N units."""

    released: Floats
    """(S, m) noisy sum along each canary's coordinate, in units of the step's bound C."""
    joined: Flags
    """(S, N) whether each unit of the training was drawn."""
    seen: tuple[Seen, ...]
    """(S,) what the plan says of each step."""
    included: Flags
    """(m,) which canaries were among the units."""


@dataclass(frozen=True)
class Check:
    """One property of the mechanism that can be measured beside the bound on epsilon.

    The bound holds whatever the mechanism is, and therefore finds little where epsilon is large; a
    check asks whether this is the Gaussian mechanism that the accountant assumed.
    """

    name: str
    claimed: float
    measured: float
    limit: str
    """What `measured` may be at most or at least, in words."""
    passed: bool


def checks(trace: Trace) -> list[Check]:
    """Noise, its independence, the clip and the sampler, each against the plan.

    The noise is seen where no canary is; what a canary adds is seen where one is. Each check fails
    a correct mechanism with a probability of about `FALSE_ALARM`.
    """
    return [_noise(trace), _repeats(trace), _reach(trace), *_sampler(trace)]


def _standard(trace: Trace) -> Floats:
    """(S, m - included): what should be independent standard normal values."""
    sigma = np.array([[s.noise_multiplier] for s in trace.seen])
    return np.nan_to_num(trace.released[:, ~trace.included] / sigma)


def _noise(trace: Trace) -> Check:
    """Less noise than claimed: the sum of squares is chi-square."""
    values = _standard(trace)
    least = math.sqrt(chi2.ppf(FALSE_ALARM, values.size) / values.size)
    measured = float(np.sqrt(np.mean(values**2)))
    name = "standard deviation of the noise, over the claimed one"
    return Check(name, 1.0, measured, f"at least {least:.4f}", bool(measured >= least))


def _repeats(trace: Trace) -> Check:
    """Noise that comes again in another step can be subtracted: largest correlation of two."""
    values = _standard(trace)
    norms = np.linalg.norm(values, axis=1)
    count = len(values) * (len(values) - 1) // 2
    name = "largest correlation of two steps' noise"
    if not count or not norms.all():
        return Check(name, 0.0, 0.0, "of two steps only", True)
    products = np.triu((values @ values.T) / np.outer(norms, norms), 1)
    most = float(norm.isf(FALSE_ALARM / (2 * count))) / math.sqrt(values.shape[1])
    measured = float(np.abs(products).max())
    return Check(name, 0.0, measured, f"at most {most:.4f}", measured <= most)


def _reach(trace: Trace) -> Check:
    """How far canaries move the sum, over sample rate times bound: clip and rate together."""
    values = np.nan_to_num(trace.released[:, trace.included], nan=np.inf)
    rate = np.array([s.sample_rate for s in trace.seen])
    reach = np.array([s.reach for s in trace.seen])
    sigma = np.array([s.noise_multiplier for s in trace.seen])
    expected = values.shape[1] * float((rate * reach).sum())
    variance = values.shape[1] * float((sigma**2 + rate * (1 - rate) * reach**2).sum())
    most = 1 + float(norm.isf(FALSE_ALARM)) * math.sqrt(variance) / expected
    measured = float(values.sum()) / expected
    name = "what a canary adds to the sum, over sample_rate times the bound"
    return Check(name, 1.0, measured, f"at most {most:.4f}", measured <= most)


def _sampler(trace: Trace) -> list[Check]:
    """Poisson sampling: sizes of the batches, and draws of one unit, spread as binomials do.

    A batch of fixed size or a shuffled pass over the data spreads less, a unit that is drawn more
    often than others spreads more. Chi-square, two-sided; where all are drawn there is no spread.
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
        passed = bool(low <= total <= high) if freedom else total < 1e-6
        scale = max(freedom, 1)
        limit = f"{low / scale:.3f} to {high / scale:.3f}" if freedom else "0: all are drawn"
        found.append(Check(name, 1.0 if freedom else 0.0, total / scale, limit, passed))
    return found
