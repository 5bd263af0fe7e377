"""A comparison of this project's accountant (PLD) with those of Opacus (PRV, RDP).

    python -m simulations.benchmarks.accountants [--quick] [--out FILE.json]

Each row holds the epsilon at delta 1e-5 of Poisson-subsampled Gaussian steps under add/remove: by
our PLD accountant, by the upper end of Opacus' PRV with its default error of 0.01 and with an error
of a thousandth of epsilon, and by Opacus' RDP. It takes about 5 minutes.
"""

import sys
import warnings
from itertools import product
from typing import Any

from opacus.accountants import PRVAccountant, RDPAccountant

from client.privacy.accounting import Steps, epsilon
from simulations.benchmarks import record

DELTA = 1e-5
RATES = (0.001, 0.01, 0.1, 0.3, 1.0)
NOISES = (0.6, 1.0, 2.0, 5.0, 15.0)
STEPS = (1, 30, 300, 3_000)
SHOWN = (0.05, 20.0)
"""Range of epsilon that occurs in plans; rows outside of it are left out."""
MAX_PRV_STEPS = 1_000
"""Steps beyond which PRV, with the smaller error, needs more memory than a laptop has."""


def compare(steps: Steps) -> dict[str, Any] | None:
    """Return the row of some steps, or None if their epsilon is outside of the range."""
    ours = epsilon([steps], DELTA)
    # Differences between accountants outside of this range would change no plan.
    if not SHOWN[0] <= ours <= SHOWN[1]:
        return None
    history = [(steps.noise_multiplier, steps.sample_rate, steps.steps)]
    prv, rdp = PRVAccountant(), RDPAccountant()
    prv.history, rdp.history = history, history
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RDP: the best order is the largest or smallest tried
        fine = None
        # None marks combinations that were too large to compute.
        if steps.steps <= MAX_PRV_STEPS:
            fine = float(prv.get_epsilon(DELTA, eps_error=ours / 1_000))
        return {
            "sample_rate": steps.sample_rate,
            "noise_multiplier": steps.noise_multiplier,
            "steps": steps.steps,
            "delta": DELTA,
            "pld": ours,
            "prv_default": float(prv.get_epsilon(DELTA)),
            "prv_fine": fine,
            "rdp": float(rdp.get_epsilon(DELTA)),
        }


def main() -> None:
    """Compare on the whole grid, and print the largest differences."""
    options = record.parser("compare the accountants PLD, PRV and RDP").parse_args()
    grid = list(product(RATES, NOISES, STEPS))
    rows = []
    for i, (rate, noise, steps) in enumerate(grid[::7] if options.quick else grid, start=1):
        print(f"{i}/{len(grid)}: rate {rate}, noise {noise}, {steps} steps", file=sys.stderr)
        if row := compare(Steps(rate, noise, steps)):
            rows.append(row)
    record.write(options.out, "accountants", rows)
    for name in ("prv_default", "prv_fine", "rdp"):
        known = [row for row in rows if row[name] is not None]
        # Relative to ours: a difference of .1 matters at epsilon 1, not at 20.
        worst = max(known, key=lambda row: abs(row[name] / row["pld"] - 1))
        share = 100 * (worst[name] / worst["pld"] - 1)
        print(f"{name}: at most {share:+.1f} %, at {worst}", file=sys.stderr)


if __name__ == "__main__":
    main()
