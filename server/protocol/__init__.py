"""The one message contract between server and sites; imports nothing of ours.

A conversation: `hello` (who are you, same code?), `admit` (here is the whole schedule: reserve the
budget for all of it, or refuse), then `train` once a round and, in simulations only, `evaluate`.
Every answer is either the one expected or a `Refusal`; neither depends on a private record, except
for the tensors, which carry the noise that the ledger paid for, and fields named `exact_*`, which
exist in simulations only.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    model_validator,
)
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

PROTOCOL_VERSION = 2
LARGEST_MESSAGE = 256 * 2**20
"""Bytes: more than twice what the largest preset shares."""
NAME = r"^[a-z0-9][a-z0-9-]{0,39}$"
"""Of phases and sites: it becomes part of file names and certificates."""
FLOWER_SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
}
"""Environment of Flower's processes: nothing is reported, asked for or installed at run time, and
tasks start when they come, not up to a second later."""
RUN_ID = r"[A-Za-z0-9-]{1,64}"
"""It becomes part of file names at the sites."""
MOST_TENSORS = 4_096
MOST_VALUES = 2**28
"""Of all tensors of a message together."""
MOST_ROUNDS = 10_000
"""Of a phase."""
LONGEST = 2**20
"""Characters of a schedule, a receipt, or what else is JSON."""
PACKED = "safetensors"
"""How all tensors of a message travel: as one file of safetensors in one array of Flower's, which
carries every array as an object of its own through four processes."""
LONGEST_TEXT = 4_096
"""Characters of any other text."""
PACKAGES = ("client", "medformer", "server", "simulations")
INTERNAL_ERROR = "The site could not answer. Its own log says why; nothing is told to the server."

SIMULATED_SITES = "sites.json"
"""In a simulated run folder: {"seed": int, "sites": [{"site": site.yaml, "state": folder}, ...]},
in the order of partition ids."""

Tensors = dict[str, npt.NDArray[np.float32]]
PublicObjective = Literal[
    "inpainting",
    "restoration",
    "degradation",
    "orientation",
    "contrastive",
    "cross_scale",
    "supervised",
    "rescanned",
]
"""What public images can teach: not to adapt to a domain, or to themselves."""
Objective = Literal[PublicObjective, "domain_adversarial", "alignment"]
LABEL_OBJECTIVES: frozenset[Objective] = frozenset({"supervised", "rescanned"})
"""Those to which an image without any label teaches nothing."""
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


def ramp(progress: float) -> float:
    """Strength of the adaptation after this part of the training, (0, 1] -> (0, 1).

    Source: Ganin et al. 2016, arXiv:1505.07818, section 5.2.2.
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


