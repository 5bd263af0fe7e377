"""The meaning of epsilon for a person: how well an attacker can detect that a record was used.

Epsilon at one delta says little about it (`max_detected`). The whole privacy curve of a run's steps
says all (`detected`).

`python -m client.privacy.meaning` prints the table of docs/dpo.md.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from client.privacy.accounting import ARITHMETIC_EPSILON, Steps, both_epsilons
from medformer.common.rounding import exact, percent_up

EPSILONS = (0.1, 0.5, 1.0, 2.0, 3.0, 6.0, 8.0, 9.0)
"""Rows of the table."""
FALSE_ALARMS = (0.001, 0.01, 0.05, 0.1)
"""Rates of false alarms at which people are told how much an attacker finds: columns of the table.
"""
DELTA = 1e-6
"""Delta of every row."""
DELTAS = tuple(float(delta) for delta in np.geomspace(1e-9, 0.999, 240))
"""Deltas at which the curve is read. Each gives a bound; the smallest is reported, so that the
distance of two of them makes it larger by less than 1 %."""


def max_detected(epsilon: float, delta: float, false_alarms: float) -> float:
    """Return the largest true positive rate of any test for "was this unit used?".

    The bound holds for every attacker, whatever other knowledge the attacker has.

    Args:
        epsilon: Epsilon of everything that was released about the unit.
        delta: Delta of the same.
        false_alarms: Share, 0 to 1, of unused units that the test wrongly reports as used.
    Returns:
        Largest share, 0 to 1, of used units that the test can identify.
    Source: Wasserman and Zhou 2010 (arXiv:0811.2501), theorem 2.4; with delta, Kairouz, Oh and
        Viswanath 2015 (arXiv:1311.0776), theorem 2.1.

    >>> round(max_detected(epsilon=3.0, delta=1e-6, false_alarms=0.01), 4)
    0.2009
    >>> max_detected(epsilon=0.0, delta=0.0, false_alarms=0.05)
    0.05
    """
    # The two sides of the region of all tests: one bounds detections, one bounds missed units.
    one = math.exp(epsilon) * false_alarms + delta
    other = 1 - math.exp(-epsilon) * (1 - false_alarms - delta)
    return min(1.0, one, other)


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


def percent(share: float) -> str:
    """Return a share as text, rounded up to a tenth of a percent: an upper bound stays one.

    Args:
        share: From 0 to 1.

    >>> percent(0.20086)
    '20.1 %'
    """
    return percent_up(share)


def table() -> str:
    """Return the bounds in Markdown, with a row for each epsilon and a column for each rate."""
    head = " | ".join(f"{share:.1%}".replace("%", " %") for share in FALSE_ALARMS)
    lines = [f"| epsilon | {head} |", "|---" * (len(FALSE_ALARMS) + 1) + "|"]
    for epsilon in EPSILONS:
        cells = (percent(max_detected(epsilon, DELTA, share)) for share in FALSE_ALARMS)
        lines.append(f"| {exact(epsilon)} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
