"""Verifies a site's ledger: its chain, its sums, its plans, and that no row at its end is gone."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from client.ledger.anchor import held_by_anchor
from client.ledger.chain import LedgerError, Row
from client.ledger.export import held_against, read
from client.privacy.composition import Budget
from client.privacy.plan import PrivacyPlan
from medformer.common.rounding import exact, rounded_up
from server.protocol.vouchers import read_vouchers
from simulations.verification.claims import faults
from simulations.verification.findings import Finding, ok, unknown, wrong
from simulations.verification.reading import examined, read_report, strict_json


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
    if not rows:
        found = [unknown("the ledger is empty: nothing was ever reserved, or every row is gone")]
        return found if anchor is None else [*found, _anchored(rows, anchor, path)]
    newest = rows[-1].hash[:16]
    found = [ok(f"{len(rows)} rows, each with the hash of the row before, newest {newest}")]
    found += examined("budgets", partial(_budgets, rows))
    reserved = [row for row in rows if row.kind == "reservation"]
    attempts = [row for row in rows if row.kind == "attempt"]
    for row in reserved:
        own = [attempt for attempt in attempts if attempt.run_id == row.run_id]
        found += examined(f"run {row.run_id}", partial(_run, row, own, rows))
    if anchor is not None:
        found.append(_anchored(rows, anchor, path))
    if report is None:
        text = "whether rows at the end are gone cannot be told without anchor or report: name the "
        advice = "folder that holds site.yaml, or a report of the newest run with --report"
        return found if anchor else [*found, unknown(text + advice)]
    return [*found, *examined(str(report), partial(_held, rows, reserved, report, site))]


def _held(
    rows: Sequence[Row], reserved: Sequence[Row], report: Path, site: str | None
) -> list[Finding]:
    """Compare the ledger with a report, which is verified by itself."""
    try:
        held_against(rows, report, site)
    except LedgerError as error:
        return [wrong(f"{error}")]
    return [ok("it still has the row that the report names"), *_same(reserved, report, site)]


def _anchored(rows: Sequence[Row], anchor: Path, path: Path) -> Finding:
    """Compare the end of the ledger with its anchor."""
    if not anchor.exists() and not any(row.kind == "anchor" for row in rows):
        return unknown(f"{anchor}: the site has written no anchor yet")
    try:
        missing = held_by_anchor(rows, anchor, path)
    except LedgerError as error:
        return wrong(f"{error}")
    if missing is not None:
        return wrong(
            f"its last row is gone, number {missing.seq} ({missing.kind}), which the anchor "
            f"{anchor} has. After a crash the guard puts it back when it starts: start it, and "
            "look again"
        )
    return ok(f"it has the row that the anchor {anchor} names")


def _budgets(rows: Sequence[Row]) -> list[Finding]:
    """Add up the runs in the order in which they were admitted."""
    budgets: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    for row in rows:
        if row.kind == "cohort":
            budgets.append(_body(row))
        if row.kind != "reservation":
            continue
        if not budgets:
            return [wrong("a run was admitted before any budget was registered")]
        budget = Budget.registered(budgets)
        # At the time: a budget may be lowered below what was spent already.
        runs.append(_body(row))
        if not budget.fits(budget.total(runs)):
            return [wrong(f"run {row.run_id} was admitted beyond the lifetime budget")]
    if not budgets:
        return [wrong("no budget is registered: the ledger is not complete")]
    budget = Budget.registered(budgets)
    epsilon, _ = budget.spent(budget.total(runs))
    together = "1 run" if len(runs) == 1 else f"{len(runs)} runs together"
    text = f"{together}: epsilon {rounded_up(epsilon)} of {exact(budget.epsilon)}"
    return [ok(f"{text}, by the rule {budget.rule}")]


def _run(row: Row, attempts: Sequence[Row], rows: Sequence[Row]) -> list[Finding]:
    """Hold the cost of one run against its steps, and count its attempts."""
    body = _body(row)
    found, _ = faults(body["plan"], body["schedule"])
    if found:
        return [wrong(f"run {row.run_id}: promises more than its steps keep: {', '.join(found)}")]
    plan = PrivacyPlan.from_json(body["plan"])
    if (float(body["epsilon"]), float(body["delta"])) != (plan.epsilon, plan.delta):
        return [wrong(f"run {row.run_id}: the ledger charged something else than its plan costs")]
    units = {_body(one)["unit"] for one in rows if one.kind == "cohort"}
    if units != {plan.unit}:
        return [wrong(f"run {row.run_id}: its unit is not the one that was registered")]
    made = [_body(attempt) for attempt in attempts]
    trained = {int(a["round"]) for a in made if int(a["attempt"]) == 0}
    repeated = sum(int(a["attempt"]) > 0 for a in made)
    if not trained <= set(range(1, plan.rounds + 1)) or repeated > plan.spare_rounds:
        return [wrong(f"run {row.run_id}: more was trained than its budget was reserved for")]
    measured = sum(one.kind == "measurement" and one.run_id == row.run_id for one in rows)
    if measured > (plan.evaluation is not None or plan.statistics is not None):
        return [wrong(f"run {row.run_id}: more counts were sent than were paid for")]
    text = f"run {row.run_id}: epsilon {rounded_up(plan.epsilon)} follows from {plan.steps} steps"
    return [ok(f"{text}; {len(trained)} of {plan.rounds} rounds trained, {repeated} repeated")]


def _body(row: Row) -> dict[str, Any]:
    """Parse a row's body.

    Raises:
        ValueError: It is no JSON object, or has a key twice.
    """
    found = strict_json(row.body)
    if not isinstance(found, dict):
        raise ValueError(f"row {row.seq} holds no object")
    return found


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
    if PrivacyPlan.from_json(_body(row)["plan"]) != PrivacyPlan.from_json(voucher.receipt):
        return [wrong(f"run {voucher.run_id}: the report's receipt is not the ledger's plan")]
    return [ok(f"run {voucher.run_id} is in the report as the ledger has it")]
