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
from scipy.stats import binom

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
"""Of the lower bound, over sampling, noise and the choice of the canaries."""
HALF = 0.5
"""The broken mechanism that the second number of guesses is chosen for: half the noise."""
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
