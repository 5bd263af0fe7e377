"""What epsilon means to a person: how well anybody can tell whether the person's records were used.

`python -m client.privacy.meaning` prints the table of docs/dpo.md.
"""

import math

from medformer.common.rounding import exact, percent_up

EPSILONS = (0.1, 0.5, 1.0, 2.0, 3.0, 6.0, 8.0, 9.0)
FALSE_ALARMS = (0.001, 0.01, 0.05, 0.1)
DELTA = 1e-6


def most_found(epsilon: float, delta: float, false_alarms: float) -> float:
    """Largest true positive rate of any test for "was this unit used?", whatever it knows besides.

    Args:
        epsilon: Of everything that was released, for this unit.
        delta: The same.
        false_alarms: Share of units that were not used, and of which the test says they were.
    Returns:
        Share, 0 to 1, of units that were used and that the test may find.
    Source: Wasserman and Zhou 2010 (arXiv:0811.2501), theorem 2.4; with delta, Kairouz, Oh and
        Viswanath 2015 (arXiv:1311.0776), theorem 2.1.
    """
    one = math.exp(epsilon) * false_alarms + delta
    other = 1 - math.exp(-epsilon) * (1 - false_alarms - delta)
    return min(1.0, one, other)


def percent(share: float) -> str:
    """Rounded up to a tenth of a percent: an upper bound stays one."""
    return percent_up(share)


def table() -> str:
    """Bounds in Markdown: a row an epsilon, a column a rate of false alarms."""
    head = " | ".join(f"{share:.1%}".replace("%", " %") for share in FALSE_ALARMS)
    lines = [f"| epsilon | {head} |", "|---" * (len(FALSE_ALARMS) + 1) + "|"]
    for epsilon in EPSILONS:
        cells = (percent(most_found(epsilon, DELTA, share)) for share in FALSE_ALARMS)
        lines.append(f"| {exact(epsilon)} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
