"""Verifies a report without any private file: its seal, every signature, and every epsilon."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from client.privacy.accounting import ARITHMETIC_EPSILON
from client.privacy.others import other_epsilons
from client.privacy.plan import PrivacyPlan, recomputed
from medformer.common.rounding import rounded_up
from medformer.errors import MedFormerError
from server.protocol import ProtocolError, Schedule, fingerprint
from server.protocol.receipt import COLLUSION, read_receipt
from server.protocol.vouchers import Voucher, read_vouchers
from server.report.build import NOTHING, claims
from server.report.files import ReportError
from server.report.seal import checksum, signed_by
from server.report.write import check, sha256_of
from simulations.verification.findings import Finding, ok, unknown, wrong

TOLERANCE = 1e-6
"""Relative difference of two results of the same arithmetic on different machines."""
OPTIONAL = ("curve", "detected", "roc", "mu")
"""Claims that plans of earlier versions do not make."""
CLAIMS = ("unit", "adjacency", "epsilon", "progress", *OPTIONAL, *COLLUSION)
Report = dict[str, Any]


def read_report(path: Path) -> Report:
    """Read report.json.

    Args:
        path: The file.
    Raises:
        ReportError: It is no report.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ReportError(f"{path}: cannot be read as a report ({error})") from error
    if not isinstance(found, dict) or "sites" not in found:
        raise ReportError(f"{path}: is not the report of a run")
    return found


def verify_report(
    path: Path, *, signer: str | None = None, guards: Mapping[str, str] | None = None
) -> list[Finding]:
    """Check everything in a report that can be checked.

    Args:
        path: report.json. Files that it names are looked for beside it.
        signer: Fingerprint of the coordinator's key, from the coordinator.
        guards: Site -> fingerprint of its guard's key, from the hospital.
    Raises:
        ReportError: The file is no report.
    """
    report = read_report(path)
    try:
        check(report)
    except MedFormerError as error:
        # Fields that are missing or of another type cannot be compared.
        return [wrong(f"the report does not fit its schema: {error}")]
    findings = [ok("the report fits its schema"), *_seal(report, signer)]
    findings += _files(report, path.parent)
    schedule = _schedule(report)
    if schedule is None:
        findings.append(wrong("the schedule in the report cannot be read"))
    vouchers = read_vouchers(report["vouchers"])
    if strangers := sorted(set(vouchers) - {s["name"] for s in report["sites"]}):
        findings.append(wrong(f"{strangers[0]} has signed a receipt and is no site of the report"))
    for site in report["sites"]:
        voucher = vouchers.get(site["name"])
        findings += _site(report, site, voucher, schedule, (guards or {}).get(site["name"]))
    return findings


def _seal(report: Report, signer: str | None) -> list[Finding]:
    """Compare the checksum, and check the coordinator's signature."""
    if checksum(report) != report["seal"]["sha256"]:
        return [wrong("something in the report was changed after it was made (its checksum)")]
    found = [ok("nothing in the report was changed since it was made, by its checksum")]
    try:
        key = signed_by(report)
        shown = None if key is None else fingerprint(key, "signer")
    except ValueError as error:
        return [*found, wrong(f"{error}")]
    if shown is None:
        text = "nobody has signed the report, and whoever changes it can make a new checksum"
        return [*found, wrong(text) if signer else unknown(text)]
    if signer is None:
        text = f"it is signed with the key {shown}: ask the coordinator for theirs"
        return [*found, unknown(f"{text}, and name it with --signer")]
    if shown != signer:
        return [*found, wrong(f"it is signed with the key {shown}, which is not {signer}")]
    return [*found, ok(f"the coordinator has signed it, key {shown}")]


def _files(report: Report, folder: Path) -> list[Finding]:
    """Compare the page and the models beside the report with their hashes."""
    found = []
    for name, known in sorted(report["files"].items()):
        path = folder / name
        if Path(name).name != name or not path.is_file():
            found.append(unknown(f"{name} is not beside the report"))
        elif sha256_of(path) == known:
            found.append(ok(f"{name} is the file that the report names"))
        else:
            found.append(wrong(f"{name} is not the file that the report names"))
    return found


def _schedule(report: Report) -> Schedule | None:
    """Read the schedule; None if it cannot be read."""
    try:
        return Schedule.model_validate_json(report["schedule_text"])
    except ValueError:
        return None


