"""What a privacy audit in one training run can prove: the statistics, without any training.

After Steinke, Nasr and Jagielski 2023 (arXiv:2305.08846). Each of m canaries is part of the whole
training with probability 1/2, independently. The auditor sees what the mechanism released, guesses
of r canaries whether they were in, and abstains on the others. Many correct guesses refute a claim
of (epsilon, delta)-DP: client/audit/canaries.py makes the released values.

The bound is Theorem 5.2 of the paper. Why it holds: let S_i = +-1 say whether canary i was in, T_i
in {-1, 0, +1} be the guess, a function of the mechanism's output. For delta = 0, given the output
and S_1 .. S_(i-1), Bayes' rule and the prior 1/2 leave odds of at most e^epsilon for S_i, so each
guess is right with probability at most e^epsilon / (1 + e^epsilon), whatever came before: the
number of right guesses is stochastically at most W ~ Binomial(r, e^epsilon / (1 + e^epsilon)). For
delta > 0 a canary may besides be given away, in total F canaries with E[F] <= 2 m delta. Hence
P[right >= v] <= P[W + F >= v] <= f(v) + E[F] * max_i (f(v - i) - f(v)) / i, f(v) = P[W >= v]: the
worst F of a given mean puts all its weight on 0 and on one number i >= 1. The number of guesses r
has to be fixed before the output is seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, chi2, norm

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
"""Of the lower bound, over sampling, noise and the choice of the canaries."""
HALF = 0.5
"""The broken mechanism that the second number of guesses is chosen for: half the noise."""
FALSE_ALARM = 1e-4
"""Probability, about, that one check of a mechanism that is what it claims to be fails."""
REHEARSALS = 8
"""Simulated releases from which a number of guesses is chosen; they see no training."""


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Probability of at least `correct` right guesses, at most, if (epsilon, delta)-DP holds.

    Args:
        canaries: m, each in with probability 1/2, independently.
        guesses: r <= m, fixed beforehand; of the others the auditor abstains.
        correct: v <= r.
        epsilon: >= 0, of adding or removing one canary.
        delta: In [0, 1].
    Source: Theorem 5.2 and appendix D of arXiv:2305.08846.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(f"0 <= {correct} right <= {guesses} guesses <= {canaries} canaries?")
    right = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, right))
    if not correct or not delta:
        return min(tail, 1.0)
    # f(v - i) - f(v) = P[v - i <= W < v], for i = 1 .. v; a larger i adds nothing
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, right))
    slope = float((below / np.arange(1, correct + 1)).max())
    return min(tail + 2 * canaries * delta * slope, 1.0)


def epsilon_lower_bound(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Largest epsilon that so many right guesses refute, 0 if none.

    With probability `confidence` at least, a mechanism that is (epsilon, delta)-DP gives a number
    of at most epsilon.
    """
    least = 1 - confidence

    def refuted(epsilon: float) -> bool:
        return p_value(canaries, guesses, correct, epsilon, delta) < least

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < 64 and refuted(high):
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class Seen:
    """Equal steps, as the auditor knows them."""

    sample_rate: float
    """q: a canary that is in joins a step with this probability."""
    noise_multiplier: float
    """Claimed standard deviation of the noise, in units of the L2 sensitivity C."""
    reach: float = 1.0
    """How far a canary that joins moves its coordinate, in units of C: less than 1 where only a
    part of the parameters shares its bound."""


def step_scores(released: Floats, seen: Seen) -> Floats:
    """How much one step speaks for each canary being in: its log-likelihood ratio, claimed noise.

    At q = 1 this is a line of positive slope, so a sum over equal steps orders the canaries as the
    sum of their released coordinates does; at q < 1 it is the most powerful score of independent
    coordinates (Neyman and Pearson).

    Args:
        released: (canaries,) noisy sum along each canary's coordinate, in units of C.
    Returns:
        (canaries,) natural logarithms; values that are not finite count as 0.
    """
    q = seen.sample_rate
    shift = (released - seen.reach / 2) * seen.reach / seen.noise_multiplier**2
    ratio = shift if q >= 1 else np.logaddexp(math.log1p(-q), math.log(q) + shift)
    return np.nan_to_num(ratio, nan=0.0, posinf=0.0, neginf=0.0)


