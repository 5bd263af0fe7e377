"""How the runs of one site add up over the life of its record set: one rule, fixed at registration.

`basic`: epsilons and deltas add up, also when later runs are chosen after seeing earlier ones
(Rogers et al. 2016, arXiv:1605.08294).

`rdp`: the Renyi filter of Feldman and Zrnic 2021 (arXiv:2008.11193) at ONE order, fixed at
registration from the public budget. Its limit is the divergence from which the conversion of
Canonne, Kamath and Steinke 2020 (arXiv:2004.00010, proposition 12) gives the lifetime budget; a run
is admitted while the divergences of all admitted runs at that order stay within it. Their result
holds for costs that are chosen adaptively, as a server may choose a run after seeing earlier ones,
and for interleaved runs (Haney et al. 2023, arXiv:2309.05901: a Renyi divergence of fixed order).

Why one order: with "some order still fits", what was seen of earlier runs may decide which order is
the one that fits. A union bound covers that, with delta divided by the number of orders; two orders
then admit fewer runs than the one chosen here in all but a few settings tried, so there is one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from client.privacy.accounting import ARITHMETIC_EPSILON, MOST, Steps, smallest
from client.site import Privacy, Rule
from medformer.common.rounding import digits_down, exact, rounded_down, rounded_up

LARGEST_ORDER = 4096
ROUNDING = 1 + 1e-9
"""Divergences are written a little too large: their sum is exact to far less than this."""
ARITHMETIC = 3 * ARITHMETIC_EPSILON
"""Added to a run's divergence: likelihoods that change by a factor of up to e^x change a divergence
of order a by up to x (2a - 1) / (a - 1), which is at most 3x from order 2 on."""


@dataclass(frozen=True)
class Cost:
    """What a run, or several together, cost."""

    epsilon: float
    """Sum of the runs' own epsilons."""
    delta: float
    """Sum of the runs' own deltas."""
    renyi: float | None = None
    """Renyi divergence at the registered order; None under `basic`."""

    def __add__(self, other: "Cost") -> "Cost":
        renyi = None if self.renyi is None else self.renyi + (other.renyi or 0.0)
        return Cost(self.epsilon + other.epsilon, self.delta + other.delta, renyi)

    def values(self) -> dict[str, float]:
        """As a reservation's row keeps it."""
        own = {"epsilon": self.epsilon, "delta": self.delta}
        return own if self.renyi is None else {**own, "renyi": self.renyi}


@dataclass(frozen=True)
class Budget:
    """Most that all runs together may cost, under one rule."""

    rule: Rule
    epsilon: float
    delta: float
    order: int | None = None
    """Renyi order, above 1, under `rdp`."""
    limit: float | None = None
    """Renyi divergence that all runs together may have at `order`."""

    @classmethod
    def of(cls, privacy: Privacy, order: int | None = None) -> "Budget":
        """The lifetime budget that a site declares.

        Args:
            order: Registered before; chosen by `best_order` if left out.
        Raises:
            ValueError: No order gives so small a budget.
        """
        epsilon, delta = privacy.lifetime_epsilon, privacy.lifetime_delta
        if privacy.rule == "basic":
            return cls("basic", epsilon, delta)
        order = order or best_order(epsilon, delta)
        return cls("rdp", epsilon, delta, order, renyi_limit(order, epsilon, delta))

    @classmethod
    def registered(cls, rows: Sequence[Mapping[str, Any]]) -> "Budget":
        """The smallest one that the `cohort` rows of a ledger hold; without a rule: `basic`."""
        epsilon = min(row["epsilon_budget"] for row in rows)
        delta = min(row["delta_budget"] for row in rows)
        if rows[0].get("rule", "basic") == "basic":
            return cls("basic", epsilon, delta)
        limit = min(row["limit"] for row in rows)
        return cls("rdp", epsilon, delta, rows[0]["order"], limit)

    def values(self) -> dict[str, Any]:
        """As a `cohort` row keeps it, beside the unit."""
        own = {"rule": self.rule, "epsilon_budget": self.epsilon, "delta_budget": self.delta}
        return own if self.order is None else {**own, "order": self.order, "limit": self.limit}

    @property
    def nothing(self) -> Cost:
        """Before the first run."""
        return Cost(0.0, 0.0, None if self.order is None else 0.0)

    def cost(self, epsilon: float, delta: float, mechanisms: Iterable[Steps]) -> Cost:
        """What a run of these steps costs; `epsilon` and `delta` are its own."""
        if self.order is None:
            return Cost(epsilon, delta)
        return Cost(epsilon, delta, ARITHMETIC + sum(renyi(m, self.order) for m in mechanisms))

    def total(self, reservations: Iterable[Mapping[str, Any]]) -> Cost:
        """What all admitted runs cost together, from the rows of their reservations."""
        total = self.nothing
        for row in reservations:
            renyi_ = None if self.order is None else row["renyi"]
            total += Cost(row["epsilon"], row["delta"], renyi_)
        return total

    def fits(self, total: Cost) -> bool:
        """Whether runs of this cost together keep the budget."""
        if self.limit is not None and total.renyi is not None:
            return total.renyi <= self.limit
        return total.epsilon <= self.epsilon and total.delta <= self.delta * (1 + 1e-9)

    def spent(self, total: Cost) -> tuple[float, float]:
        """Epsilon and delta of all runs together, by this rule's conversion and no other.

        Under `rdp` that is the whole budget from the first run on: a filter promises its limit, and
        nothing smaller while it fills, for runs that are chosen after seeing earlier ones.
        """
        if total.renyi is None:
            return total.epsilon, total.delta
        return (self.epsilon, self.delta) if total.renyi else (0.0, 0.0)

    def used(self, total: Cost) -> float:
        """Part of the budget that no later run can have, 0 to 1."""
        if self.limit is not None and total.renyi is not None:
            return min(1.0, total.renyi / self.limit)
        return min(1.0, max(total.epsilon / self.epsilon, total.delta / self.delta))

    def left(self, total: Cost, cost: Cost) -> str:
        """What is left, in words that follow "this run would cost ...;"."""
        if self.limit is not None and total.renyi is not None:
            return (
                f"its Renyi divergence at order {self.order} is {rounded_up(cost.renyi or 0.0)}, "
                f"and {rounded_down(max(0.0, self.limit - total.renyi))} are left"
            )
        return (
            f"{rounded_down(max(0.0, self.epsilon - total.epsilon))} and "
            f"{digits_down(max(0.0, self.delta - total.delta))} are left"
        )


