"""Verifies a report without any private file: its seal, every signature, and every epsilon."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from medformer.config import Domain
from medformer.errors import MedFormerError
from server.measures import POOLED
from server.measures.figures import figures
from server.measures.kept import Counts, read_counts, unpaid
from server.measures.overlaps import overlaps
from server.protocol import MeasureAnswer, ProtocolError, Schedule, fingerprint, source_hash
from server.protocol.receipt import read_receipt
from server.protocol.score_counts import EDGES, read_score_counts
from server.protocol.vouchers import Voucher, read_vouchers
from server.report.build import NOTHING, claims, scheduled
from server.report.countersign import signs
from server.report.seal import checksum, signed_by
from server.report.write import PAGE, check, sha256_of
from simulations.verification.claims import faults
from simulations.verification.document import verify_promise
from simulations.verification.findings import Finding, ok, unknown, wrong
from simulations.verification.reading import examined, read_report, strict_json

WORD = (
    "nobody but the coordinator vouches for: results, what was sent, whether it was a simulation, "
    "lifetime totals, numbers of patients or images, statements of people (controller, purpose, "
    "permits and the like), and that the page says what report.json says"
)
"""Parts of a report that no signature of a guard covers."""
CLOSE = 0.002
"""Distance of two figures that are the same."""
Report = dict[str, Any]


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
    if report.get("schema_version") == 1:
        text = "it is of an earlier version, in which nobody signed anything"
        return [wrong(text) if signer or guards else unknown(text)]
    try:
        check(report)
    except MedFormerError as error:
        # Fields that are missing or of another type cannot be compared.
        return [wrong(f"the report does not fit its schema: {error}")]
    findings = [ok("the report fits its schema"), *_seal(report, signer)]
    findings += examined("files", partial(_files, report, path.parent))
    return [*findings, *examined("sites", partial(_sites, report, guards or {})), unknown(WORD)]


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
    models = {site["model_file"] for site in report["sites"] if site["model_file"]}
    for name in sorted({PAGE, *models} - set(report["files"])):
        found.append(unknown(f"the report does not vouch for {name}"))
    for name, known in sorted(report["files"].items()):
        path = folder / name
        if Path(name).name != name or len(name) > 200 or not path.is_file():
            found.append(unknown(f"{name[:200]} is not beside the report"))
        elif sha256_of(path) == known:
            found.append(ok(f"{name} is the file that the report names"))
        else:
            found.append(wrong(f"{name} is not the file that the report names"))
    return found


def _sites(report: Report, guards: Mapping[str, str]) -> list[Finding]:
    """Check the schedule, and each site against what its guard has signed."""
    try:
        schedule = Schedule.model_validate(strict_json(report["schedule_text"]))
    except ValueError:
        return [wrong("the schedule in the report cannot be read")]
    found = []
    if _plain(scheduled(schedule)) != report["schedule"] or (
        report["masked"] != schedule.aggregation.secure or report["rounds"] > schedule.rounds
    ):
        found.append(wrong("the phases that the report shows are not those that sites admitted"))
    names = Counter(site["name"] for site in report["sites"])
    if twice := [name for name, count in names.items() if count > 1]:
        return [*found, wrong(f"{twice[0]} is in the report twice")]
    vouchers = read_vouchers(report["vouchers"])
    if strangers := sorted(set(vouchers) - set(names)):
        found.append(wrong(f"{strangers[0]} has signed a receipt and is no site of the report"))
    taking_part = {site["name"] for site in report["sites"] if site["participated"]}
    for name in sorted(set(guards) - taking_part):
        found.append(wrong(f"{name}: you named its guard, and by the report it took no part"))
    for site in report["sites"]:
        look = partial(_site, report, site, vouchers.get(site["name"]), schedule, guards)
        found += examined(site["name"], look)
    found += examined("measurement", partial(_measurement, report, schedule))
    found += examined("statistics", partial(_statistics, report, schedule))
    found += examined("promise", partial(verify_promise, report, schedule))
    return [*found, *examined("receipts", partial(_units, report, taking_part, vouchers))]


def _measurement(report: Report, schedule: Schedule) -> list[Finding]:
    """Compute the figures of the measured model again, from the counts that the report holds."""
    shown, evaluation = report.get("measurement"), schedule.evaluation
    if shown is None or evaluation is None:
        if shown is evaluation:
            return []
        return [wrong("the report and the schedule disagree whether the model was measured")]
    settings = {name: shown[name] for name in ("epsilon", "split", "min_count")}
    if settings != evaluation.model_dump() or shown["edges"] != list(EDGES):
        return [wrong("the measurement is not the one that the sites admitted")]
    found = _counts(report, shown["counts"], schedule)
    if any(one.verdict == "WRONG" for one in found):
        return found
    sites = {site["name"]: site for site in report["sites"]}
    rows = [*shown["figures"], *shown.get("overlaps", [])]
    kinds = {row["site"]: row["kind"] for row in rows if row["site"] != POOLED}
    kinds = {name: kinds.get(name, "") for name in shown["counts"]}
    for name, kind in kinds.items():
        if kind and kind not in _kinds(sites[name]):
            return [wrong(f"{name}: its figures are of another kind of image than it has declared")]
    again = _figures(_text(shown["counts"]), _text(kinds))
    # Reports of earlier versions have no outlines.
    if not _close(again, [shown["figures"], shown.get("overlaps", [])]):
        text = "the figures of the measurement do not follow from the counts"
        # Another version may fit otherwise.
        known = report["source_hash"] == source_hash()
        late = unknown(f"{text}, as this version reads them")
        return [*found, wrong(text) if known else late]
    return [*found, ok("the figures of the measurement follow from the counts in the report")]


def _statistics(report: Report, schedule: Schedule) -> list[Finding]:
    """Check the counts of a run that asks for statistics."""
    shown, asked = report.get("statistics"), schedule.statistics
    if shown is None or asked is None:
        if shown is asked:
            return []
        return [wrong("the report and the schedule disagree whether records were counted")]
    if shown["epsilon"] != asked.epsilon:
        return [wrong("the statistics are not those that the sites admitted")]
    return _counts(report, shown["counts"], schedule)


def _counts(report: Report, shown: Mapping[str, Report], schedule: Schedule) -> list[Finding]:
    """Compare the counts of all sites with what their guards have admitted and signed."""
    sites = {site["name"]: site for site in report["sites"]}
    if strangers := sorted(set(shown) - set(sites)):
        return [wrong(f"{strangers[0]}: has counts and is no site of the report")]
    vouchers = read_vouchers(report["vouchers"])
    found = [
        _left_out(report, name)
        for name, voucher in sorted(vouchers.items())
        if voucher.counts and name not in shown
    ]
    for name, own in shown.items():
        counts = read_counts(_text(own), schedule)
        if text := unpaid(counts, sites[name]["phases"]):
            found.append(wrong(f"{name}: {text}"))
        else:
            found.append(_signed_counts(name, counts, vouchers.get(name)))
    return found


def _left_out(report: Report, name: str) -> Finding:
    """Judge a site whose guard has signed counts that the report does not show."""
    refused = any(
        (event["site"], event["kind"]) == (name, "refusal") and "bad-answer" in event["text"]
        for event in report["events"]
    )
    if refused:
        return unknown(f"{name}: the coordinator refused its counts, and the report says why")
    return wrong(f"{name}: its guard has signed counts that the report does not show")


def _signed_counts(name: str, counts: Counts, voucher: Voucher | None) -> Finding:
    """Compare counts with the digest that their guard has signed."""
    if voucher is None or not voucher.counts:
        return unknown(f"{name}: nobody but the coordinator vouches for its counts")
    if voucher.counts != MeasureAnswer(name, counts.model_dump_json()).digest:
        return wrong(f"{name}: its counts are not those that its guard has signed")
    # Whether the signature holds is said with the receipt, which it is over, too.
    return ok(f"{name}: its counts are those that its guard has signed")


def _kinds(site: Report) -> set[str]:
    """Return the kinds of image that a site's declaration allows: the report omits the rank."""
    parts = {name: site[name] for name in ("modality", "anatomy", "channels")}
    return {Domain(name=site["domain"], rank=rank, **parts).kind for rank in (2, 3)}


