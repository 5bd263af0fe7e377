"""The meaning of epsilon for a person: how well an attacker can detect that a record was used.

`python -m client.privacy.meaning` prints the table of docs/dpo.md.
"""

import math

from medformer.common.rounding import exact, percent_up

EPSILONS = (0.1, 0.5, 1.0, 2.0, 3.0, 6.0, 8.0, 9.0)
"""Rows of the table."""
FALSE_ALARMS = (0.001, 0.01, 0.05, 0.1)
"""Columns of the table."""
DELTA = 1e-6
"""Delta of every row."""


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