def _site(
    report: Report,
    site: Report,
    voucher: Voucher | None,
    schedule: Schedule | None,
    guard: str | None,
) -> list[Finding]:
    """Check one site: its signature, its numbers against it, and the numbers themselves."""
    name = site["name"]
    if not site["participated"]:
        return _refused(site, voucher)
    if voucher is None:
        return [
            unknown(f"{name}: its guard has signed nothing, so that its numbers cannot be told "
                    "from others")
        ]  # fmt: skip
    found, holds = _signature(report, name, voucher, guard)
    if not holds:
        return found
    try:
        receipt = read_receipt(voucher.receipt)
    except ProtocolError as error:
        return [*found, wrong(f"{name}: {error}")]
    if different := sorted(k for k, v in claims(receipt).items() if _plain(v) != _plain(site[k])):
        text = f"{name}: the report says something else than the signed receipt: "
        found.append(wrong(text + ", ".join(different)))
    if schedule is None:
        return found
    if voucher.schedule_hash != schedule.hash():
        return [*found, wrong(f"{name}: its guard has admitted another schedule")]
    found += _epsilon(name, voucher.receipt, report["schedule_text"])
    return [*found, *_work(site, schedule)]


def _refused(site: Report, voucher: Voucher | None) -> list[Finding]:
    """Check a site that took no part: it has no guarantee and no cost."""
    name = site["name"]
    if any(_plain(site[key]) != value for key, value in NOTHING.items()) or voucher is not None:
        return [wrong(f"{name}: took no part, and the report shows a cost or a signature")]
    return [ok(f"{name}: took no part")]


def _signature(
    report: Report, name: str, voucher: Voucher, guard: str | None
) -> tuple[list[Finding], bool]:
    """Check a guard's signature, and that it is over this run."""
    if not voucher.holds:
        return [wrong(f"{name}: its guard's signature does not fit its receipt and ledger")], False
    named = (voucher.site, voucher.run_id, voucher.ledger_hash)
    if named != (name, report["run_id"], report["ledger_hashes"].get(name)):
        return [wrong(f"{name}: its guard has signed another run, site or ledger row")], False
    shown = voucher.fingerprint
    if guard is None:
        text = f"{name}: signed with the key {shown}: ask the hospital for that of its guard"
        advice = f"(site guard-key), and name it with --guard {name}=FINGERPRINT"
        return [unknown(f"{text} {advice}")], True
    if shown != guard:
        return [wrong(f"{name}: signed with the key {shown}, which is not {guard}")], False
    return [ok(f"{name}: its guard has signed receipt and ledger, key {shown}")], True


@lru_cache(maxsize=256)
def _epsilon(name: str, receipt: str, schedule_text: str) -> tuple[Finding, ...]:
    """Compute everything that a receipt claims from its steps again, with other accountants."""
    plan = PrivacyPlan.from_json(receipt)
    try:
        again = recomputed(plan, Schedule.model_validate_json(schedule_text))
        steps = [phase.mechanism() for phase in plan.phases]
        others = other_epsilons(steps, again.epsilon - ARITHMETIC_EPSILON, plan.delta)
    except ValueError as error:
        return (wrong(f"{name}: {error}"),)
    if different := differences(plan, again):
        text = f"{name}: does not follow from its steps: {', '.join(different)}"
        return (wrong(f"{text}; epsilon is {rounded_up(again.epsilon)}"),)
    beside = ", ".join(f"{method} {rounded_up(value)}" for method, value in others)
    text = f"{name}: epsilon {rounded_up(plan.epsilon)} at delta {plan.delta:g} follows from its "
    return (ok(f"{text}{plan.steps} steps; other accountants: {beside or 'none'}"),)


def differences(plan: PrivacyPlan, again: PrivacyPlan) -> list[str]:
    """Return the names of the claims in which a plan differs from its recomputation.

    Claims that an earlier version did not make are no difference.

    Args:
        plan: The plan, as somebody sent or stored it.
        again: `recomputed` from its steps.
    """
    found = []
    for name in CLAIMS:
        claimed = _plain(getattr(plan, name))
        if claimed in ([], None) and name in OPTIONAL:
            continue
        if not _close(claimed, _plain(getattr(again, name))):
            found.append(name)
    return found


def _work(site: Report, schedule: Schedule) -> list[Finding]:
    """Check that no more was trained than was paid for."""
    name = site["name"]
    if site["rounds_repeated"] > schedule.spare_rounds or site["steps_trained"] > site["steps"]:
        return [wrong(f"{name}: trained more than its budget was reserved for")]
    return []


def _plain(value: Any) -> Any:
    """Return a value as JSON would give it back."""
    return json.loads(json.dumps(value))


def _close(claimed: Any, true: Any) -> bool:
    """Compare two values, numbers within `TOLERANCE`."""
    if isinstance(claimed, list) and isinstance(true, list):
        return len(claimed) == len(true) and all(map(_close, claimed, true))
    if isinstance(claimed, float) and isinstance(true, float):
        return abs(claimed - true) <= TOLERANCE * max(1.0, abs(true))
    return bool(claimed == true)
