"""Verifies a site's ledger: its chain, its sums, its plans, and that no row at its end is gone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from client.ledger.anchor import held_by_anchor
from client.ledger.chain import LedgerError, Row
from client.ledger.export import held_against, read
from client.privacy.composition import Budget
from client.privacy.plan import PrivacyPlan, recomputed
from medformer.common.rounding import rounded_up
from server.protocol import Schedule
from server.protocol.vouchers import read_vouchers
from simulations.verification.findings import Finding, ok, unknown, wrong
from simulations.verification.report import differences, read_report


def verify_ledger(
    path: Path,
    *,
    report: Path | None = None,
    site: str | None = None,
    anchor: Path | None = None,
) -> list[Finding]:
    """Check everything in a ledger that can be checked.

    Args:
        path: A state folder, its ledger, or an export.
        report: report.json of a run that the site took part in.
        site: The site's name in the report; may be omitted if the report has one site.
        anchor: The ledger's anchor (`ledger_anchor` in site.yaml).
    """
    try:
        rows = read(path)
    except LedgerError as error:
        return [wrong(f"{error}")]
    newest = f", newest {rows[-1].hash[:16]}" if rows else ""
    found = [ok(f"{len(rows)} rows, each with the hash of the row before{newest}")]
    found += _budgets(rows)
    reserved = [row for row in rows if row.kind == "reservation"]
    attempts = [row for row in rows if row.kind == "attempt"]
    for row in reserved:
        found += _run(row, [a.values for a in attempts if a.run_id == row.run_id])
    if anchor is not None:
        found.append(_anchored(rows, anchor, path))
    if report is None:
        text = "whether rows at the end are gone cannot be told without anchor or report"
        advice = "name the site's folder, or a report of its newest run with --report"
        return found if anchor else [*found, unknown(f"{text}: {advice}")]
    try:
        held_against(rows, report, site)
    except LedgerError as error:
        return [*found, wrong(f"{error}")]
    found.append(ok("it still has the row that the report names"))
    return [*found, *_same(reserved, report, site)]


def _anchored(rows: Sequence[Row], anchor: Path, path: Path) -> Finding:
    """Compare the end of the ledger with its anchor."""
    if not anchor.exists() and not any(row.kind == "anchor" for row in rows):
        return unknown(f"{anchor}: the site has written no anchor yet")
    try:
        held_by_anchor(rows, anchor, path)
    except LedgerError as error:
        return wrong(f"{error}")
    return ok(f"its newest row is that of the anchor {anchor}")


def _budgets(rows: Sequence[Row]) -> list[Finding]:
    """Add up the runs in the order in which they were admitted."""
    budgets: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    try:
        for row in rows:
            if row.kind == "cohort":
                budgets.append(row.values)
            if row.kind != "reservation":
                continue
            if not budgets:
                return [wrong("a run was admitted before any budget was registered")]
            budget = Budget.registered(budgets)
            # At the time: a budget may be lowered below what was spent already.
            runs.append(row.values)
            if not budget.fits(budget.total(runs)):
                return [wrong(f"run {row.run_id} was admitted beyond the lifetime budget")]
        if not budgets:
            return [wrong("no budget is registered: the ledger is not complete")]
        budget = Budget.registered(budgets)
        epsilon, _ = budget.spent(budget.total(runs))
    except (KeyError, TypeError, ValueError) as error:
        return [wrong(f"a row of the ledger cannot be read ({type(error).__name__}: {error})")]
    together = "1 run" if len(runs) == 1 else f"{len(runs)} runs together"
    text = f"{together}: epsilon {rounded_up(epsilon)} of {budget.epsilon:g}"
    return [ok(f"{text}, by the rule {budget.rule}")]


def _run(row: Row, attempts: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Compute the cost of one run again, and count its attempts."""
    body = row.values
    try:
        plan = PrivacyPlan.from_json(body["plan"])
        schedule = Schedule.model_validate_json(body["schedule"])
        again = recomputed(plan, schedule)
        charged = float(body["epsilon"]), float(body["delta"])
    except (KeyError, TypeError, ValueError) as error:
        return [wrong(f"run {row.run_id}: {error}")]
    if different := differences(plan, again):
        return [wrong(f"run {row.run_id}: does not follow from its steps: {', '.join(different)}")]
    if charged != (plan.epsilon, plan.delta):
        return [wrong(f"run {row.run_id}: the ledger charged something else than its plan costs")]
    trained = {a["round"] for a in attempts if a["attempt"] == 0}
    repeated = sum(a["attempt"] > 0 for a in attempts)
    if not trained <= set(range(1, plan.rounds + 1)) or repeated > plan.spare_rounds:
        return [wrong(f"run {row.run_id}: more was trained than its budget was reserved for")]
    text = f"run {row.run_id}: epsilon {rounded_up(plan.epsilon)} follows from {plan.steps} steps"
    return [ok(f"{text}; {len(trained)} of {plan.rounds} rounds trained, {repeated} repeated")]


def _same(reserved: Sequence[Row], report: Path, site: str | None) -> list[Finding]:
    """Compare the reservation with the receipt that the guard has signed in the report."""
    vouchers = read_vouchers(read_report(report)["vouchers"])
    name = site or next(iter(vouchers), "")
    if name not in vouchers:
        return [unknown(f"the report holds no signed receipt of site {name!r}")]
    voucher = vouchers[name]
    row = next((row for row in reserved if row.run_id == voucher.run_id), None)
    if row is None:
        return [wrong(f"run {voucher.run_id} of the report is not on the ledger")]
    if PrivacyPlan.from_json(row.values["plan"]) != PrivacyPlan.from_json(voucher.receipt):
        return [wrong(f"run {voucher.run_id}: the report's receipt is not the ledger's plan")]
    return [ok(f"run {voucher.run_id} is in the report as the ledger has it")]
