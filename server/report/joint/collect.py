"""Finds the runs of a consortium, finished or not, and what their guards have signed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medformer.errors import MedFormerError, one_line
from server.protocol import ProtocolError, fingerprint
from server.protocol.receipt import read_receipt
from server.protocol.vouchers import Voucher, read_vouchers
from server.report.countersign import signs
from server.report.files import ReportError
from server.report.seal import signed_by
from server.report.write import finished
from server.run.federation import load_federation
from server.run.journal import RECEIPTS, RUN, VOUCHERS

MAX_TEXT = 500
"""Longest text of a site or file that is taken over."""
Row = dict[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """Everything that a coordinator knows of one run."""

    run: Row
    """Its id, name, state and times."""
    simulation: bool
    costs: list[Row]
    """One row for each site that was charged, with the state of its signature."""
    refusals: list[Row] = field(default_factory=list)
    vouchers: dict[str, Row] = field(default_factory=dict)


def collect(folder: Path) -> tuple[list[RunRecord], list[Row]]:
    """Read every run below a folder.

    Args:
        folder: Folder of a consortium, or any folder with run folders in it.
    Returns:
        The runs, and {folder, reason} of each that cannot be joined: its report does not hold, or
        it is another copy of a run.
    Raises:
        ReportError: There is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise ReportError(f"{folder}: is not a folder: name the folder of a consortium")
    runs: dict[str, RunRecord] = {}
    left_out: list[Row] = []
    for place in sorted(_run_folders(folder)):
        name = place.relative_to(folder).as_posix()
        try:
            found = (
                _finished(place, name) if (place / "report.json").exists() else _begun(place, name)
            )
        except (MedFormerError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            left_out.append({"folder": name, "reason": _text(f"{error}".replace(str(place), name))})
            continue
        known = runs.get(found.run["run_id"])
        if known is None:
            runs[found.run["run_id"]] = found
            continue
        # A copy, or a report that was made again: the later one counts, once.
        later, earlier = sorted((found, known), key=lambda one: one.run["made_at"], reverse=True)
        runs[found.run["run_id"]] = later
        reason = f"another copy of run {found.run['run_id']}, which is in {later.run['folder']}"
        left_out.append({"folder": earlier.run["folder"], "reason": _text(reason)})
    if not runs and not left_out:
        raise ReportError(f"{folder}: there is no run below it that any site has admitted")
    # A simulation has ledgers of its own: its costs are nobody's.
    if any(not one.simulation for one in runs.values()):
        for one in [one for one in runs.values() if one.simulation]:
            del runs[one.run["run_id"]]
            left_out.append({"folder": one.run["folder"], "reason": "a simulation"})
    return sorted(
        runs.values(), key=lambda one: (one.run["began_at"] or "", one.run["run_id"])
    ), left_out


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yield every folder with a run that a site has admitted, links not followed."""
    for path in folder.rglob(RUN):
        place = path.parent
        if not place.is_symlink() and (
            (place / "report.json").exists() or (place / RECEIPTS).exists()
        ):
            yield place


def _finished(place: Path, name: str) -> RunRecord:
    """Read a run with a report."""
    report = finished(place)
    vouchers = read_vouchers(report["vouchers"])
    signer = signed_by(report)
    return RunRecord(
        run={
            "run_id": report["run_id"],
            "name": _text(report["name"]),
            "folder": name,
            "state": "finished",
            "began_at": report.get("began_at"),
            "ended_at": report.get("ended_at"),
            "made_at": report["generated_at"],
            "unit": _text(report["unit"]),
            "report_sha256": report["seal"]["sha256"],
            "signed_by": None if signer is None else fingerprint(signer, "signer"),
        },
        simulation=report["simulation"],
        costs=[
            _cost(site["name"], site, vouchers.get(site["name"]), report)
            for site in report["sites"]
            if site["participated"]
        ],
        refusals=[
            {"run_id": report["run_id"], "site": _text(e["site"]), "round": e["round"],
             "kind": e["kind"], "text": _text(e["text"])}
            for e in report["events"] if e["kind"] in ("refusal", "refused-update")
        ],
        vouchers=report["vouchers"],
    )  # fmt: skip


def _begun(place: Path, name: str) -> RunRecord:
    """Read a run without a report: the sites have reserved its whole cost all the same."""
    run = json.loads((place / RUN).read_bytes())
    receipts = json.loads((place / RECEIPTS).read_bytes())
    signed = json.loads((place / VOUCHERS).read_bytes()) if (place / VOUCHERS).exists() else {}
    vouchers = read_vouchers(signed)
    units = {_text(receipt["unit"]) for receipt in receipts.values()}
    about = {"run_id": run["run_id"], "unit": "", "seal": {}}
    return RunRecord(
        run={
            "run_id": _text(run["run_id"]),
            "name": _text(load_federation(place / "federation.json").name),
            "folder": name,
            "state": "unfinished",
            "began_at": run.get("began_at"),
            "ended_at": None,
            "made_at": "",
            "unit": ", ".join(sorted(units)),
            "report_sha256": None,
            "signed_by": None,
        },
        simulation=(place / "scenario.yaml").exists(),
        costs=[
            _cost(site, receipt, vouchers.get(site), about)
            for site, receipt in sorted(receipts.items())
        ],
        vouchers=signed,
    )


def _cost(name: str, shown: Row, voucher: Voucher | None, report: Row) -> Row:
    """Return what a run has cost at a site, as its guard signed it or as the coordinator says."""
    row = {
        "run_id": report["run_id"],
        "site": _text(name),
        "unit": _text(shown.get("unit") or report["unit"]),
        "epsilon": float(shown["epsilon"]),
        "epsilon_all_collude": float(shown.get("epsilon_all_collude") or shown["epsilon"]),
        "delta": float(shown["delta"]),
        "guard": None,
        "state": "unsigned",
    }
    if voucher is None:
        return row
    try:
        row["guard"] = voucher.fingerprint
        receipt = read_receipt(voucher.receipt)
    except (ValueError, ProtocolError):
        return {**row, "state": "wrong"}
    row["unit"] = receipt["unit"]
    signed = {
        "epsilon": receipt["epsilon"],
        "epsilon_all_collude": receipt["epsilon_all_collude"] or receipt["epsilon"],
        "delta": receipt["delta"],
    }
    fits = (voucher.site, voucher.run_id) == (name, report["run_id"]) and voucher.holds
    if not fits or any(row[key] != value for key, value in signed.items()):
        # The larger numbers: neither side can make the other look cheaper.
        return {**row, **{k: max(row[k], v) for k, v in signed.items()}, "state": "wrong"}
    own = (report["seal"].get("sites") or {}).get(name)
    if own is None:
        return {**row, "state": "signed"}
    holds = signs(voucher, report["seal"]["sha256"], own)
    return {**row, "state": "countersigned" if holds else "wrong"}


def _text(text: object) -> str:
    return one_line(str(text))[:MAX_TEXT]
