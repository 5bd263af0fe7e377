"""Error and coverage of a mean Dice overlap that is measured under differential privacy.

    python -m simulations.benchmarks.outline_measurement [--quick] [--out FILE.json]

Each row: overlaps are drawn 400 times, counted as a site counts them, given the noise of an epsilon
at delta 1e-5, and judged as the report judges them. A tenth of the outlines is missed (overlap 0),
the others have a mean of .8. `error` is the distance of the measured mean to the exact one of the
same images that 95 % of the measurements keep; `covered` the share whose interval holds the true
mean; `width` the median width of the interval; `hidden` the number of measurements without a
figure, because the noise hid the number of images. It takes about 10 seconds.
"""

import sys
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from client.privacy.accounting import ARITHMETIC_EPSILON, solve_noise_multiplier
from server.measures.overlaps import overlaps
from server.protocol.aggregation import noise_std
from server.protocol.score_counts import OVERLAPS, OverlapCounts, ScoreCounts
from simulations.benchmarks import record

DELTA = 1e-5
EPSILONS = (0.5, 1.0, 2.0)
IMAGES = (100, 200, 500, 2_000)
DRAWS = 400


def drawn(images: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the overlaps of a model that misses a tenth of the outlines."""
    found = rng.beta(8, 2, images)
    found[rng.random(images) < 0.1] = 0
    return found


def measure(epsilon: float, images: int) -> dict[str, Any]:
    """Return the row of one epsilon and number of images."""
    rng = np.random.default_rng(images)
    multiplier = solve_noise_multiplier([(1.0, 1)], epsilon - ARITHMETIC_EPSILON, DELTA)
    std = noise_std(multiplier, 1.0, 1)
    truth = 0.9 * 0.8
    errors, covered, widths = [], [], []
    for _ in range(DRAWS):
        values = drawn(images, rng)
        dice = overlaps({"site": _sent(values, std, rng)}, {"site": "kind"})[0]["dice"]
        if dice is not None:
            errors.append(abs(dice["value"] - values.mean()))
            covered.append(dice["low"] <= truth <= dice["high"])
            widths.append(dice["high"] - dice["low"])
    return {
        "epsilon": epsilon,
        "delta": DELTA,
        "images": images,
        "std": round(std, 3),
        "error": round(float(np.quantile(errors, 0.95)), 4),
        "covered": round(float(np.mean(covered)), 3),
        "width": round(float(np.median(widths)), 4),
        "hidden": DRAWS - len(errors),
    }


def _sent(values: npt.NDArray[np.float64], std: float, rng: np.random.Generator) -> ScoreCounts:
    """Return what a site with these overlaps sends."""
    places = values * (OVERLAPS - 1)
    below = np.minimum(places.astype(int), OVERLAPS - 2)
    counts = rng.normal(0, std, OVERLAPS)
    np.add.at(counts, below, 1 - (places - below))
    np.add.at(counts, below + 1, places - below)
    images = tuple(float(count) for count in counts)
    own = OverlapCounts(task="outline", images=images)
    return ScoreCounts(std=std, outputs=(), overlaps=(own,))


def main() -> None:
    """Measure on the whole grid."""
    options = record.parser("error and coverage of a measured overlap under DP").parse_args()
    grid = list(product(EPSILONS, IMAGES))
    rows = []
    for epsilon, images in grid[::5] if options.quick else grid:
        print(f"epsilon {epsilon}, {images} images", file=sys.stderr)
        rows.append(measure(epsilon, images))
    record.write(options.out, "outline-measurement", rows)


if __name__ == "__main__":
    main()
