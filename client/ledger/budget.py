"""The lifetime budget of a record set: registered once, lowered at will, never raised."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from client.ledger.chain import LedgerError
from client.ledger.rows import Rows
from client.privacy.composition import Budget, Cost
from client.privacy.plan import PrivacyPlan
from client.refusals import BudgetExhausted
from client.site import Privacy, Rule
from medformer.common.rounding import digits_up, exact, rounded_up

DELTA_ROUNDING = 1e-12
"""Relative difference of two deltas that counts as rounding: some budgets are computed."""


class Account:
    """The registered budget of a record set, and the cost of all runs admitted against it.

    Args:
        rows: The ledger's table.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def register(self, privacy: Privacy) -> None:
        """Register the budget of a site.yaml, unless it is registered already.

        Args:
            privacy: The site's declaration.
        Raises:
            LedgerError: It would raise the budget, or change unit or rule.
        """
        with self._rows.transaction():
            registered = [body for _, body in self._rows.of_kind("cohort")]
            budget = registrable(registered, privacy, self._rows.path)
            body = {"unit": privacy.unit, **budget.values()}
            # Every opening of the ledger gets here, and most declare what stands already.
            if body not in registered:
                self._rows.append("cohort", "", body)

    def check(self, plan: PrivacyPlan, site: str = "") -> None:
        """Refuse a run that does not fit into what is left; nothing is written.

        Args:
            plan: The run's plan.
            site: Name of the site, for the error.
        Raises:
            BudgetExhausted: It does not fit.
        """
        # Read anew each time: another process may have reserved a run since.
        budget, total, cost = self._budget, self._total(), self.cost(plan)
        if budget.fits(total + cost):
            return
        who = f"site {site}: " if site else ""
        raise BudgetExhausted(
            f"{who}this run would cost epsilon {rounded_up(plan.epsilon)}, "
            f"delta {digits_up(plan.delta)}; "
            f"{budget.left(total, cost)} of the lifetime budget. "
            "Plan a cheaper run; spent budget does not come back"
        )

    def cost(self, plan: PrivacyPlan) -> Cost:
        """Return the cost of a run under the registered rule.

        Args:
            plan: The run's plan.
        """
        return self._budget.cost(plan.epsilon, plan.delta, [p.mechanism() for p in plan.phases])

    def spent(self) -> tuple[float, float]:
        """Return epsilon and delta of all admitted runs together, under the registered rule."""
        return self._budget.spent(self._total())

    def used(self) -> float:
        """Return the part of the budget that no later run can have, from 0 to 1."""
        return self._budget.used(self._total())

    def limits(self) -> tuple[float, float]:
        """Return epsilon and delta that all runs together may cost: the smallest registered."""
        return self._budget.epsilon, self._budget.delta

    @property
    def rule(self) -> Rule:
        """Rule by which the costs of runs add up; fixed when the records were registered."""
        return self._budget.rule

    @property
    def _budget(self) -> Budget:
        return Budget.registered([body for _, body in self._rows.of_kind("cohort")])

    def _total(self) -> Cost:
        return self._budget.total(body for _, body in self._rows.of_kind("reservation"))


def registrable(rows: Sequence[Mapping[str, Any]], privacy: Privacy, path: Path) -> Budget:
    """Return the budget of a site.yaml, if the existing ledger may be used with it.

    Args:
        rows: Bodies of the ledger's registrations, oldest first; empty for a new ledger.
        privacy: The site's declaration.
        path: The ledger's file, for the errors.
    Returns:
        The budget, with the Renyi order that was registered first.
    Raises:
        LedgerError: It would raise the budget, or change unit or rule.
    """
    epsilon, delta = privacy.lifetime_epsilon, privacy.lifetime_delta
    # The smallest registration counts, so that a budget which was lowered stays lowered.
    if rows and (
        epsilon > min(b["epsilon_budget"] for b in rows)
        or delta > min(b["delta_budget"] for b in rows) * (1 + DELTA_ROUNDING)
    ):
        raise LedgerError(
            f"{path}: a budget of epsilon {exact(epsilon)}, delta {exact(delta)} is larger "
            "than the one registered for these records: a budget can be lowered, not raised"
        )
    # A patient has many images: epsilon of an image is not epsilon of a patient.
    if any(b["unit"] != privacy.unit for b in rows):
        raise LedgerError(f"{path}: registered for unit {rows[0]['unit']!r}")
    # Choosing the better of two rules afterwards would use what earlier runs revealed.
    if rows and (rule := Budget.registered(rows).rule) != privacy.rule:
        raise LedgerError(
            f"{path}: registered with the rule {rule!r}, asked for {privacy.rule!r}: "
            f"how runs add up is fixed for the life of these records. Set privacy.rule: "
            f"{rule}"
        )
    try:
        return Budget.of(privacy, rows[0].get("order") if rows else None)
    except ValueError as error:
        raise LedgerError(f"{path}: {error}") from error