class Phase(BaseModel):
    """Rounds that share one mix of objectives."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(pattern=NAME)
    rounds: StrictInt = Field(ge=1, le=MOST_ROUNDS)
    local_steps: StrictInt = Field(default=1, ge=1, le=1_000)
    """DP steps a site takes between two averagings."""
    objectives: dict[Objective, Annotated[StrictFloat, Field(gt=0, le=100)]] = Field(min_length=1)
    """Weight of each loss; for domain_adversarial the lambda of the gradient reversal."""
    lambda_schedule: Literal["constant", "ramp"] = "constant"
    """`ramp`: the weight of domain_adversarial grows from near 0 to its full value within the
    phase (Ganin et al. 2016, arXiv:1505.07818, section 5.2.2)."""
    learning_rate: StrictFloat = Field(default=0.3, gt=0, le=10)
    noise_floor: StrictFloat | None = Field(default=None, gt=0, le=1)
    """If given, each site has a learning rate of its own under DP: this over the variance of the
    noise on its averaged gradient, so that what the noise adds to the loss where steps and noise
    balance is the same everywhere (`client.privacy.plan.learning_rate`). Sites that add less noise
    take longer steps, and so weigh more in the average."""
    expected_batch_size: StrictInt = Field(default=512, ge=1, le=65_536)
    """Mean number of units in a step; sample_rate is this over the number of units that the site
    declares: n_public, or n_labelled in a phase that learns from labels alone."""
    views: StrictInt = Field(default=1, ge=1, le=64)
    """Augmented views of each drawn image. The mean of their gradients is clipped: they cost time
    and no epsilon (De et al. 2022, arXiv:2204.13650, "augmentation multiplicity")."""
    max_grad_norm: StrictFloat = Field(default=1.0, gt=0, le=1_000)
    """Largest L2 norm of one unit's gradient (model part in domain-adversarial phases)."""
    discriminator_max_grad_norm: StrictFloat = Field(default=1.0, gt=0, le=1_000)
    """The discriminator's own bound in domain-adversarial phases."""
    alone: StrictBool = False
    """Each site goes on with a copy of the shared tensors of its own, under the same DP, and sends
    nothing: what it ends with is the hospital's own model. Such phases come last."""
    trains: Literal["all", "heads"] = "all"
    """`heads`: only what answers the sites' tasks, on features that stay as they are; nothing is
    sent but the concepts that sites with the same kind of image share. First the heads, then
    everything: Kumar et al. 2022, arXiv:2202.10054; under DP, Ke et al. 2024, arXiv:2402.18905."""

    @model_validator(mode="after")
    def _one_step_when_adversarial(self) -> "Phase":
        if "domain_adversarial" in self.objectives and self.local_steps != 1:
            raise ValueError(
                f"phase {self.name!r}: domain_adversarial needs local_steps: 1, because a site's "
                f"own discriminator would learn a constant; got {self.local_steps}"
            )
        return self

    @model_validator(mode="after")
    def _labels_for_heads(self) -> "Phase":
        if self.trains == "heads" and not self.needs_labels:
            raise ValueError(
                f"phase {self.name!r}: heads learn from labels alone: where trains is heads, "
                f"objectives are supervised or rescanned; got {sorted(self.objectives)}"
            )
        return self

    @property
    def needs_labels(self) -> bool:
        """Whether an image without any label teaches nothing here."""
        return set(self.objectives) <= LABEL_OBJECTIVES

    @property
    def sends(self) -> bool:
        """Whether sites send what they have trained of what they share."""
        return not self.alone

    @property
    def settles(self) -> bool:
        """Whether something comes to rest: such a phase begins from the average of the iterates
        before it, and without their momentum, at server and site alike."""
        return self.alone or self.trains == "heads"

    @model_validator(mode="after")
    def _together_when_adversarial(self) -> "Phase":
        if "domain_adversarial" in self.objectives and self.alone:
            raise ValueError(
                f"phase {self.name!r}: domain_adversarial needs other sites, and here each trains "
                "alone: leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _a_lambda_to_ramp(self) -> "Phase":
        if self.lambda_schedule == "ramp" and "domain_adversarial" not in self.objectives:
            raise ValueError(
                f"phase {self.name!r}: lambda_schedule: ramp needs the objective "
                f"domain_adversarial; got {sorted(self.objectives)}"
            )
        return self

    def mix(self, round_: int) -> dict[Objective, float]:
        """Weight of each loss in the phase's own round 1 .. `rounds`; never 0."""
        weights = dict(self.objectives)
        if self.lambda_schedule == "ramp":
            weights["domain_adversarial"] *= ramp(round_ / self.rounds)
        return weights

    @property
    def sensitivity(self) -> float:
        """L2 sensitivity of a step's clipped sum, both clipped groups joined."""
        if "domain_adversarial" not in self.objectives:
            return self.max_grad_norm
        return float(np.hypot(self.max_grad_norm, self.discriminator_max_grad_norm))


class Schedule(BaseModel):
    """Everything that will be computed on private records: fixed before the first gradient."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    phases: tuple[Phase, ...] = Field(min_length=1, max_length=64, fail_fast=True)
    spare_rounds: StrictInt = Field(ge=0, le=10_000)
    """Rounds that may be trained again after a loss; admitted and paid for with the rest."""
    local_momentum: StrictFloat = Field(default=0.9, ge=0, lt=1)
    """Momentum of the parameters that stay at the site; the shared ones have it at the server."""
    average_last: StrictFloat = Field(default=0.3, ge=0, le=1)
    """Fraction of the last phase's rounds whose iterates are averaged at its end; of each phase
    that one follows in which something comes to rest, too (`Phase.settles`)."""

    @model_validator(mode="after")
    def _alone_at_the_end(self) -> "Schedule":
        alone = [phase.alone for phase in self.phases]
        if alone != sorted(alone) or all(alone):
            raise ValueError(
                "phases that each site trains alone come after those that all train together, of "
                f"which there is at least one; got {[p.name for p in self.phases if p.alone]} alone"
            )
        return self

    @model_validator(mode="after")
    def _distinct_names(self) -> "Schedule":
        names = [p.name for p in self.phases]
        if len(set(names)) < len(names) or "spare" in names:
            raise ValueError(f"phases need distinct names, none of them 'spare'; got {names}")
        return self

    @property
    def rounds(self) -> int:
        """Planned rounds, spares not counted."""
        return sum(p.rounds for p in self.phases)

    def phase_of(self, round_: int) -> Phase:
        """The phase of round 1 .. `rounds`."""
        return self._place(round_)[0]

    def mix(self, round_: int) -> dict[Objective, float]:
        """Weight of each loss in round 1 .. `rounds`."""
        phase, own = self._place(round_)
        return phase.mix(own)

    def _place(self, round_: int) -> tuple[Phase, int]:
        """The phase of a round, and its number within that phase, from 1."""
        for phase in self.phases:
            if round_ <= phase.rounds:
                return phase, round_
            round_ -= phase.rounds
        raise IndexError(f"the schedule has {self.rounds} rounds")

    def averages(self, round_: int) -> bool:
        """Whether the iterate after this round belongs to the final average."""
        phase, own = self._place(round_)
        following = self.phases[self.phases.index(phase) + 1 :]
        if self.average_last == 0 or (following and not following[0].settles):
            return False
        return own > phase.rounds - max(1, round(self.average_last * phase.rounds))

    def settles(self, round_: int) -> bool:
        """Whether this round begins from an average (`Phase.settles`)."""
        phase, own = self._place(round_)
        return own == 1 and round_ > 1 and phase.settles

    def settled_since(self, earlier: str, phase: Phase) -> bool:
        """Whether something came to rest after the phase of this name, up to `phase`, which a site
        may have missed in part; "" is before the first."""
        names = [p.name for p in self.phases]
        after = names.index(earlier) + 1 if earlier in names else 0
        return any(p.settles for p in self.phases[after : names.index(phase.name) + 1])

    def canonical(self) -> str:
        """The same text for the same schedule, on every machine."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def hash(self) -> str:
        """SHA-256 of the canonical text."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()


class JoinRequest(BaseModel):
    """request.json: what a hospital sends to be invited; nothing in it is secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    site: str = Field(pattern=NAME)
    public_key: str = Field(max_length=1_000)
    """OpenSSH, ECDSA P-384, as Flower's SuperNode authentication wants it."""


def fingerprint(public_key: str, kind: Literal["node", "signer"] = "node") -> str:
    """Short name of a public key, to be read out: half a SHA-256 in groups of four.

    Args:
        public_key: In OpenSSH format.
        kind: A node's key is an ECDSA key on the curve P-384, a signer's an Ed25519 key.
    Raises:
        ValueError: It is no such key.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    try:
        key = serialization.load_ssh_public_key(public_key.encode())
    except ValueError as error:
        raise ValueError(f"is no public key ({error})") from error
    if kind == "signer":
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise ValueError("is no Ed25519 key")
    elif not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise ValueError("is no ECDSA key on the curve P-384")
    encoded = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return grouped(hashlib.sha256(encoded).hexdigest()[:32])


def key_id(signer: str) -> str:
    """Name of a signer's public key in the nodes' lists of those that they trust."""
    return f"fpk_{fingerprint(signer, 'signer').replace(' ', '')}"


def kit_statement(facts: bytes, authority: bytes) -> bytes:
    """What a signer signs of a start-up kit: its kit.json and its ca.crt."""
    parts = (hashlib.sha256(part).hexdigest() for part in (facts, authority))
    return "\n".join(("fedmedformer start-up kit", *parts)).encode()


def spaced(text: str) -> str:
    """A fingerprint however it was typed.

    Raises:
        ValueError: Not 32 hexadecimal digits.
    """
    plain = "".join(text.split()).lower()
    if len(plain) != 32 or not set(plain) <= set("0123456789abcdef"):
        raise ValueError(f"a fingerprint has 32 digits 0-9 a-f, got {text!r}")
    return grouped(plain)


def grouped(digits: str) -> str:
    """The digits of a fingerprint in groups of four, as they are read out."""
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


@dataclass(frozen=True)
class _Signed:
    """What every request says first."""

    run_id: str
    source_hash: str
    protocol_version: int = field(default=PROTOCOL_VERSION, kw_only=True)


@dataclass(frozen=True)
class Hello(_Signed):
    """Server: who are you?"""

    kind: ClassVar[str] = "query.hello"


@dataclass(frozen=True)
class Admit(_Signed):
    """Server: reserve the budget of this whole schedule."""

    kind: ClassVar[str] = "query.admit"
    schedule: str
    model: str
    """The public model vocabulary as JSON (`medformer.config.ModelConfig`)."""


@dataclass(frozen=True)
class Train(_Signed):
    """Server: train one round from these shared tensors."""

    kind: ClassVar[str] = "train"
    schedule_hash: str
    round: int
    """1 .. schedule.rounds."""
    attempt: int
    """0, or 1, 2, ... for a round that was lost; those are paid from the spare rounds."""
    acknowledged_round: int
    """The server's last durable checkpoint: kept answers up to it may go."""
    tensors: Tensors
    ledger_hash: str = ""
    """The newest row of the site's ledger that the server was told of: a ledger without it was put
    back from an old copy."""

    def key(self) -> str:
        """SHA-256 of what the answer depends on: same key, same answer bytes, no new budget."""
        head = f"{self.run_id}\n{self.schedule_hash}\n{self.round}\n{self.attempt}\n"
        digest = hashlib.sha256(head.encode())
        for name in sorted(self.tensors):
            value = np.ascontiguousarray(self.tensors[name], dtype="<f4")
            digest.update(f"{name} {value.shape}\n".encode())
            digest.update(value.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Evaluate(_Signed):
    """Server, in simulations: exact metrics of the site's model on one split."""

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
    """Receipt of the reservation: what this run may cost the site's patients."""

    site: str
    receipt: str
    """`client.privacy.plan.PrivacyPlan` as JSON: epsilon, delta, unit, phases. No lifetime total,
    no record count."""
    ledger_hash: str = ""
    """Hash of the reservation's row in the site's ledger, which chains all rows before it."""


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


@dataclass(frozen=True)
class EvaluateAnswer:
    """Simulations only: exact metrics, marked as such."""

    site: str
    exact_metrics: str
    """JSON list of {task, metric, split, value}."""


@dataclass(frozen=True)
class Refusal:
    """A typed no. Its text is fixed by code and configuration, never by a record."""

    code: RefusalCode
    reason: str
    site: str = ""


Request = Hello | Admit | Train | Evaluate
Answer = HelloAnswer | AdmitAnswer | TrainAnswer | EvaluateAnswer | Refusal
_REQUESTS: dict[str, type[Request]] = {c.kind: c for c in (Hello, Admit, Train, Evaluate)}
_ANSWERS: dict[str, type[Answer]] = {
    c.__name__: c for c in (HelloAnswer, AdmitAnswer, TrainAnswer, EvaluateAnswer, Refusal)
}


class ProtocolError(Exception):
    """A message that is not of this contract."""


def to_content(part: Request | Answer, packed: dict[int, Array] | None = None) -> RecordDict:
    """Pack a request or an answer; tensors as one file of safetensors, the rest as scalars.

    Args:
        packed: Tensors that were packed before, by their mapping's id, for messages that say the
            same to many; the mappings have to outlive it.
    """
    known = {} if packed is None else packed
    config: dict[str, Any] = {"type": type(part).__name__}
    content: dict[str, ArrayRecord | ConfigRecord] = {}
    for item in fields(part):
        value = getattr(part, item.name)
        if item.name == "tensors":
            if id(value) not in known:
                known[id(value)] = _packed(value)
            content["tensors"] = ArrayRecord({PACKED: known[id(value)]})
        elif value is not None:
            config[item.name] = value
    content["fields"] = ConfigRecord(config)
    return RecordDict(content)


def _packed(tensors: Mapping[str, npt.NDArray[Any]]) -> Array:
    """All of them in one array of Flower's."""
    data = save({k: np.ascontiguousarray(v) for k, v in tensors.items()})
    return Array("uint8", (len(data),), PACKED, data)


def read_request(message: Message) -> Request:
    """Unpack what the server asks.

    Raises:
        ProtocolError: Unknown type, or missing, unknown or mistyped fields.
    """
    kind = _REQUESTS.get(message.metadata.message_type)
    if kind is None:
        raise ProtocolError(f"unknown message type {message.metadata.message_type!r:.80}")
    if message.has_error():
        raise ProtocolError("the message holds an error of Flower's")
    return _unpack(message.content, kind)


def read_answer(content: RecordDict) -> Answer:
    """Unpack what a site answers.

    Raises:
        ProtocolError: Unknown type, or missing, unknown or mistyped fields.
    """
    said = content.get("fields")
    name = said.get("type", "") if isinstance(said, ConfigRecord) else ""
    kind = _ANSWERS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError(f"unknown answer type {name!r:.80}")
    return _unpack(content, kind)


def _unpack(content: RecordDict, kind: type[Any]) -> Any:
    if foreign := sorted(set(content) - {"fields", "tensors"}):
        raise ProtocolError(f"{kind.__name__} has no part {foreign[0]!r:.80}")
    said = content.get("fields")
    if not isinstance(said, ConfigRecord):
        raise ProtocolError(f"the message does not hold a {kind.__name__}")
    values: dict[str, Any] = dict(said)
    if values.pop("type", None) != kind.__name__ or "tensors" in values:
        raise ProtocolError(f"the message does not hold a {kind.__name__}")
    if "tensors" in content:
        values["tensors"] = _arrays(content["tensors"])
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(set(values) - set(known)):
        raise ProtocolError(f"{kind.__name__} has no field {unknown[0]!r:.80}")
    for name, value in values.items():
        if name != "tensors" and not _possible(value, name, known[name].type):
            raise ProtocolError(f"{kind.__name__}.{name} must be {_type_name(known[name].type)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ProtocolError(f"{kind.__name__}: a field is missing") from error


def _possible(value: Any, name: str, wanted: Any) -> bool:
    """Whether a field may have this value, whatever it means."""
    if wanted is int:
        return type(value) is int and 0 <= value < 2**31
    if wanted is RefusalCode:
        return value in get_args(RefusalCode)
    if wanted is str:
        json_ = name in ("schedule", "model", "receipt", "domain", "exact_metrics")
        return type(value) is str and len(value) <= (LONGEST if json_ else LONGEST_TEXT)
    return type(value) is float and math.isfinite(value)


def _arrays(record: Any) -> Tensors:
    """What `_packed` made. Nothing is allocated that is not there."""
    one = record.get(PACKED) if isinstance(record, ArrayRecord) and len(record) == 1 else None
    if one is None or one.stype != PACKED:
        raise ProtocolError(f"tensors must be one array, {PACKED!r}")
    if int.from_bytes(one.data[:8], "little") > LONGEST:
        raise ProtocolError(f"tensors: their names and shapes are longer than {LONGEST} bytes")
    if len(one.data) > LONGEST + 8 + 4 * MOST_VALUES:
        raise ProtocolError(f"tensors: more than {MOST_VALUES} values")
    try:
        parts = deserialize(one.data)  # type: ignore[no-untyped-call]
        if len(parts) > MOST_TENSORS:
            raise ValueError(f"{len(parts)} tensors, at most {MOST_TENSORS}")
        return {name: _array(name, part) for name, part in parts}
    except (SafetensorError, ValueError, OverflowError) as error:
        raise ProtocolError(f"tensors: no float32 safetensors ({error})") from error


def _array(name: str, part: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """A tensor of safetensors, which has counted that its values are as many as its shape says."""
    if part["dtype"] != "F32" or len(part["shape"]) > 8:
        raise ValueError(
            f"{name!r:.80} must be F32 in at most 8 dimensions, is {part['dtype']} in "
            f"{len(part['shape'])}"
        )
    return np.frombuffer(part["data"], "<f4").astype(np.float32).reshape(part["shape"])


def _type_name(annotation: Any) -> str:
    return getattr(annotation, "__name__", "RefusalCode" if annotation is RefusalCode else "")


def metadata(part: Request | Answer) -> dict[str, Any]:
    """Every field but the tensors: what a log may show."""
    return {f.name: getattr(part, f.name) for f in fields(part) if f.name != "tensors"}


def source_hash(root: Path | None = None) -> str:
    """SHA-256 of the Python sources of our packages: do both sides run the same code?

    Args:
        root: Folder that holds the packages; the one this file was loaded from by default, read
            once a process, because a later change on the disk is not what runs.
    """
    return _own_source_hash() if root is None else _hash_of(root)


@lru_cache(maxsize=1)
def _own_source_hash() -> str:
    return _hash_of(Path(__file__).parents[2])


def _hash_of(root: Path) -> str:
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def run_folder(run_config: Mapping[str, Any], flower_run_id: int) -> Path:
    """Where a simulated run lives: `out` of the run config, or a folder of the user's own."""
    out = str(run_config.get("out", ""))
    return Path(out) if out else Path.home() / ".fedmedformer" / "runs" / str(flower_run_id)
