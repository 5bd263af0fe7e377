"""Verifies the report of a consortium: its seal, every signature of a guard, and every sum."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from server.protocol import fingerprint
from server.protocol.receipt import read_receipt
from server.protocol.vouchers import Voucher, read_vouchers
from server.report.joint.build import KIND, together
from server.report.seal import JOINT, checksum, signed_by
from simulations.verification.findings import Finding, ok, unknown, wrong
from simulations.verification.reading import examined

Report = dict[str, Any]
SIGNED = {"signed", "countersigned"}
WORD = (
    "nobody but the coordinator vouches for: that no run is missing, refusals, times, gaps in what "
    "was joined, and that a report was countersigned; whether each epsilon follows from its steps: "
    "verify the reports of the runs"
)


def is_joint(report: Any) -> bool:
    """Tell whether a parsed file is the report of a consortium.

    Args:
        report: Parsed JSON.
    """
    return isinstance(report, dict) and report.get("kind") == KIND


def verify_joint(
    report: Report, *, signer: str | None = None, guards: Mapping[str, str] | None = None
) -> list[Finding]:
    """Check everything in a consortium's report that can be checked.

    Args:
        report: The content of consortium-report.json.
        signer: Fingerprint of the coordinator's key.
        guards: Site -> fingerprint of its guard's key.
    """
    found = examined("seal", partial(_seal, report, signer))
    found += examined("runs", partial(_runs, report))
    found += examined("sites", partial(_sites, report, guards or {}))
    return [*found, *examined("guards", partial(_named, report, guards or {})), unknown(WORD)]


def _seal(report: Report, signer: str | None) -> list[Finding]:
    if report.get("schema_version") != 1:
        return [wrong("it is of a version that is not known here")]
    if checksum(report) != report["seal"]["sha256"]:
        return [wrong("something in the report was changed after it was made (its checksum)")]
    try:
        key = signed_by(report, JOINT)
        shown = None if key is None else fingerprint(key, "signer")
    except ValueError as error:
        return [wrong(f"{error}")]
    if shown is None:
        text = "nobody has signed the report, and whoever changes it can make a new checksum"
        return [wrong(text) if signer else unknown(text)]
    if signer is None:
        text = f"it is signed with the key {shown}: ask the coordinator for theirs"
        return [unknown(f"{text}, and name it with --signer")]
    if shown != signer:
        return [wrong(f"it is signed with the key {shown}, which is not {signer}")]
    return [ok(f"the coordinator has signed it, key {shown}")]


def _runs(report: Report) -> list[Finding]:
    """Check that each run is there once, and that no receipt is shown without its cost."""
    ids = [run["run_id"] for run in report["runs"]]
    costs = [(c["run_id"], site["name"]) for site in report["sites"] for c in site["costs"]]
    if len(set(ids)) < len(ids) or len(set(costs)) < len(costs):
        return [wrong("a run is in the report twice")]
    signed = {(run, site) for run, own in report["vouchers"].items() for site in read_vouchers(own)}
    if missing := sorted(signed - set(costs)):
        run, site = missing[0]
        return [wrong(f"{site}: has signed a receipt of run {run}, which is in no sum")]
    if strangers := sorted({run for run, _ in costs} - set(ids)):
        return [wrong(f"run {strangers[0]} has costs and is not in the report")]
    return [ok(f"{len(ids)} runs, each of them once")]


def _sites(report: Report, guards: Mapping[str, str]) -> list[Finding]:
    return [
        one
        for site in report["sites"]
        for one in examined(f"{site['name']}"[:100], partial(_site, report, site, guards))
    ]


def _site(report: Report, site: Report, guards: Mapping[str, str]) -> list[Finding]:
    """Check the signatures and the sums of one site."""
    name, found = site["name"], []
    if site["together"] != together(site["costs"]):
        found.append(wrong(f"{name}: the sums are not those of its runs"))
    for cost in site["costs"]:
        voucher = read_vouchers(report["vouchers"].get(cost["run_id"], {})).get(name)
        found += _cost(name, site["unit"], cost, voucher, guards.get(name))
    if not any(one.verdict == "WRONG" for one in found):
        signed = sum(cost["state"] in SIGNED for cost in site["costs"])
        found.insert(0, ok(f"{name}: {signed} of {len(site['costs'])} receipts are signed, and the "
                           "sums are those of its runs"))  # fmt: skip
    return found


def _cost(
    name: str, unit: str, cost: Report, voucher: Voucher | None, guard: str | None
) -> list[Finding]:
    """Check one run of a site against what its guard has signed."""
    where = f"{name}, run {cost['run_id'][:12]}"
    if cost["state"] == "wrong":
        return [wrong(f"{where}: its signature and its numbers do not fit, as the report says")]
    if cost["state"] not in SIGNED:
        text = f"{where}: its guard has signed nothing; the cost is the coordinator's word"
        return [wrong(f"{where}: the report hides its signature")] if voucher else [unknown(text)]
    if voucher is None or not voucher.holds:
        return [wrong(f"{where}: is shown as signed, and no signature holds")]
    receipt = read_receipt(voucher.receipt)
    shown = {key: cost[key] for key in ("epsilon", "delta", "epsilon_all_collude")}
    own = {key: receipt[key] for key in ("epsilon", "delta")}
    own["epsilon_all_collude"] = receipt["epsilon_all_collude"] or receipt["epsilon"]
    if shown != own or unit != receipt["unit"]:
        return [wrong(f"{where}: its cost is not that of the signed receipt")]
    if (voucher.site, voucher.run_id) != (name, cost["run_id"]):
        return [wrong(f"{where}: its guard has signed another run or site")]
    if voucher.fingerprint != cost["guard"] or (guard and voucher.fingerprint != guard):
        return [wrong(f"{where}: signed with the key {voucher.fingerprint}")]
    return []


def _named(report: Report, guards: Mapping[str, str]) -> list[Finding]:
    names = {site["name"] for site in report["sites"]}
    return [wrong(f"{name}: you named its guard, and it has no run here")
            for name in sorted(set(guards) - names)]  # fmt: skip