def renyi_limit(order: float, epsilon: float, delta: float) -> float:
    """Largest Renyi divergence of this order that implies (epsilon, delta); may be negative.

    Source: Canonne, Kamath and Steinke 2020, arXiv:2004.00010, proposition 12, which
    dp_accounting and Opacus use too.
    """
    return epsilon - math.log1p(-1 / order) + math.log(delta * order) / (order - 1)


@lru_cache(maxsize=16)
def best_order(epsilon: float, delta: float) -> int:
    """The whole order at which most equal Gaussian steps fit the budget.

    A Gaussian's divergence is proportional to its order, and that of many subsampled steps is
    nearly so. Only whole orders: for those the divergence of a subsampled Gaussian is a finite sum.

    Raises:
        ValueError: None gives so small a budget.
    """
    order = max(range(2, LARGEST_ORDER), key=lambda a: renyi_limit(a, epsilon, delta) / a)
    if renyi_limit(order, epsilon, delta) <= 0:
        raise ValueError(
            f"privacy.rule: rdp cannot keep a lifetime budget as small as epsilon "
            f"{exact(epsilon)}, delta {exact(delta)}: use basic"
        )
    return order


@lru_cache(maxsize=256)
def renyi(steps: Steps, order: int) -> float:
    """Renyi divergence of Poisson-subsampled Gaussian steps, add/remove one unit, rounded up.

    Source: Mironov, Talwar and Zhang 2019, arXiv:1908.10530, sections 3.1 to 3.3 (both directions).
    """
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant([order])
    step = PoissonSampledDpEvent(steps.sample_rate, GaussianDpEvent(steps.noise_multiplier))
    accountant.compose(step, steps.steps)
    return float(accountant.rdp[0]) * ROUNDING


def enough_noise(
    privacy: Privacy,
    noise_multiplier: float,
    rates_and_steps: Sequence[tuple[float, int]],
    fixed: Sequence[Steps] = (),
) -> float:
    """Noise multiplier with which a run, were it the only one, keeps the lifetime budget.

    What earlier runs left does not count: noise that grew with them would tell a server of them.

    Args:
        noise_multiplier: What the run's own epsilon needs; the result is at least this.
        rates_and_steps: (sample_rate, steps) of everything that will be admitted.
        fixed: What is admitted besides, with noise of its own.
    Raises:
        ValueError: No noise multiplier up to 100,000 suffices.
    """
    if privacy.rule == "basic":
        return noise_multiplier
    budget = Budget.of(privacy)

    def fits(thousandths: int) -> bool:
        parts = [Steps(q, thousandths / 1000, n) for q, n in rates_and_steps]
        return budget.fits(budget.cost(0.0, 0.0, [*fixed, *parts]))

    least = round(1000 * noise_multiplier)
    if fits(least):
        return noise_multiplier
    if not fits(MOST):
        raise ValueError(
            f"privacy.rule: rdp does not let a run like this into a lifetime budget of epsilon "
            f"{exact(budget.epsilon)}, delta {exact(budget.delta)}: plan fewer steps or "
            "raise epsilon_budget"
        )
    return smallest(least, MOST, fits) / 1000
