"""The statistics of a privacy audit in one training run, without any training.

The method is that of Steinke, Nasr and Jagielski 2023 (arXiv:2305.08846). Each of m canaries is
part of the whole training with probability 1/2, independently. The auditor sees what the mechanism
released (client/audit/canaries.py), guesses for r canaries whether they were in, and abstains on
the others. Many correct guesses refute a claim of (epsilon, delta)-DP.

The bound is Theorem 5.2 of the paper. It holds for this reason: let S_i = +-1 be the inclusion of
canary i, and T_i in {-1, 0, +1} the guess, a function of the mechanism's output. For delta = 0,
given the output and S_1 .. S_(i-1), Bayes' rule and the prior 1/2 leave odds of at most e^epsilon
for S_i. So each guess is right with probability at most e^epsilon / (1 + e^epsilon), whatever came
before, and the number of right guesses is stochastically at most W ~ Binomial(r, e^epsilon / (1 +
e^epsilon)). For delta > 0 the output may also reveal canaries outright, F in total, with E[F] <= 2
m delta. Hence P[right >= v] <= P[W + F >= v] <= f(v) + E[F] * max_i (f(v - i) - f(v)) / i, with
f(v) = P[W >= v]: the worst F of a given mean puts all its weight on 0 and on one number i >= 1. The
number of guesses r has to be fixed before the output is seen.
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
"""Confidence of the lower bound, over sampling, noise and the choice of the canaries."""
HALF = 0.5
"""Noise of the broken mechanism for which the second number of guesses is chosen, relative to the
claimed noise."""
REHEARSALS = 8
"""Number of simulated releases from which a number of guesses is chosen; they see no training."""


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Bound the probability of at least `correct` right guesses under (epsilon, delta)-DP.

    Args:
        canaries: m, each in with probability 1/2, independently.
        guesses: r <= m, fixed beforehand; the auditor abstains on the other canaries.
        correct: v <= r, the number of right guesses.
        epsilon: Claimed epsilon >= 0 under addition or removal of one canary.
        delta: Claimed delta in [0, 1].
    Returns:
        An upper bound of the probability, in [0, 1]; a small one refutes the claim.
    Raises:
        ValueError: Not 0 <= correct <= guesses <= canaries.
    Source: Theorem 5.2 and appendix D of arXiv:2305.08846.

    >>> p_value(canaries=10, guesses=4, correct=4, epsilon=0.0, delta=0.0)
    0.0625
    """
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(
            f"must be 0 <= correct <= guesses <= canaries, got {correct}, {guesses}, {canaries}"
        )
    # The best probability of a right guess under epsilon-DP with a prior of 1/2.
    right = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, right))
    # Without delta no canary can be revealed outright, and 0 right guesses prove nothing.
    if not correct or not delta:
        return min(tail, 1.0)
    # f(v - i) - f(v) = P[v - i <= W < v], for i = 1 .. v; a larger i adds nothing
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, right))
    slope = float((below / np.arange(1, correct + 1)).max())
    return min(tail + 2 * canaries * delta * slope, 1.0)