def count_correct(scores: Floats, included: Flags, guesses: int) -> int:
    """Right guesses where half of them say `in`, of the highest scores, and half `out`.

    Args:
        scores: (canaries,); ties are broken by position, which says nothing about inclusion.
        included: (canaries,) the truth.
        guesses: Even number of guesses, at most the canaries.
    """
    order = np.argsort(scores, kind="stable")
    half = guesses // 2
    return int((~included[order[:half]]).sum() + included[order[len(order) - half :]].sum())


@dataclass(frozen=True)
class Aim:
    """Numbers of guesses, and what they can show, before anything is trained."""

    guesses: tuple[int, ...]
    """One or two even numbers, ascending."""
    bound_if_correct: float
    """Lower bound that a correct mechanism shows in nine of ten audits."""
    bound_at_half_noise: float
    """Same of a mechanism with half the noise: an audit finds it where this is above the claim."""


def aim(
    seen: Sequence[tuple[Seen, int]],
    canaries: int,
    delta: float,
    confidence: float = CONFIDENCE,
) -> Aim:
    """Choose the numbers of guesses from public constants alone.

    One is best if the mechanism is what it claims to be, the other if it has half the noise: each
    has the largest bound that simulated releases reach nine times out of ten. The audit tries both
    and pays for it with a union bound.

    Args:
        seen: Steps and their number.
        canaries: m >= 100.
    """
    grid = sorted({2 * round(canaries * share / 2) for share in np.geomspace(0.004, 1.0, 24)})
    each = 1 - (1 - confidence) / 2
    best: dict[float, tuple[float, int]] = {}
    for noise in (1.0, HALF):
        rng = np.random.default_rng([canaries, round(1000 * noise)])
        worlds = [_rehearsal(seen, canaries, noise, rng) for _ in range(REHEARSALS)]
        best[noise] = max((_reached(worlds, r, delta, each), r) for r in grid)
    guesses = sorted({r for _, r in best.values()})
    return Aim(tuple(guesses), best[1.0][0], best[HALF][0])


def _reached(
    worlds: Sequence[tuple[Floats, Flags]], guesses: int, delta: float, confidence: float
) -> float:
    """Bound that nine of ten releases like these reach with so many guesses."""
    rights = [count_correct(scores, included, guesses) for scores, included in worlds]
    rate = (sum(rights) + 0.5) / (len(rights) * guesses + 1)
    low = guesses * rate - 1.28 * math.sqrt(guesses * rate * (1 - rate))
    correct = max(0, min(guesses, math.floor(low)))
    return epsilon_lower_bound(len(worlds[0][0]), guesses, correct, delta, confidence)


def _rehearsal(
    seen: Sequence[tuple[Seen, int]], canaries: int, noise: float, rng: np.random.Generator
) -> tuple[Floats, Flags]:
    """Scores and truth of an ideal mechanism with `noise` times the claimed noise."""
    included = rng.random(canaries) < 0.5
    scores = np.zeros(canaries)
    for one, steps in seen:
        for _ in range(steps):
            joins = included & (rng.random(canaries) < one.sample_rate)
            drawn = noise * one.noise_multiplier * rng.standard_normal(canaries)
            scores += step_scores(joins * one.reach + drawn, one)
    return scores, included


@dataclass(frozen=True)
class Verdict:
    """What the guesses prove."""

    guesses: int
    """Of the number that proved most; both were fixed beforehand."""
    correct: int
    epsilon_lower_bound: float


def judge(
    scores: Floats,
    included: Flags,
    tried: Sequence[int],
    delta: float,
    confidence: float = CONFIDENCE,
) -> Verdict:
    """Guess, and bound epsilon from below; each number of guesses has its share of the risk.

    Args:
        scores: (canaries,) higher means more likely in.
        included: (canaries,) the truth.
        tried: Even numbers of guesses, fixed before the scores were seen.
    """
    each = 1 - (1 - confidence) / len(tried)
    best = Verdict(tried[0], 0, -1.0)
    for guesses in tried:
        correct = count_correct(scores, included, guesses)
        bound = epsilon_lower_bound(len(scores), guesses, correct, delta, each)
        if bound > best.epsilon_lower_bound:
            best = Verdict(guesses, correct, bound)
    return best


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
