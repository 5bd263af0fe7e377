"""Where the accountants of a plan and of Opacus differ: PLD, PRV and RDP on one grid of schedules.

    python -m simulations.benchmarks.accountants [--quick] [--out FILE.json]

Epsilon at delta 1e-5 of Poisson-subsampled Gaussian steps, add/remove. A row holds ours (PLD), the
upper end of Opacus' PRV with its default error of 0.01 and with a thousandth of epsilon, and
Opacus' RDP. About 5 minutes.
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
"""Epsilons outside of these are nobody's plan."""
LARGEST_PRODUCT = 1_000
"""Steps beyond which PRV, asked for a thousandth, takes more memory than a laptop has."""


def compare(steps: Steps) -> dict[str, Any] | None:
    """One row, or None if nobody would plan this."""
    ours = epsilon([steps], DELTA)
    if not SHOWN[0] <= ours <= SHOWN[1]:
        return None
    history = [(steps.noise_multiplier, steps.sample_rate, steps.steps)]
    prv, rdp = PRVAccountant(), RDPAccountant()
    prv.history, rdp.history = history, history
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RDP: the best order is the largest or smallest tried
        fine = None
        if steps.steps <= LARGEST_PRODUCT:
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
    """Compare everywhere, and name the largest differences."""
    options = record.parser("Where PLD, PRV and RDP differ.").parse_args()
    grid = list(product(RATES, NOISES, STEPS))
    rows = []
    for i, (rate, noise, steps) in enumerate(grid[::7] if options.quick else grid, start=1):
        print(f"{i}/{len(grid)}: rate {rate}, noise {noise}, {steps} steps", file=sys.stderr)
        if row := compare(Steps(rate, noise, steps)):
            rows.append(row)
    record.write(options.out, "accountants", rows)
    for name in ("prv_default", "prv_fine", "rdp"):
        known = [row for row in rows if row[name] is not None]
        worst = max(known, key=lambda row: abs(row[name] / row["pld"] - 1))
        share = 100 * (worst[name] / worst["pld"] - 1)
        print(f"{name}: at most {share:+.1f} %, at {worst}", file=sys.stderr)


if __name__ == "__main__":
    main()
