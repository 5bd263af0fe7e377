"""Epsilon by two accountants of Opacus, which share no code and no method with ours.

PRV composes the privacy loss by another discretisation (Gopi et al. 2021, arXiv:2106.02848), RDP
by Renyi divergences (Mironov et al. 2019, arXiv:1908.10530), whose bound is a few per cent larger.
Both give upper bounds, and PRV's error is known, so that the true epsilon cannot be less than
PRV's less two errors. A plan that claims so is refused.
"""

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from client.privacy.accounting import Steps
from medformer.common.rounding import exact

ERROR = 0.01
"""Error of PRV's epsilon; relative to epsilons above 1."""
DELTA_ERROR = 1e-3
"""Error of PRV's delta, relative."""
PRV_DELTA = 1e-10
"""PRV is asked at this delta or more: below, rounding is a visible part of it."""
PRV_EPSILON = 60.0
"""PRV is asked up to this epsilon: beyond, it would take minutes and gigabytes."""
ORDERS = (*range(2, 65), *range(72, 257, 8), 512, 1024)
"""Renyi orders of RDP: whole ones, whose divergence is a finite sum."""


class AccountantsDisagreeError(ValueError):
    """Another accountant proves that a plan costs more than it claims."""


def other_epsilons(
    mechanisms: Sequence[Steps], epsilon: float, delta: float
) -> tuple[tuple[str, float], ...]:
    """Return what other accountants say about steps whose epsilon is known.

    Args:
        mechanisms: All steps.
        epsilon: Their epsilon by our accountant, without the allowance for arithmetic.
        delta: At which it was computed.
    Returns:
        (method, upper bound of epsilon). PRV is left out where it cannot be computed.
    Raises:
        AccountantsDisagreeError: PRV proves a larger epsilon than ours, or than RDP's bound.
    """
    parts = tuple(m for m in mechanisms if m.steps)
    if not parts:
        return ()
    rdp = _rdp(parts, delta)
    found = [("RDP (Opacus)", rdp)] if math.isfinite(rdp) else []
    if delta >= PRV_DELTA and epsilon <= PRV_EPSILON:
        error = ERROR * max(1.0, epsilon)
        bounds = _prv(parts, delta, error)
        if bounds is not None:
            low, high = bounds
            for name, bound in (("PLD", epsilon), *found):
                if bound < low:
                    raise AccountantsDisagreeError(
                        f"the accountants disagree: {name} has epsilon {bound:.6g} at delta "
                        f"{exact(delta)}, and PRV proves that it is at least {low:.6g}. Nothing is "
                        f"planned on either; report these steps: {parts}"
                    )
            found.insert(0, ("PRV (Opacus)", high))
    return tuple(found)


@lru_cache(maxsize=64)
def _prv(parts: tuple[Steps, ...], delta: float, error: float) -> tuple[float, float] | None:
    """Return a lower and an upper bound by PRV; None where it finds no answer."""
    # Imported late: it loads torch.
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(m.noise_multiplier, m.sample_rate, m.steps) for m in parts]
    wrong = DELTA_ERROR * delta
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            high, above = (
                float(accountant.get_epsilon(d, eps_error=error, delta_error=wrong))
                # The upper bound at a slightly larger delta is the lower one plus both errors.
                for d in (delta, delta + 2 * wrong)
            )
    # It gives up on some steps: a discretisation that it cannot trust, or a delta out of reach.
    except (RuntimeError, ValueError, ArithmeticError, IndexError):
        return None
    return (above - 2 * error, high) if math.isfinite(high) else None


@lru_cache(maxsize=64)
def _rdp(parts: tuple[Steps, ...], delta: float) -> float:
    """Return an upper bound by RDP."""
    from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # an order at the end of the range is not the best one
        divergences = sum(
            np.asarray(compute_rdp(
                q=m.sample_rate, noise_multiplier=m.noise_multiplier, steps=m.steps, orders=ORDERS
            ))
            for m in parts
        )  # fmt: skip
        spent = get_privacy_spent(orders=ORDERS, rdp=divergences, delta=delta)[0]
    return max(0.0, float(spent))
