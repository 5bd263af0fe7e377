"""The messages between server and sites.

A conversation: `hello` (who are you, and do you run the same code?), `admit` (here is the whole
schedule: reserve the budget for all of it, or refuse), then `train` once a round, `measure` at the
end if the schedule says so and, in simulations only, `evaluate`. Every answer is either the
expected one or a `Refusal`.

No answer depends on a private record, with two exceptions: tensors and counts, which carry the
noise that the ledger paid for, and fields named `exact_*`, which exist in simulations only.
"""

import hashlib
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from server.protocol.masking import Words

PROTOCOL_VERSION = 5
"""Version of these messages; a guard refuses another one."""
INTERNAL_ERROR = (
    "The site could not answer. The reason is in its own log and is not sent to the server."
)
"""Reason of a refusal after a failure. The exception itself may quote a record."""

ARRAYS = ("tensors", "words")
"""Fields that hold arrays; all others are scalars."""

Tensors = dict[str, npt.NDArray[np.float32]]
"""Name of a shared tensor -> its values, in the shape of the model's parameter."""
RefusalCode = Literal[
    "budget-exhausted",
    "policy",
    "closed-now",
    "approval-pending",
    "bad-request",
    "attempt-lost",
    "ledger-rolled-back",
    "internal-error",
]


class ProtocolError(Exception):
    """A message is not of this contract."""


@dataclass(frozen=True)
class RequestHeader:
    """Fields that open every request. Nothing here is signed: the connection authenticates."""

    run_id: str
    source_hash: str
    """`server.protocol.source_hash` of the server."""
    protocol_version: int = field(default=PROTOCOL_VERSION, kw_only=True)


@dataclass(frozen=True)
class Hello(RequestHeader):
    """Ask a site for its name and its declaration."""

    kind: ClassVar[str] = "query.hello"


@dataclass(frozen=True)
class Admit(RequestHeader):
    """Ask a site to reserve the budget of a whole schedule."""

    kind: ClassVar[str] = "query.admit"
    schedule: str
    """`Schedule.canonical()`."""
    model: str
    """The public vocabulary of the model as JSON (`medformer.config.ModelConfig`)."""
    sites: str = ""
    """JSON list of the names of all sites of the run; empty unless answers are masked. A site looks
    up whether it knows their guards, before it reserves its budget."""


@dataclass(frozen=True)
class Agree(RequestHeader):
    """Ask a site to agree on secrets with the other sites of a run, which mask its answers."""

    kind: ClassVar[str] = "query.agree"
    schedule_hash: str
    members: str
    """JSON list of `server.protocol.masking.MaskKeys`: every site that may be in a cohort."""


@dataclass(frozen=True)
class Train(RequestHeader):
    """Ask a site to train one round from these shared tensors."""

    kind: ClassVar[str] = "train"
    schedule_hash: str
    round: int
    """1 .. schedule.rounds."""
    attempt: int
    """0, or 1, 2, ... for a round that was lost; those are paid from the spare rounds."""
    acknowledged_round: int
    """Round of the server's last durable checkpoint. The site may delete kept answers up to it."""
    tensors: Tensors
    ledger_hash: str = ""
    """Hash of the newest row of the site's ledger that the server knows. A ledger without that row
    was restored from an old copy."""
    cohort: str = ""
    """JSON list of the sites whose answers are added up, in the order of names; empty unless
    answers are masked."""
    sealed: str = ""
    """JSON list of `server.protocol.masking.SealedSecret`: those of the cohort for this site."""

    def key(self) -> str:
        """Return the SHA-256 of everything that the answer depends on.

        A request with a known key gets the kept answer, byte for byte, and costs no new budget.
        """
        # Neither the acknowledged round nor the ledger hash changes the answer. Sealed secrets
        # differ from site to site, while masks are bound to what all sites of a cohort are asked.
        head = f"{self.run_id}\n{self.schedule_hash}\n{self.round}\n{self.attempt}\n{self.cohort}\n"
        return _digest(head, self.tensors)


