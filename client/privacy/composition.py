"""Composition of a site's runs over the life of its record set, by one rule fixed at registration.

`basic`: epsilons and deltas add up, even if a later run is chosen after seeing earlier ones
(Rogers et al. 2016, arXiv:1605.08294).

`rdp`: the Renyi filter of Feldman and Zrnic 2021 (arXiv:2008.11193) at ONE order, which is fixed at
registration from the public budget. The filter's limit is the divergence that converts to the
lifetime budget (Canonne, Kamath and Steinke 2020, arXiv:2004.00010, proposition 12). A run is
admitted while the divergences of all admitted runs at that order stay within the limit. The result
holds for adaptively chosen costs, because a server may choose a run after seeing earlier ones, and
for interleaved runs (Haney et al. 2023, arXiv:2309.05901: a Renyi divergence of fixed order).

There is one order because a rule "some order still fits" would let the results of earlier runs
decide which order that is. A union bound covers this if delta is divided by the number of orders,
but two orders then admit fewer runs than the one chosen here in nearly all settings we tried.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from client.privacy.accounting import ARITHMETIC_EPSILON, MAX_THOUSANDTHS, Steps, smallest
from client.site import Privacy, Rule
from medformer.common.rounding import digits_down, exact, rounded_down, rounded_up

MAX_ORDER = 4096
"""Renyi orders below this one are considered."""
ROUNDING = 1 + 1e-9
"""Factor by which divergences are enlarged; the rounding error of their sum is far smaller."""
ARITHMETIC = 3 * ARITHMETIC_EPSILON
"""Added to a run's divergence, because the noise is discrete. Likelihoods that change by a factor
of up to e^x change a divergence of order a by up to x (2a - 1) / (a - 1): at most 3x for a >= 2."""
DELTA_ROUNDING = 1e-9
"""Relative excess of a sum of deltas that counts as rounding."""


@dataclass(frozen=True)
class Cost:
    """The cost of one run, or of several together.

    >>> Cost(1.0, 1e-6) + Cost(2.0, 1e-6)
    Cost(epsilon=3.0, delta=2e-06, renyi=None)
    """

    epsilon: float
    """Sum of the epsilons that the runs have by themselves."""
    delta: float
    """Sum of the deltas that the runs have by themselves."""
    renyi: float | None = None
    """Renyi divergence at the registered order; None under `basic`."""

    def __add__(self, other: "Cost") -> "Cost":
        renyi = None if self.renyi is None else self.renyi + (other.renyi or 0.0)
        return Cost(self.epsilon + other.epsilon, self.delta + other.delta, renyi)

    def values(self) -> dict[str, float]:
        """Return the cost as the row of a reservation records it."""
        own = {"epsilon": self.epsilon, "delta": self.delta}
        return own if self.renyi is None else {**own, "renyi": self.renyi}


@dataclass(frozen=True)
class Budget:
    """The upper limit for all runs together, under one rule."""

    rule: Rule
    epsilon: float
    delta: float
    order: int | None = None
    """Renyi order, above 1; None under `basic`."""
    limit: float | None = None
    """Largest Renyi divergence of all runs together at `order`; None under `basic`."""

    @classmethod
    def of(cls, privacy: Privacy, order: int | None = None) -> "Budget":
        """Return the lifetime budget that a site declares.

        Args:
            privacy: The site's declaration.
            order: Renyi order registered before; `best_order` chooses one if omitted.
        Raises:
            ValueError: No order gives so small a budget.
        """
        epsilon, delta = privacy.lifetime_epsilon, privacy.lifetime_delta
        if privacy.rule == "basic":
            return cls("basic", epsilon, delta)
        # A registered order stays: choosing a new one would depend on what earlier runs cost.
        order = order or best_order(epsilon, delta)
        return cls("rdp", epsilon, delta, order, renyi_limit(order, epsilon, delta))

    @classmethod
    def registered(cls, rows: Sequence[Mapping[str, Any]]) -> "Budget":
        """Return the smallest budget among the registrations of a ledger.

        Args:
            rows: Bodies of its `cohort` rows, at least one, oldest first. Rows of older versions
                have no rule and mean `basic`.
        """
        # A budget that was lowered once stays lowered, so the newest row does not decide.
        epsilon = min(row["epsilon_budget"] for row in rows)
        delta = min(row["delta_budget"] for row in rows)
        if rows[0].get("rule", "basic") == "basic":
            return cls("basic", epsilon, delta)
        limit = min(row["limit"] for row in rows)
        return cls("rdp", epsilon, delta, rows[0]["order"], limit)

    def values(self) -> dict[str, Any]:
        """Return the budget as a `cohort` row records it, beside the unit."""
        own = {"rule": self.rule, "epsilon_budget": self.epsilon, "delta_budget": self.delta}
        return own if self.order is None else {**own, "order": self.order, "limit": self.limit}

    @property
    def nothing(self) -> Cost:
        """Cost before the first run."""
        return Cost(0.0, 0.0, None if self.order is None else 0.0)

    def cost(self, epsilon: float, delta: float, mechanisms: Iterable[Steps]) -> Cost:
        """Return the cost of one run under this rule.

        Args:
            epsilon: Epsilon of the run by itself.
            delta: Its delta.
            mechanisms: All of its steps.
        """
        if self.order is None:
            return Cost(epsilon, delta)
        return Cost(epsilon, delta, ARITHMETIC + sum(renyi(m, self.order) for m in mechanisms))

    def total(self, reservations: Iterable[Mapping[str, Any]]) -> Cost:
        """Return the cost of all admitted runs together.

        Args:
            reservations: Bodies of their `reservation` rows.
        """
        total = self.nothing
        for row in reservations:
            renyi_ = None if self.order is None else row["renyi"]
            total += Cost(row["epsilon"], row["delta"], renyi_)
        return total

    def fits(self, total: Cost) -> bool:
        """Tell whether runs keep the budget.

        Args:
            total: Their cost together.

        >>> budget = Budget("basic", epsilon=8.0, delta=1e-5)
        >>> budget.fits(Cost(8.0, 1e-5)), budget.fits(Cost(8.001, 1e-5))
        (True, False)
        """
        # Under `rdp` the limit alone decides; it implies epsilon and delta of the budget.
        if self.limit is not None and total.renyi is not None:
            return total.renyi <= self.limit
        return total.epsilon <= self.epsilon and total.delta <= self.delta * (1 + DELTA_ROUNDING)

    def spent(self, total: Cost) -> tuple[float, float]:
        """Return epsilon and delta of all runs together, by this rule's conversion and no other.

        Under `rdp` this is the whole budget from the first run on: for runs that are chosen after
        seeing earlier ones, a filter promises its limit and nothing smaller while it fills.

        Args:
            total: Cost of all admitted runs.
        """
        if total.renyi is None:
            return total.epsilon, total.delta
        return (self.epsilon, self.delta) if total.renyi else (0.0, 0.0)

    def used(self, total: Cost) -> float:
        """Return the part of the budget that no later run can have, from 0 to 1.

        Args:
            total: Cost of all admitted runs.
        """
        if self.limit is not None and total.renyi is not None:
            return min(1.0, total.renyi / self.limit)
        return min(1.0, max(total.epsilon / self.epsilon, total.delta / self.delta))

    def left(self, total: Cost, cost: Cost) -> str:
        """Return the rest of the budget, as a clause that follows "this run would cost ...;".

        Args:
            total: Cost of all admitted runs.
            cost: Cost of the run that is refused.
        """
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
    """Return the largest Renyi divergence that implies (epsilon, delta)-DP.

    Args:
        order: Renyi order, above 1.
        epsilon, delta: The guarantee that has to follow.
    Returns:
        The divergence; negative if no divergence of this order implies the guarantee.
    Source: Canonne, Kamath and Steinke 2020, arXiv:2004.00010, proposition 12, which
        dp_accounting and Opacus use too.

    >>> round(renyi_limit(4, 8.0, 1e-5), 4)
    4.9121
    """
    return epsilon - math.log1p(-1 / order) + math.log(delta * order) / (order - 1)


@lru_cache(maxsize=16)
def best_order(epsilon: float, delta: float) -> int:
    """Return the whole order at which the largest number of equal Gaussian steps fits the budget.

    The divergence of a Gaussian is proportional to the order, and that of many subsampled steps is
    nearly so. At whole orders the divergence of a subsampled Gaussian is a finite sum.

    Args:
        epsilon, delta: The lifetime budget.
    Raises:
        ValueError: No order gives so small a budget.

    >>> best_order(8.0, 1e-5)
    4
    """
    order = max(range(2, MAX_ORDER), key=lambda a: renyi_limit(a, epsilon, delta) / a)
    # Below zero no divergence is small enough, not even that of no run at all.
    if renyi_limit(order, epsilon, delta) <= 0:
        raise ValueError(
            f"privacy.rule: rdp cannot keep a lifetime budget as small as epsilon "
            f"{exact(epsilon)}, delta {exact(delta)}: use basic"
        )
    return order


@lru_cache(maxsize=256)
def renyi(steps: Steps, order: int) -> float:
    """Return the Renyi divergence of Poisson-subsampled Gaussian steps, rounded up.

    Args:
        steps: The steps; neighbours differ by one added or removed unit.
        order: Whole Renyi order, 2 or more.
    Source: Mironov, Talwar and Zhang 2019, arXiv:1908.10530, sections 3.1 to 3.3 (both
        directions).

    >>> without_sampling = Steps(sample_rate=1.0, noise_multiplier=2.0, steps=1)
    >>> round(renyi(without_sampling, 4), 6)  # order / (2 sigma^2)
    0.5
    """
    # dp_accounting takes a second to import, and sites under `basic` do not need it.
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
    """Return a noise multiplier with which a run, as the only one, keeps the lifetime budget.

    Earlier runs do not count here: noise that grew with them would reveal them to a server.

    Args:
        privacy: The site's declaration.
        noise_multiplier: The noise that the run's own epsilon needs; the result is at least this.
        rates_and_steps: (sample_rate, steps) of everything that will be admitted with this noise.
        fixed: Steps that are admitted besides, with their own noise.
    Raises:
        ValueError: No noise multiplier up to 100,000 suffices.
    """
    # A run's epsilon is at most the lifetime's, which the declaration checks.
    if privacy.rule == "basic":
        return noise_multiplier
    budget = Budget.of(privacy)

    def fits(thousandths: int) -> bool:
        parts = [Steps(q, thousandths / 1000, n) for q, n in rates_and_steps]
        return budget.fits(budget.cost(0.0, 0.0, [*fixed, *parts]))

    lowest = round(1000 * noise_multiplier)
    if fits(lowest):
        return noise_multiplier
    if not fits(MAX_THOUSANDTHS):
        raise ValueError(
            f"privacy.rule: rdp does not let a run like this into a lifetime budget of epsilon "
            f"{exact(budget.epsilon)}, delta {exact(budget.delta)}: plan fewer steps or "
            "raise epsilon_budget"
        )
    return smallest(lowest, MAX_THOUSANDTHS, fits) / 1000
