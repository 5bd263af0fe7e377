"""Error and coverage of a model's measurement under differential privacy.

    python -m simulations.benchmarks.measurement [--quick] [--out FILE.json]

Each row: scores are drawn 200 times from a model of known AUC, counted as a site counts them, given
the noise of an epsilon at delta 1e-5, and judged as the report judges them. `error` is the distance
of the measured AUC to the exact one of the same records that 95 % of the measurements keep;
`within` the share that is within .01; `covered` the share whose interval holds the true AUC;
`width` the median width of the interval. `best_within` is the share within .01 if nothing but the
AUC left the site, with the least noise that pure epsilon-DP allows by its sensitivity (Laplace). It
takes about 3 minutes.
"""

import math
import sys
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from client.privacy.accounting import ARITHMETIC_EPSILON, solve_noise_multiplier
from server.measures.figures import auc
from server.measures.scores import Density, estimated
from server.protocol.aggregation import noise_std
from server.protocol.score_counts import BINS, EDGES
from simulations.benchmarks import record

Scores = npt.NDArray[np.float64]

DELTA = 1e-5
EPSILONS = (0.5, 1.0, 2.0, 4.0)
IMAGES = (500, 1_000, 2_000, 4_000, 8_000)
PARTS = (0.5, 0.2)
"""Share of the images that show the finding."""
DRAWS = 200
NEAR = 0.01


def measure(epsilon: float, images: int, part: float) -> dict[str, Any]:
    """Return the row of one epsilon, number of images and share of findings."""
    rng = np.random.default_rng(images + int(100 * part))
    multiplier = solve_noise_multiplier([(1.0, 1)], epsilon - ARITHMETIC_EPSILON, DELTA)
    std = noise_std(multiplier, 1.0, 1)
    errors, covered, widths, best = [], [], [], []
    for _ in range(DRAWS):
        truth = rng.uniform(0.75, 0.97)
        shift, scale = norm.ppf(truth) / math.sqrt(2), rng.uniform(0.7, 3.0)
        count = int(images * part)
        shown = scale * rng.normal(shift, 1, count)
        absent = scale * rng.normal(-shift, 1, images - count)
        densities = (_fitted(side, std, rng) for side in (shown, absent))
        found, exact = estimated(auc, *densities), _exact(shown, absent)
        errors.append(abs(found.value - exact))
        covered.append(found.low <= truth <= found.high)
        widths.append(found.high - found.low)
        # One more image of the rarer side can move the AUC by nearly 1 part in so many.
        best.append(1 - math.exp(-NEAR * epsilon * min(count, images - count)))
    return {
        "epsilon": epsilon,
        "delta": DELTA,
        "images": images,
        "shown": part,
        "std": round(std, 3),
        "error": round(float(np.quantile(errors, 0.95)), 4),
        "within": round(float(np.mean(np.array(errors) <= NEAR)), 3),
        "covered": round(float(np.mean(covered)), 3),
        "width": round(float(np.median(widths)), 4),
        "best_within": round(float(np.mean(best)), 3),
    }


def _fitted(scores: Scores, std: float, rng: np.random.Generator) -> Density:
    counts = np.bincount(np.searchsorted(EDGES, scores), minlength=BINS)
    return Density.fit(counts + rng.normal(0, std, BINS), std)


def _exact(shown: Scores, absent: Scores) -> float:
    ranks = rankdata(np.concatenate([shown, absent]))[: len(shown)]
    return float((ranks.mean() - (len(shown) + 1) / 2) / len(absent))


def main() -> None:
    """Measure on the whole grid."""
    options = record.parser("error and coverage of a measurement under DP").parse_args()
    grid = list(product(EPSILONS, IMAGES, PARTS))
    rows = []
    for i, (epsilon, images, part) in enumerate(grid[::9] if options.quick else grid, start=1):
        print(f"{i}/{len(grid)}: epsilon {epsilon}, {images} images, {part:.0%}", file=sys.stderr)
        rows.append(measure(epsilon, images, part))
    record.write(options.out, "measurement", rows)


if __name__ == "__main__":
    main()
