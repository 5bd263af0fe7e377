"""The noise that a schedule would put on a site's gradients, estimated from public numbers.

The estimate chooses a recipe and is no guarantee: noise and epsilon of a run come from the
accountant at each site (`client.privacy.plan`).
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

from server.protocol import LABEL_OBJECTIVES, Phase
from server.run.recipes.declared import Declared

HALVINGS = 60
"""Halvings of an interval that holds mu: enough for every digit that matters here."""


def signal(phases: Sequence[Phase], site: Declared) -> float | None:
    """Return how much the steps of a schedule can teach at a site: steps over noise variance.

    The variance is that of the noise on each coordinate of a step's averaged gradient. Only phases
    that learn from labels count; all phases cost epsilon. Spare rounds are left out.

    Args:
        phases: The schedule.
        site: The site's declaration.
    Returns:
        Millions; None if the site does not declare all numbers that it takes.
    """
    if site.n_public is None or site.epsilon is None or site.delta is None:
        return None
    labelled = site.n_public if site.n_labelled is None else site.n_labelled
    if not labelled:
        return 0.0
    counts = [phase.rounds * phase.local_steps for phase in phases]
    drawn_from = [labelled if phase.needs_labels else site.n_public for phase in phases]
    # A batch cannot be larger than the declared number of units.
    batches = [
        min(phase.expected_batch_size, units)
        for phase, units in zip(phases, drawn_from, strict=True)
    ]
    rates = [batch / units for batch, units in zip(batches, drawn_from, strict=True)]
    noise = noise_multiplier(list(zip(rates, counts, strict=True)), site.epsilon, site.delta)
    taught = sum(
        count * (batch / (noise * phase.sensitivity)) ** 2
        for phase, count, batch in zip(phases, counts, batches, strict=True)
        if LABEL_OBJECTIVES & set(phase.objectives)
    )
    return taught / 1e6


def noise_multiplier(steps: Sequence[tuple[float, int]], epsilon: float, delta: float) -> float:
    """Return about the noise multiplier with which steps together cost (epsilon, delta).

    Args:
        steps: (sample rate, number of steps) of each phase.
        epsilon: Epsilon of all steps together.
        delta: Delta of all steps together.
    Source: Dong et al. 2022, arXiv:1905.02383, Corollary 1 and, for sampled steps, the central
        limit theorem of Bu et al. 2020, arXiv:1911.11607.
    """
    # mu of the Gaussian mechanism that has this epsilon and delta.
    low, high = 1e-6, 100.0
    for _ in range(HALVINGS):
        mu = math.sqrt(low * high)
        low, high = (mu, high) if _delta(mu, epsilon) < delta else (low, mu)
    squares = sum(rate**2 * count for rate, count in steps)
    # squares * (exp(1 / noise**2) - 1) = mu**2
    return 1 / math.sqrt(math.log1p(mu**2 / squares))


def _delta(mu: float, epsilon: float) -> float:
    normal = NormalDist()
    above = normal.cdf(-epsilon / mu - mu / 2)
    # exp(epsilon) alone can be too large for a float.
    tail = math.exp(epsilon + math.log(above)) if above > 0 else 0.0
    return normal.cdf(-epsilon / mu + mu / 2) - tail
