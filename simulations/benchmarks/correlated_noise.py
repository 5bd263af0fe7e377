"""A comparison of noise that is correlated over steps with independent noise, at hospital sizes.

    python -m simulations.benchmarks.correlated_noise [--quick] [--out FILE.json]

The mechanism is BandMF (Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization",
arXiv:2306.08153). Records are in b fixed groups; each step draws a Poisson sample of rate q' = b B
/ n from one group in turn, and adds noise whose b bands cancel over steps. It is accounted as
ceil(T / b) subsampled Gaussians with the bands' column norm. Bands are those of the square root of
the prefix sum (Kalinin and Lampert 2024, arXiv:2405.13763), scaled to unit norm.

A row holds the noise in the iterates of SGD with momentum, as root mean square over steps, relative
to independent noise on the same batches at the same epsilon; and the same, per image, for
independent noise and a batch four times as large. Values below 1 mean less noise. It takes about a
minute.
"""

import math
import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from client.privacy.accounting import solve_noise_multiplier
from simulations.benchmarks import record

RECORDS = (900, 3_600, 4_708, 12_000, 50_000)
EPSILONS = (8.0, 1.0)
BANDS = (2, 4, 8, 16, 32)
STEPS, BATCH, MOMENTUM, DELTA = 300, 512, 0.9, 1e-5

Matrix = npt.NDArray[np.float64]


def bands(count: int) -> Matrix:
    """Return the (b,) entries of a column of C, whose L2 norm, the sensitivity, is 1."""
    root = [1.0]
    for j in range(1, count):
        # Binomial coefficients of (1 - x)^(-1/2), the square root of the prefix sum.
        root.append(root[-1] * (2 * j - 1) / (2 * j))
    return np.array(root) / np.linalg.norm(root)


def iterates(steps: int, momentum: float) -> Matrix:
    """Return (T, T): the effect of each step's gradient on each iterate, at learning rate 1."""
    moved = (1 - momentum ** np.arange(1, steps + 1)) / (1 - momentum)
    # A gradient moves no iterate before its own step.
    lag = np.subtract.outer(np.arange(steps), np.arange(steps))
    return np.where(lag >= 0, moved[np.maximum(lag, 0)], 0.0)


def noise_of_iterates(count: int, steps: int, momentum: float) -> float:
    """Return the root mean square over steps of the noise in an iterate, for unit noise.

    Args:
        count: Number of bands b; 1 is independent noise.
        steps: Number of steps T.
        momentum: Momentum of SGD, in [0, 1).
    """
    column = bands(count)
    mixing = sum(np.diag(np.full(steps - j, value), -j) for j, value in enumerate(column))
    # Noise enters as C^-1 z, so the effect on iterates is A C^-1.
    left = np.linalg.solve(np.asarray(mixing).T, iterates(steps, momentum).T).T
    return float(np.linalg.norm(left) / math.sqrt(steps))


def compare(records: int, epsilon: float, count: int) -> dict[str, Any] | None:
    """Return the row of a size, epsilon and number of bands, or None if a group is too small."""
    rate = count * BATCH / records
    # A group with fewer records than the batch cannot be sampled at this rate.
    if rate > 1:
        return None
    independent = _noise(min(1, BATCH / records), STEPS, epsilon)
    # A record takes part in one step of b, so fewer steps are composed.
    banded = _noise(rate, -(-STEPS // count), epsilon)
    larger = _noise(min(1, 4 * BATCH / records), STEPS, epsilon)
    ratio = noise_of_iterates(count, STEPS, MOMENTUM) / noise_of_iterates(1, STEPS, MOMENTUM)
    # A small site cannot draw four times the batch.
    four = min(4 * BATCH, records) / BATCH
    return {
        "records": records,
        "epsilon": epsilon,
        "bands": count,
        "noise_multiplier_independent": round(independent, 4),
        "noise_multiplier_banded": round(banded, 4),
        "banded": round(banded * ratio / independent, 4),
        "four_times_the_batch": round(larger / four / independent, 4),
    }


def _noise(rate: float, steps: int, epsilon: float) -> float:
    """Return the noise multiplier of subsampled Gaussian steps at an epsilon."""
    return solve_noise_multiplier([(rate, steps)], epsilon, DELTA)


def rows(quick: bool) -> Iterator[dict[str, Any]]:
    """Yield the row of every possible size, epsilon and number of bands."""
    for records, epsilon, count in product(RECORDS, EPSILONS, BANDS[: 2 if quick else None]):
        if (row := compare(records, epsilon, count)) is not None:
            print(row, file=sys.stderr, flush=True)
            yield row


def main() -> None:
    """Compare on the whole grid."""
    options = record.parser(__doc__.splitlines()[0]).parse_args()
    record.write(options.out, "correlated noise", list(rows(options.quick)))


if __name__ == "__main__":
    main()
