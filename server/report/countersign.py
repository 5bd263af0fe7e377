"""Sites compare the report of a run with their ledgers, and countersign it."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medformer.errors import one_line
from server.protocol import Answer, Confirm, ConfirmAnswer, Refusal, source_hash
from server.protocol.vouchers import (
    Signature,
    Voucher,
    countersigned,
    read_vouchers,
    verifies,
)
from server.run.checkpoints import write_json
from server.run.fleet import Fleet, Lost

log = logging.getLogger(__name__)
Report = dict[str, Any]


def collect_countersignatures(fleet: Fleet, folder: Path) -> None:
    """Ask every site that has signed its receipt for its signature under the report.

    A site that is away, or whose ledger says something else, has none: `verify` tells so.

    Args:
        fleet: How sites are reached.
        folder: A run folder with a report, which gets the signatures into its seal.
    """
    path = folder / "report.json"
    report = json.loads(path.read_bytes())
    vouchers = read_vouchers(report["vouchers"])
    sha256 = report["seal"]["sha256"]
    requests = {name: _question(one, sha256) for name, one in sorted(vouchers.items())}
    # After the first answer the others have the grace of a round, and no more.
    answers = fleet.ask(requests, 1) if requests else {}
    signatures = {}
    for name, answer in sorted(answers.items()):
        signature = _signature(vouchers[name], sha256, answer)
        if signature is not None:
            signatures[name] = signature
    report["seal"]["sites"] = signatures
    write_json(path, report)


def _question(voucher: Voucher, sha256: str) -> Confirm:
    return Confirm(
        voucher.run_id,
        source_hash(),
        schedule_hash=voucher.schedule_hash,
        report=sha256,
        statement=voucher.digest,
    )


def _signature(voucher: Voucher, sha256: str, answer: Answer | Lost) -> Report | None:
    """Return a site's signature for the seal; None if it gave none that holds."""
    if not isinstance(answer, ConfirmAnswer):
        reason = answer.reason if isinstance(answer, Refusal | Lost) else "another answer"
        log.warning("site %s has not countersigned the report: %s", voucher.site, one_line(reason))
        return None
    try:
        found = Signature.model_validate_json(answer.signed)
    except ValidationError:
        log.warning("site %s has sent no signature", voucher.site)
        return None
    signature = {"ledger_hash": answer.ledger_hash, "signature": found.signature}
    if not signs(voucher, sha256, signature):
        log.warning("site %s has sent a signature that does not fit the report", voucher.site)
        return None
    return signature


def signs(voucher: Voucher, sha256: str, signature: Mapping[str, str]) -> bool:
    """Tell whether a countersignature is that of the guard which has signed the receipt.

    Args:
        voucher: The site's, as the report has it.
        sha256: Checksum of the report.
        signature: {ledger_hash, signature}, as the report's seal has it.
    """
    statement = countersigned(
        voucher.site, voucher.run_id, sha256, voucher.digest, signature["ledger_hash"]
    )
    return verifies(voucher.identity, signature["signature"], statement)
