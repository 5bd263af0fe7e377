"""The receipt of a reservation: what a run may cost the patients of one site.

These two classes are the only list of its fields. The site's plan extends them
(`client.privacy.plan`), the coordinator reads them from a site that it does not trust, and report,
schema, page and the table of `fedmedformer plan` take names, descriptions and columns from
`phase_fields`. Whoever adds a field to a phase declares it here and nowhere else.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from server.protocol.messages import ProtocolError

Share = Annotated[float, Field(gt=0, le=1)]
Portion = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0, le=2**31)]

# A site writes this text: nothing is converted, and no field is ignored.
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


@dataclass(frozen=True)
class Column:
    """Title and format of a field of a phase in tables for people."""

    title: str
    format: str = "d"
    """Format as Python's `format` takes it. `down`: rounded down, so that no table shows more noise
    than there is; `text`: as it is."""


@dataclass(frozen=True)
class PhaseReceipt:
    """The DP steps of one phase that a site has reserved. A field with a `Column` is reported."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: Annotated[
        str,
        Field(
            max_length=64,
            description="Phase of the schedule; `spare`: rounds kept for retraining a lost round; "
            "`class-balance`: the site's own count of its classes, no round; `evaluation`: the "
            "counts of the final model's scores, no round.",
        ),
        Column("phase", "text"),
    ]
    rounds: Annotated[Count, Field(description="Admitted rounds of the phase."), Column("rounds")]
    steps: Annotated[
        Count,
        Field(description="Admitted DP steps of the phase, all its rounds together."),
        Column("steps"),
    ]
    steps_per_round: Count
    """Admitted DP steps of one round; `steps` without rounds."""
    sample_rate: Annotated[
        Share,
        Field(description="Probability with which each unit joins a step, independently."),
        Column("sample rate", ".4g"),
    ]
    noise_multiplier: Annotated[
        Positive,
        Field(description="Standard deviation of the noise divided by max_grad_norm; no unit."),
        Column("noise multiplier", "down"),
    ]
    max_grad_norm: Annotated[
        Positive,
        Field(
            description="L2 sensitivity of a step's clipped sum, or of a count, under "
            "add/remove of one unit."
        ),
        Column("max. norm", ".3f"),
    ]
    expected_batch_size: Annotated[
        Positive,
        Field(description="Public constant that the noisy sum is divided by; units a step."),
        Column("expected batch", "g"),
    ]
    honest: Annotated[
        Count,
        Field(
            ge=1,
            description="Number of honest sites, at most, whose noise adds up to the noise "
            "multiplier: this site adds at least one part in so many of the variance. 1: it adds "
            "all of it.",
        ),
        Column("noise shared by"),
    ] = 1