@lru_cache(maxsize=4)
def _figures(counts: str, kinds: str) -> list[list[Report]]:
    """Return the figures that follow from counts, both as JSON: a fit takes its time."""
    sent = {name: read_score_counts(_text(own)) for name, own in strict_json(counts).items()}
    known = strict_json(kinds)
    return [figures(sent, known), overlaps(sent, known)]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _close(one: Any, other: Any) -> bool:
    """Compare values, numbers to `CLOSE`: fits differ a little from machine to machine."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_close(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    if isinstance(one, float) and isinstance(other, int | float):
        return abs(one - other) <= CLOSE
    return bool(one == other)


def _units(
    report: Report, taking_part: Collection[str], vouchers: Mapping[str, Voucher]
) -> list[Finding]:
    """Compare whose presence is hidden with what all guards have signed."""
    if not taking_part or not set(taking_part) <= set(vouchers):
        return []
    receipts = [strict_json(vouchers[name].receipt) for name in taking_part]
    return [
        wrong(f"the report's {key} is not that of the signed receipts")
        for key in ("unit", "adjacency")
        if report[key] != ", ".join(sorted({receipt[key] for receipt in receipts}))
    ]


def _site(
    report: Report,
    site: Report,
    voucher: Voucher | None,
    schedule: Schedule,
    guards: Mapping[str, str],
) -> list[Finding]:
    """Check one site: its signature, its numbers against it, and the numbers themselves."""
    name, guard = site["name"], guards.get(site["name"])
    if not site["participated"]:
        return _refused(report, site, voucher)
    if voucher is None:
        text = (
            f"{name}: its guard has signed nothing, so that its numbers are the coordinator's word"
        )
        return [wrong(text) if guard else unknown(text)]
    found, holds = _signature(report, name, voucher, guard)
    if not holds:
        return found
    strict_json(voucher.receipt)
    try:
        receipt = read_receipt(voucher.receipt)
    except ProtocolError as error:
        return [*found, wrong(f"{name}: {error}")]
    if different := sorted(k for k, v in claims(receipt).items() if _plain(v) != _plain(site[k])):
        text = f"{name}: the report says something else than the signed receipt: "
        found.append(wrong(text + ", ".join(different)))
    if voucher.schedule_hash != schedule.hash():
        return [*found, wrong(f"{name}: its guard has admitted another schedule")]
    return [*found, *_epsilon(name, voucher.receipt, report["schedule_text"]),
            *_work(report, site, schedule), *_attempts(report, name, voucher)]  # fmt: skip


def _refused(report: Report, site: Report, voucher: Voucher | None) -> list[Finding]:
    """Check a site that took no part: it has no guarantee, no cost and no trace."""
    name = site["name"]
    shown = any(_plain(site[key]) != value for key, value in NOTHING.items())
    worked = site["rounds_trained"] or site["steps_trained"] or name in report["ledger_hashes"]
    traces = any(row["site"] == name for row in report["training"])
    if shown or worked or traces or voucher is not None:
        return [wrong(f"{name}: took no part, and the report shows a cost, a round or a signature")]
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
    found = _countersignature(report, voucher)
    shown = voucher.fingerprint
    if guard is None:
        text = f"{name}: signed with the key {shown}: ask the hospital for that of its guard"
        advice = f"(site guard-key), and name it with --guard {name}=FINGERPRINT"
        return [*found, unknown(f"{text} {advice}")], True
    if shown != guard:
        return [wrong(f"{name}: signed with the key {shown}, which is not {guard}")], False
    return [*found, ok(f"{name}: its guard has signed receipt and ledger, key {shown}")], True


def _countersignature(report: Report, voucher: Voucher) -> list[Finding]:
    """Check the signature of a site that has compared the whole report with its ledger."""
    name, signatures = voucher.site, report["seal"].get("sites")
    if report["simulation"]:  # nobody asks for them there
        return []
    if signatures is None:
        return [unknown(f"{name}: the report has no countersignatures, or lost them")]
    if (own := signatures.get(name)) is None:
        return [unknown(f"{name}: has not countersigned the report: ask the hospital why")]
    if not signs(voucher, report["seal"]["sha256"], own):
        return [wrong(f"{name}: its signature under the report is not that of its guard")]
    return [ok(f"{name}: has countersigned the report: it says what the site's ledger says")]


def _epsilon(name: str, receipt: str, schedule_text: str) -> list[Finding]:
    """Hold everything that a receipt claims against its steps, with other accountants beside."""
    try:
        found, cost = faults(receipt, schedule_text)
    except ValueError as error:
        return [wrong(f"{name}: {error}")]
    if found:
        return [wrong(f"{name}: promises more than its steps keep: {', '.join(found)}")]
    return [ok(f"{name}: {cost}")]


def _work(report: Report, site: Report, schedule: Schedule) -> list[Finding]:
    """Check that no more was trained than was paid for, and no less is shown than is known."""
    name = site["name"]
    if site["rounds_repeated"] > schedule.spare_rounds or site["steps_trained"] > site["steps"]:
        return [wrong(f"{name}: trained more than its budget was reserved for")]
    # A round in which the site takes no step, for want of labels, is none that it trained.
    takes = {phase["name"] for phase in site["phases"] if phase["steps"]}
    trained = {
        row["round"] for row in report["training"] if row["site"] == name and row["phase"] in takes
    }
    if site["rounds_trained"] < len(trained):
        return [wrong(f"{name}: the report counts fewer rounds than it lists")]
    return []


def _attempts(report: Report, name: str, voucher: Voucher) -> list[Finding]:
    """Compare the rounds that a report lists with the attempts that the ledger has charged."""
    earlier = report["source_hash"] != source_hash()
    if earlier and "attempts" not in report["vouchers"][name]:
        return [unknown(f"{name}: its guard is of an earlier version, and signed no attempts")]
    rows = [row for row in report["training"] if row["site"] == name]
    if voucher.attempts < len({row["round"] for row in rows}):
        text = f"its guard has signed for {voucher.attempts} attempts at rounds when"
        return [wrong(f"{name}: {text} the report lists more: it shows an old signature")]
    refused = [e for e in report["events"] if (e["site"], e["kind"]) == (name, "refused-update")]
    known = len(refused) + len(rows) + sum(row["attempt"] for row in rows)
    if voucher.attempts > known:
        more = voucher.attempts - known
        text = f"its guard has charged {more} attempts at a round whose answers did not arrive"
        return [unknown(f"{name}: {text}, and the report counts none of their steps")]
    return []


def _plain(value: Any) -> Any:
    """Return a value as JSON would give it back."""
    return json.loads(json.dumps(value))
