"""The best attack on a run: how many of the units that were used any test can find.

Epsilon at one delta says little about it. The whole privacy curve of a run's steps says all.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from client.privacy.accounting import ARITHMETIC_EPSILON, Steps, both_epsilons

FALSE_ALARMS = (0.001, 0.01, 0.05, 0.1)
"""Rates of false alarms at which people are told how much an attacker finds."""
DELTAS = tuple(float(delta) for delta in np.geomspace(1e-9, 0.999, 240))
"""Deltas at which the curve is read. Each gives a bound; the smallest is reported, so that the
distance of two of them makes it larger by less than 1 %."""


def detected(mechanisms: Iterable[Steps], false_alarms: Sequence[float]) -> list[float]:
    """Return the largest true positive rate of any test for "was this unit used?".

    It holds for whoever knows everything else and sees the result of every step.

    Args:
        mechanisms: All steps that a run has admitted.
        false_alarms: Shares, 0 to 1, of unused units that the test wrongly reports as used.
    Returns:
        For each of them the largest share, 0 to 1, of used units that a test can find.
    Source: Kairouz, Oh and Viswanath 2015, arXiv:1311.0776, theorem 2.1, at every epsilon; Dong et
        al. 2022, arXiv:1905.02383, proposition 6, for the equivalence.

    >>> forty = Steps(sample_rate=0.1, noise_multiplier=1.5, steps=40)
    >>> [round(share, 3) for share in detected([forty], [0.01, 0.1])]
    [0.034, 0.211]
    """
    parts = list(mechanisms)
    pairs = [
        (delta, [value + ARITHMETIC_EPSILON for value in both])
        for delta, both in zip(DELTAS, both_epsilons(parts, DELTAS), strict=True)
    ]
    found = []
    for alarms in false_alarms:
        best = 1.0
        for delta, (removed, added) in pairs:
            # Detections from one direction of the adjacency, missed units from the other.
            if removed < math.inf:
                best = min(best, math.exp(min(removed, 700.0)) * alarms + delta)
            if added < math.inf:
                best = min(best, 1 - math.exp(-added) * (1 - alarms - delta))
        found.append(min(1.0, max(best, alarms)))
    return found