@dataclass(frozen=True)
class Receipt:
    """Cost of one run at one site: public constants and epsilon, nothing about records."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    unit: Literal["image", "patient"]
    """The unit of privacy: whose presence is hidden."""
    adjacency: Annotated[str, Field(max_length=200)]
    """The difference between two neighbouring data sets, in words."""
    delta: Share
    epsilon: Positive
    """The guarantee: epsilon of every admitted step, spare rounds included. This is what the ledger
    charges. Where each site adds a share of the noise, it holds as long as no more sites than
    `colluders` collude with the server."""
    phases: Annotated[
        tuple[PhaseReceipt, ...], Field(min_length=1, max_length=1_000, fail_fast=True)
    ]
    """Every admitted step: the count of the classes first, if there is one, spare rounds last."""
    progress: Annotated[
        tuple[tuple[Count, NonNegative], ...], Field(max_length=10_000, fail_fast=True)
    ]
    """(round, epsilon of the planned steps up to it), never too small. This is progress, not a
    guarantee: rounds that were trained again are not in it (`epsilon_so_far`)."""
    curve: Annotated[
        tuple[tuple[NonNegative, NonNegative], ...], Field(max_length=1_000, fail_fast=True)
    ]
    """(delta, epsilon) of every admitted step. Each pair is guaranteed, all of them at once."""
    accountant: Annotated[str, Field(max_length=200)]
    """Method that computed epsilon, with its version."""
    others: Annotated[
        tuple[tuple[Annotated[str, Field(max_length=200)], NonNegative], ...], Field(max_length=10)
    ] = ()
    """(method, epsilon) of other accountants, upper bounds of the same steps at the same delta."""
    detected: Annotated[tuple[tuple[Share, Share], ...], Field(max_length=100)] = ()
    """(share of false alarms, share of used units that the best attack finds with so many), for
    every admitted step; empty in receipts of earlier versions, as are the next two."""
    roc: Annotated[tuple[tuple[Portion, Portion], ...], Field(max_length=1_000)] = ()
    """The same as corners of a curve: no attack lies above the lines between them."""
    mu: NonNegative | None = None
    """Mu of Gaussian DP: the run is at least as private as one release of a Gaussian mechanism
    whose sensitivity is mu standard deviations of its noise."""
    colluders: Count = 0
    """Number of sites that may collude with the server for `epsilon_few_collude` to hold; 0 where
    nothing is masked, or nothing follows from the masks."""
    epsilon_few_collude: Positive | None = None
    """Epsilon of every admitted step against the server and `colluders` sites, who see sums over
    `min_sites` sites at least; None without colluders."""
    epsilon_all_collude: Positive | None = None
    """Epsilon of every admitted step if all other sites collude with the server; None without
    colluders."""

    @property
    def steps(self) -> int:
        """Admitted steps, spare rounds included."""
        return sum(p.steps for p in self.phases)

    def to_json(self) -> str:
        """Return the receipt as JSON: what a site sends, and what its ledger keeps."""
        return json.dumps({**asdict(self), "steps": self.steps})


COLLUSION = ("colluders", "epsilon_few_collude", "epsilon_all_collude")
"""Fields of a receipt that say who has to be honest; receipts of earlier versions lack them."""


@dataclass(frozen=True)
class _Received(Receipt):
    """A receipt as it arrives, with the total that `to_json` adds."""

    total: Annotated[Count, Field(alias="steps")] = field(kw_only=True)


_RECEIVED = TypeAdapter(_Received)


def read_receipt(text: str) -> dict[str, Any]:
    """Return a receipt as plain values, checked as any answer of a site that may be hostile.

    Args:
        text: `Receipt.to_json` of a site.
    Raises:
        ProtocolError: A field is missing, unknown, of another type or not finite, or the number of
            steps is not the sum over the phases.
    """
    try:
        received = _RECEIVED.validate_json(text)
    except ValidationError as error:
        raise ProtocolError("its receipt is not that of a privacy plan") from error
    # The report counts steps by phase; a total that contradicts them would mislead.
    if received.total != received.steps:
        raise ProtocolError(
            "its receipt is not that of a privacy plan: the steps are not those of the phases"
        )
    values = asdict(received)
    del values["total"]
    return {**values, "steps": received.steps}


@dataclass(frozen=True)
class PhaseField:
    """A reported field of a phase: its name, meaning, bounds and column."""

    name: str
    kind: type
    """str, int or float."""
    description: str
    bounds: dict[str, float]
    """Keywords of JSON Schema, such as {"exclusiveMinimum": 0}."""
    column: Column

    @property
    def is_number(self) -> bool:
        """True if the column holds numbers, which are aligned to the right."""
        return self.kind is not str


_KEYWORDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
"""Bound of a pydantic field -> keyword of JSON Schema."""


def phase_fields(receipt: type[PhaseReceipt] = PhaseReceipt) -> tuple[PhaseField, ...]:
    """Return the fields of a phase that are reported, in the order of the table's columns.

    Args:
        receipt: The class that declares them.
    """
    hints = get_type_hints(receipt, include_extras=True)
    found = (_phase_field(item.name, hints[item.name]) for item in fields(receipt))
    return tuple(item for item in found if item is not None)


def _phase_field(name: str, hint: Any) -> PhaseField | None:
    """Read one annotation; None for a field without a column."""
    kind, *marks = get_args(hint)
    # A field without a column is for the two sides only, such as `steps_per_round`.
    column = next((mark for mark in marks if isinstance(mark, Column)), None)
    if column is None:
        return None
    # `Share` and the like bring one FieldInfo with the bounds, the field itself one with the text.
    infos = [mark for mark in marks if isinstance(mark, FieldInfo)]
    limits = [limit for info in infos for limit in info.metadata]
    return PhaseField(
        name=name,
        kind=kind,
        description=next(info.description for info in infos if info.description),
        bounds={
            keyword: getattr(limit, bound)
            for bound, keyword in _KEYWORDS.items()
            for limit in limits
            if hasattr(limit, bound)
        },
        column=column,
    )


def epsilon_so_far(receipt: dict[str, Any], round_: int, repeated: bool) -> float | None:
    """Return what a run has cost up to a round, never too small.

    A receipt holds the epsilon after some rounds only. Between two of them the later one is taken;
    after a repeated round and at the end that of the whole run, which pays for the spare rounds.

    Args:
        receipt: As `read_receipt` returns it.
        round_: The round that was trained last.
        repeated: True if any round up to it was trained more than once.
    Returns:
        Epsilon at the receipt's delta; None for a receipt without a plan.
    """
    whole: float | None = receipt.get("epsilon")
    # The plan does not know which rounds are repeated; the whole run pays for all of them.
    if repeated or whole is None:
        return whole
    points = [(number, float(epsilon)) for number, epsilon in receipt["progress"]]
    if round_ >= max((number for number, _ in points), default=0):
        return whole
    # Epsilon grows with the rounds, so the next point is an upper bound.
    return min(whole, *(epsilon for number, epsilon in points if number >= round_))


def takes_no_step(receipt: dict[str, Any], phase: str) -> bool:
    """Return True if a site declared that it takes no step in a phase: it has no labels for it.

    Args:
        receipt: As `read_receipt` returns it.
        phase: Name of a phase of the schedule.
    """
    return any(row["name"] == phase and row["steps"] == 0 for row in receipt["phases"])