def epsilon_lower_bound(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Return the largest epsilon that a number of right guesses refutes, 0 if it refutes none.

    For a mechanism that is (epsilon, delta)-DP, the result is at most epsilon with a probability of
    at least `confidence`.

    Args:
        canaries: m, each in with probability 1/2, independently.
        guesses: r <= m, fixed beforehand.
        correct: v <= r, the number of right guesses.
        delta: Claimed delta in [0, 1].
        confidence: In (0, 1).
    Source: Section 5 of arXiv:2305.08846.
    """
    max_p = 1 - confidence

    def refuted(epsilon: float) -> bool:
        return p_value(canaries, guesses, correct, epsilon, delta) < max_p

    # Not even epsilon 0 is refuted: the guesses are no better than chance.
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    # Doubling first, then bisection. No number of guesses refutes an epsilon of 64.
    while high < 64 and refuted(high):
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class Seen:
    """The auditor's knowledge of a step, or of several equal ones."""

    sample_rate: float
    """q: a canary that is in joins a step with this probability."""
    noise_multiplier: float
    """Claimed standard deviation of the noise, in units of the L2 sensitivity C."""
    reach: float = 1.0
    """Distance by which a canary that joins moves its coordinate, in units of C. It is below 1 if
    the canary's clipping group has only a part of the bound C."""


def step_scores(released: Floats, seen: Seen) -> Floats:
    """Return each canary's log-likelihood ratio of being in, from one step with the claimed noise.

    At q = 1 it grows linearly with the released coordinate, so that a sum over equal steps ranks
    the canaries as the sum of their released coordinates does. At q < 1 it is the most powerful
    score of independent coordinates, by the lemma of Neyman and Pearson.

    Args:
        released: (canaries,) noisy sum along each canary's coordinate, in units of C.
        seen: Sample rate, noise and reach of the step.
    Returns:
        (canaries,) natural logarithms; values that are not finite count as 0.
    """
    q = seen.sample_rate
    shift = (released - seen.reach / 2) * seen.reach / seen.noise_multiplier**2
    # Whether a canary that is in joined this step is unknown, so both cases are mixed by q.
    ratio = shift if q >= 1 else np.logaddexp(math.log1p(-q), math.log(q) + shift)
    # A value that is not finite must not decide about a canary: it counts as no evidence.
    return np.nan_to_num(ratio, nan=0.0, posinf=0.0, neginf=0.0)


def count_correct(scores: Floats, included: Flags, guesses: int) -> int:
    """Count the right guesses if the highest scores are guessed `in` and the lowest `out`.

    Args:
        scores: (canaries,); ties are broken by position, which is independent of inclusion.
        included: (canaries,) True for the canaries that were in.
        guesses: Even number of guesses, at most that of the canaries; half of them are `in`.
    """
    order = np.argsort(scores, kind="stable")
    half = guesses // 2
    return int((~included[order[:half]]).sum() + included[order[len(order) - half :]].sum())


@dataclass(frozen=True)
class Aim:
    """The numbers of guesses of an audit and their power, known before anything is trained."""

    guesses: tuple[int, ...]
    """One or two even numbers, ascending."""
    bound_if_correct: float
    """Lower bound that a correct mechanism exceeds in nine of ten audits."""
    bound_at_half_noise: float
    """Lower bound that a mechanism with half the noise exceeds in nine of ten audits. If it is
    above the claim, the audit finds such a mechanism."""


def aim(
    seen: Sequence[tuple[Seen, int]],
    canaries: int,
    delta: float,
    confidence: float = CONFIDENCE,
) -> Aim:
    """Choose the numbers of guesses from public constants alone.

    One number is best for a mechanism as claimed, the other for one with half the noise: each
    maximises the bound that simulated releases exceed nine times out of ten. The audit tries both,
    and divides its risk between them by a union bound.

    Args:
        seen: Kinds of steps, and how many there are of each.
        canaries: m >= 100.
        delta: Claimed delta.
        confidence: Confidence of the whole audit.
    """
    # Even numbers from 0.4 % of the canaries to all of them, evenly spaced in the logarithm.
    grid = sorted({2 * round(canaries * share / 2) for share in np.geomspace(0.004, 1.0, 24)})
    # Half of the risk for each of the two numbers of guesses.
    each = 1 - (1 - confidence) / 2
    best: dict[float, tuple[float, int]] = {}
    for noise in (1.0, HALF):
        # A fixed seed: the choice must not depend on anything private.
        rng = np.random.default_rng([canaries, round(1000 * noise)])
        worlds = [_rehearsal(seen, canaries, noise, rng) for _ in range(REHEARSALS)]
        best[noise] = max((_reached(worlds, r, delta, each), r) for r in grid)
    guesses = sorted({r for _, r in best.values()})
    return Aim(tuple(guesses), best[1.0][0], best[HALF][0])


def _reached(
    worlds: Sequence[tuple[Floats, Flags]], guesses: int, delta: float, confidence: float
) -> float:
    """Return the bound that nine of ten releases like these exceed with a number of guesses."""
    rights = [count_correct(scores, included, guesses) for scores, included in worlds]
    rate = (sum(rights) + 0.5) / (len(rights) * guesses + 1)
    # The lower decile of a binomial, by its normal approximation.
    low = guesses * rate - 1.28 * math.sqrt(guesses * rate * (1 - rate))
    correct = max(0, min(guesses, math.floor(low)))
    return epsilon_lower_bound(len(worlds[0][0]), guesses, correct, delta, confidence)


def _rehearsal(
    seen: Sequence[tuple[Seen, int]], canaries: int, noise: float, rng: np.random.Generator
) -> tuple[Floats, Flags]:
    """Simulate scores and inclusion of an ideal mechanism with `noise` times the claimed noise."""
    included = rng.random(canaries) < 0.5
    scores = np.zeros(canaries)
    for one, steps in seen:
        for _ in range(steps):
            # Poisson sampling of each canary in each step.
            joins = included & (rng.random(canaries) < one.sample_rate)
            drawn = noise * one.noise_multiplier * rng.standard_normal(canaries)
            scores += step_scores(joins * one.reach + drawn, one)
    return scores, included


@dataclass(frozen=True)
class Verdict:
    """The result of guessing."""

    guesses: int
    """The number of guesses that gave the larger bound; both numbers were fixed beforehand."""
    correct: int
    epsilon_lower_bound: float


def judge(
    scores: Floats,
    included: Flags,
    tried: Sequence[int],
    delta: float,
    confidence: float = CONFIDENCE,
) -> Verdict:
    """Guess, and bound epsilon from below.

    Args:
        scores: (canaries,) a higher one means that the canary is more likely in.
        included: (canaries,) True for the canaries that were in.
        tried: Even numbers of guesses, fixed before the scores were seen; they share the risk.
        delta: Claimed delta.
        confidence: Confidence of the larger of the bounds.
    """
    # A union bound over the numbers of guesses that are tried.
    each = 1 - (1 - confidence) / len(tried)
    best = Verdict(tried[0], 0, -1.0)
    for guesses in tried:
        correct = count_correct(scores, included, guesses)
        bound = epsilon_lower_bound(len(scores), guesses, correct, delta, each)
        # On equal bounds the smaller number of guesses stays.
        if bound > best.epsilon_lower_bound:
            best = Verdict(guesses, correct, bound)
    return best
