"""The meaning of epsilon for a person: how well an attacker can detect that a record was used.

Epsilon at one delta says little about it (`max_detected`). The whole privacy curve of a run's steps
says all (`BestAttack`).

`python -m client.privacy.meaning` prints the table of docs/dpo.md.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from client.privacy.accounting import ARITHMETIC_EPSILON, Steps, both_epsilons
from client.privacy.pld.losses import Array
from medformer.common.rounding import exact, percent_up

EPSILONS = (0.1, 0.5, 1.0, 2.0, 3.0, 6.0, 8.0, 9.0)
"""Rows of the table."""
FALSE_ALARMS = (0.001, 0.01, 0.05, 0.1)
"""Rates of false alarms at which people are told how much an attacker finds: columns of the table.
"""
DELTA = 1e-6
"""Delta of every row."""
DELTAS = tuple(float(delta) for delta in np.geomspace(1e-9, 0.999, 240))
"""Deltas at which the curve is read. Each gives bounds; the smallest is reported, so that the
distance of two of them makes it larger by less than 1 %."""
SLACK = 1e-6
"""Share of units that an attack may find beyond the best one on a Gaussian of `mu`. Without
it the rarest outcomes of sampled steps would decide mu."""
ROC_POINTS = 64
"""Points of a plotted curve, about."""
ROC_ENDS = 4.0
"""Smallest and largest rate of a plotted curve, in standard deviations: 3e-5 and 1 - 3e-5."""
MAX_EXPONENT = 700.0
"""Largest exponent whose power of e is a float."""


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
    one = math.exp(min(epsilon, MAX_EXPONENT)) * false_alarms + delta
    other = 1 - math.exp(-epsilon) * (1 - false_alarms - delta)
    return min(1.0, one, other)


@dataclass(frozen=True)
class BestAttack:
    """The best test for "was this unit used?", of whoever knows all else and sees every step.

    A bound of the share that a test finds, as a function of its false alarms: the smallest of
    straight lines, each of which follows from one (epsilon, delta) that holds.

    Source: Kairouz, Oh and Viswanath 2015, arXiv:1311.0776, theorem 2.1, at every epsilon; Dong et
        al. 2022, arXiv:1905.02383, proposition 6, for the equivalence.
    """

    slopes: Array
    """(L,) from the steepest line to the level one."""
    heights: Array
    """(L,) share found without any false alarm."""

    @classmethod
    def on(cls, mechanisms: Iterable[Steps]) -> "BestAttack":
        """Return the bound for all steps that a run has admitted.

        Args:
            mechanisms: The steps.
        """
        return cls.of(both_epsilons(mechanisms, DELTAS))

    @classmethod
    def of(cls, epsilons: Sequence[tuple[float, float]]) -> "BestAttack":
        """Return the bound that follows from a privacy curve.

        Args:
            epsilons: As `both_epsilons` returns them for `DELTAS`.
        """
        deltas = np.array(DELTAS)
        removed, added = np.array(epsilons).T + ARITHMETIC_EPSILON
        # Detections from one direction of the adjacency, missed units from the other.
        slopes = np.concatenate([np.exp(np.minimum(removed, MAX_EXPONENT)), np.exp(-added), [0.0]])
        heights = np.concatenate([deltas, 1 - np.exp(-added) * (1 - deltas), [1.0]])
        # Where no epsilon suffices, nothing follows.
        known = np.concatenate([removed < MAX_EXPONENT, added < MAX_EXPONENT, [True]])
        return cls(*_lowest(slopes[known], heights[known]))

    def detected(self, false_alarms: Sequence[float]) -> list[float]:
        """Return the largest true positive rates.

        Args:
            false_alarms: Shares, 0 to 1, of unused units that the test wrongly reports as used.
        Returns:
            For each of them the largest share, 0 to 1, of used units that a test can find.

        >>> attack = BestAttack.on([Steps(sample_rate=0.1, noise_multiplier=1.5, steps=40)])
        >>> [round(share, 3) for share in attack.detected([0.01, 0.1])]
        [0.034, 0.211]
        """
        alarms = np.array(false_alarms, dtype=np.float64)[:, None]
        lines = self.slopes * alarms + self.heights
        return [float(share) for share in np.maximum(lines.min(axis=1), alarms[:, 0])]

    @property
    def mu(self) -> float:
        """Mu of Gaussian DP: the smallest Gaussian mechanism on which attacks are no worse.

        No test finds more than the best one on a single Gaussian release whose sensitivity is mu
        standard deviations, but for `SLACK`. Infinity if no Gaussian mechanism is as bad.

        Source: Gomez et al. 2025, arXiv:2503.10945.

        >>> attack = BestAttack.on([Steps(sample_rate=1.0, noise_multiplier=2.0, steps=1)])
        >>> f"{attack.mu:.2f}"
        '0.50'
        """
        if self.heights[0] > SLACK:  # something is found without any false alarm
            return math.inf
        # The Gaussian's curve is concave, so it lies above the lines if it does where two meet.
        alarms, found = self._corners()
        inside = (alarms > 0) & (alarms < 1) & (found > SLACK)
        return max(0.0, float(np.max(ndtri(found[inside] - SLACK) - ndtri(alarms[inside]),
                                     initial=0.0)))  # fmt: skip

    def roc(self) -> list[tuple[float, float]]:
        """Return corners of a bound: no test lies above the straight lines between them.

        Returns:
            (false alarms, share found) from (0, ...) to (1, 1), about `ROC_POINTS`.
        """
        # Any lines bound the attack. These are the lowest at rates that a plot can tell apart.
        alarms = ndtr(np.linspace(-ROC_ENDS, ROC_ENDS, ROC_POINTS))[:, None]
        kept = np.unique((self.slopes * alarms + self.heights).argmin(axis=1))
        alarms, found = BestAttack(self.slopes[kept], self.heights[kept])._corners()
        return [(float(a), float(f)) for a, f in zip(alarms, found, strict=True)]

    def _corners(self) -> tuple[Array, Array]:
        """Return where one line ends and the next begins, both ends of the curve included."""
        alarms = np.diff(self.heights) / -np.diff(self.slopes)
        alarms = np.concatenate([[0.0], np.clip(alarms, 0.0, 1.0), [1.0]])
        found = np.append(self.heights[0], (self.slopes * alarms[1:] + self.heights))
        return alarms, np.clip(found, 0.0, 1.0)


def _lowest(slopes: Array, heights: Array) -> tuple[Array, Array]:
    """Return the lines that are the lowest somewhere, from the steepest to the flattest."""
    kept: list[tuple[float, float]] = []
    for i in np.lexsort((heights, -slopes)):
        slope, height = float(slopes[i]), float(heights[i])
        if kept and kept[-1][0] == slope:
            continue  # of two parallel lines the lower one came first
        while kept and (
            height <= kept[-1][1]
            # The last line is passed before it has passed the one before it.
            or (
                len(kept) > 1
                and (height - kept[-2][1]) * (kept[-2][0] - kept[-1][0])
                <= (kept[-1][1] - kept[-2][1]) * (kept[-2][0] - slope)
            )
        ):
            kept.pop()
        kept.append((slope, height))
    found = np.array(kept)
    return found[:, 0], found[:, 1]


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