def _digest(head: str, tensors: Tensors) -> str:
    """Return the SHA-256 of a text and of named tensors."""
    digest = hashlib.sha256(head.encode())
    # Names and shapes are hashed, too: the same bytes under other names are other tensors.
    for name in sorted(tensors):
        # The same bytes on every machine, whatever its byte order is.
        value = np.ascontiguousarray(tensors[name], dtype="<f4")
        digest.update(f"{name} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Confirm(RequestHeader):
    """Ask a site to countersign the report of a run, if its ledger says what the report says."""

    kind: ClassVar[str] = "query.confirm"
    schedule_hash: str
    report: str
    """SHA-256 of the report (`server.report.seal.checksum`)."""
    statement: str
    """SHA-256 of what the report says that this site's guard has signed
    (`server.protocol.vouchers.Voucher.statement`)."""


@dataclass(frozen=True)
class Measure(RequestHeader):
    """Ask a site to measure the final model under differential privacy, once a run."""

    kind: ClassVar[str] = "evaluate.measure"
    schedule_hash: str
    tensors: Tensors
    ledger_hash: str = ""
    """As in `Train`."""

    def key(self) -> str:
        """Return the SHA-256 of everything that the answer depends on.

        A request with the key of the run's one measurement gets the kept answer again.
        """
        return _digest(f"{self.run_id}\n{self.schedule_hash}\nmeasure\n", self.tensors)


@dataclass(frozen=True)
class Evaluate(RequestHeader):
    """Ask a simulated site for exact metrics of its model on one split."""

    kind: ClassVar[str] = "evaluate"
    schedule_hash: str
    split: str
    tensors: Tensors


@dataclass(frozen=True)
class HelloAnswer:
    """A site's public name and declaration."""

    site: str
    domain: str
    """`medformer.config.Domain` as JSON."""
    source_hash: str
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True)
class AdmitAnswer:
    """Proof of the reservation: what this run may cost the site's patients."""

    site: str
    receipt: str
    """`server.protocol.receipt.Receipt` as JSON: epsilon, delta, unit, phases. It holds neither a
    lifetime total nor a number of records."""
    ledger_hash: str = ""
    """Hash of the reservation's row in the site's ledger, which chains all rows before it."""
    signed: str = ""
    """`server.protocol.vouchers.Signature` as JSON: the guard's, over receipt and ledger hash."""
    mask_keys: str = ""
    """`server.protocol.masking.MaskKeys` as JSON; empty unless answers are masked."""


@dataclass(frozen=True)
class AgreeAnswer:
    """A site's part of the secrets that it shares with the other sites of a run."""

    site: str
    sealed: str
    """JSON list of `server.protocol.masking.SealedSecret`, for the sites that have to open them."""


@dataclass(frozen=True)
class TrainAnswer:
    """The shared tensors that the round trained, with noise in them."""

    site: str
    round: int
    attempt: int
    tensors: Tensors
    exact_loss: float | None = None
    """Simulations only: mean training loss of the round, without noise."""
    ledger_hash: str = ""
    """Hash of the attempt's row in the site's ledger, which chains all rows before it."""
    signed: str = ""
    """`server.protocol.vouchers.Signature` as JSON: the guard's, over the receipt of the run, the
    ledger hash and the number of charged attempts."""
    words: Words | None = None
    """In place of `tensors` where answers are masked: the update as whole numbers modulo 2**64,
    with the masks of all pairs of sites in them (`server.protocol.masking`)."""
    trained: str = ""
    """JSON list of the names of the tensors that the site trained, where answers are masked. They
    follow from the phase and from the site's public declaration."""


@dataclass(frozen=True)
class EvaluateAnswer:
    """Exact metrics, which exist in simulations only."""

    site: str
    exact_metrics: str
    """JSON list of {task, metric, split, value}."""


@dataclass(frozen=True)
class MeasureAnswer:
    """Counts of the final model's scores, with noise in them."""

    site: str
    counts: str
    """`server.protocol.score_counts.ScoreCounts` as JSON."""
    ledger_hash: str = ""
    """Hash of the measurement's row in the site's ledger, which chains all rows before it."""
    signed: str = ""
    """As in `TrainAnswer`, and over the counts."""

    @property
    def digest(self) -> str:
        """SHA-256 of the counts, which the guard signs."""
        return hashlib.sha256(self.counts.encode()).hexdigest()


@dataclass(frozen=True)
class ConfirmAnswer:
    """A site's signature over the report of a run."""

    site: str
    ledger_hash: str = ""
    """Hash of the row of its ledger that keeps the report's SHA-256."""
    signed: str = ""
    """`server.protocol.vouchers.Signature` as JSON: the guard's, over
    `server.protocol.vouchers.countersigned`."""


@dataclass(frozen=True)
class Refusal:
    """A site's typed refusal. Its text depends on code and configuration, never on a record."""

    code: RefusalCode
    reason: str
    site: str = ""


Request = Hello | Admit | Agree | Train | Measure | Evaluate | Confirm
Answer = (
    HelloAnswer
    | AdmitAnswer
    | AgreeAnswer
    | TrainAnswer
    | MeasureAnswer
    | EvaluateAnswer
    | ConfirmAnswer
    | Refusal
)


def metadata(part: Request | Answer) -> dict[str, Any]:
    """Return every field but tensors and words: what a log may show.

    Args:
        part: A request or an answer.
    """
    return {f.name: getattr(part, f.name) for f in fields(part) if f.name not in ARRAYS}
