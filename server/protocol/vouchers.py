"""Statements that a guard signs: the receipt of a run, the newest row of the site's ledger, and
what the site has done.

A ledger's row holds the hash of the row before it, so a signed row vouches for all earlier ones.
Whoever changes a receipt afterwards, in a report or on the way, cannot sign it again.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.protocol.keys import fingerprint
from server.protocol.messages import AdmitAnswer, MeasureAnswer, TrainAnswer

MAX_IDENTITY = 1_000
"""Largest number of characters of a public key."""


class Signature(BaseModel):
    """Key and signature that a guard's answer carries beside its ledger hash."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    identity: Annotated[str, Field(max_length=MAX_IDENTITY)]
    """The guard's public key, Ed25519 in OpenSSH format."""
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
    """64 bytes as hexadecimal digits."""
    attempts: Annotated[int, Field(ge=0)] = 0
    """Attempts at rounds of the run that the ledger has charged so far."""


@dataclass(frozen=True)
class Voucher:
    """One signed statement of a guard, with everything that is needed to check it."""

    site: str
    run_id: str
    schedule_hash: str
    """Hash of the run's schedule (`Schedule.hash`)."""
    receipt: str = field(repr=False)
    """`Receipt.to_json`, as the guard sent it."""
    ledger_hash: str
    """Hash of a row of the site's ledger: of the reservation, or of a later attempt."""
    attempts: int = 0
    """Attempts at rounds of the run that the ledger has charged so far."""
    counts: str = ""
    """SHA-256 of the noisy counts that the site sent; empty if it sent none."""
    identity: str = ""
    signature: str = ""

    @property
    def statement(self) -> bytes:
        """The bytes that are signed."""
        receipt = hashlib.sha256(self.receipt.encode()).hexdigest()
        parts = (self.site, self.run_id, self.schedule_hash, receipt, self.ledger_hash)
        # Statements of earlier versions end here, as those before the first round do.
        work = (self.attempts, self.counts)
        more = work if any(work) else ()
        return json.dumps(["fedmedformer receipt and ledger", *parts, *more]).encode()

    @property
    def digest(self) -> str:
        """SHA-256 of the statement."""
        return hashlib.sha256(self.statement).hexdigest()

    @property
    def holds(self) -> bool:
        """True if the signature is that of the key, over exactly this statement."""
        try:
            return verifies(self.identity, self.signature, self.statement)
        except UnicodeEncodeError:  # a receipt that is no text
            return False

    @property
    def fingerprint(self) -> str:
        """Name of the guard's key, as `fedmedformer site guard-key` shows it at the hospital.

        Raises:
            ValueError: The key is no Ed25519 key.
        """
        return fingerprint(self.identity, "signer")

    def signed(self, text: str) -> "Voucher":
        """Return the statement with the signature that came with an answer.

        Args:
            text: `Signature` as JSON; anything else leaves a voucher that does not hold.
        """
        try:
            found = Signature.model_validate_json(text)
        except ValidationError:
            return self
        return replace(self, **found.model_dump())


def verifies(identity: str, signature: str, statement: bytes) -> bool:
    """Tell whether a signature is that of an Ed25519 key.

    Args:
        identity: The public key in OpenSSH format; anything else verifies nothing.
        signature: 64 bytes in hexadecimal digits.
        statement: The signed bytes.
    """
    # Imported here: most processes read the contract without ever looking at a signature.
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        key = load_ssh_public_key(identity.encode())
        if not isinstance(key, Ed25519PublicKey):
            return False
        key.verify(bytes.fromhex(signature), statement)
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True


def countersigned(site: str, run_id: str, report: str, statement: str, ledger_hash: str) -> bytes:
    """Return the bytes that a guard signs when it has compared a report with its ledger.

    Args:
        site: Name of the site.
        run_id: The run.
        report: SHA-256 of the report.
        statement: SHA-256 of `Voucher.statement`, as the report has it.
        ledger_hash: Hash of the ledger's row that keeps the report's SHA-256.
    """
    parts = (site, run_id, report, statement, ledger_hash)
    return json.dumps(["fedmedformer report and ledger agree", *parts]).encode()


def read_vouchers(values: Any) -> dict[str, Voucher]:
    """Return the vouchers of a file, by site.

    Args:
        values: Parsed JSON: site -> fields of a `Voucher`.
    Raises:
        ValueError: The values are of another form.
    """
    try:
        return {str(site): Voucher(**one) for site, one in values.items()}
    except (AttributeError, TypeError) as error:
        raise ValueError("are no vouchers of guards") from error


def take_receipt(
    known: dict[str, Voucher], site: str, run_id: str, schedule_hash: str, answer: AdmitAnswer
) -> str | None:
    """Keep the receipt that a guard has signed.

    Args:
        known: Site -> voucher; the site's is added, unless a newer one is there.
        site: The site that was asked.
        run_id: The run.
        schedule_hash: Of the schedule that it was asked to admit.
        answer: Its answer; one without any signature is none of a guard, and nothing is kept.
    Returns:
        What is wrong, or None.
    """
    if not answer.signed:
        return "its receipt is not signed any more" if site in known else None
    fresh = Voucher(site, run_id, schedule_hash, answer.receipt, answer.ledger_hash)
    fresh = fresh.signed(answer.signed)
    if not fresh.holds:
        return "its receipt is not signed by its guard"
    before = known.setdefault(site, fresh)
    if (before.identity, before.receipt) != (fresh.identity, fresh.receipt):
        return "its guard signs with another key, or another receipt, than before"
    return None


def take_row(
    known: dict[str, Voucher], site: str, answer: TrainAnswer | MeasureAnswer
) -> str | None:
    """Keep the newest ledger row that a guard has signed.

    Args:
        known: Site -> voucher; the site's is replaced.
        site: The site that was asked.
        answer: Its answer.
    Returns:
        What is wrong, or None; nothing is expected of a site whose receipt was not signed.
    """
    before = known.get(site)
    if before is None:
        return None
    counts = answer.digest if isinstance(answer, MeasureAnswer) else ""
    fresh = replace(before, ledger_hash=answer.ledger_hash, counts=counts).signed(answer.signed)
    if fresh.identity != before.identity or not fresh.holds:
        return "the row of its ledger is not signed by the guard that admitted the run"
    known[site] = fresh
    return None
