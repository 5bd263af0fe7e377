"""What a site says that a run may cost its patients: read as hostile as any other answer."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.protocol.messages import ProtocolError

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0, le=2**31)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class _Phase(_Strict):
    name: str = Field(max_length=64)
    rounds: Count
    steps: Count
    steps_per_round: Count
    sample_rate: Share
    noise_multiplier: Positive
    max_grad_norm: Positive
    expected_batch_size: Positive


class _Receipt(_Strict):
    unit: Literal["image", "patient"]
    adjacency: str = Field(max_length=200)
    delta: Share
    epsilon: Positive
    phases: list[_Phase] = Field(min_length=1, max_length=1_000, fail_fast=True)
    progress: list[Annotated[list[Any], Field(min_length=2, max_length=2)]] = Field(
        max_length=10_000, fail_fast=True
    )
    curve: list[
        Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2)]
    ] = Field(max_length=1_000, fail_fast=True)
    accountant: str = Field(max_length=200)
    steps: Count


def read_receipt(text: str) -> dict[str, Any]:
    """A receipt (`client.privacy.plan.PrivacyPlan` as JSON) as plain values.

    Raises:
        ProtocolError: It is none: a field is missing, unknown, of another type or not finite.
    """
    try:
        found = _Receipt.model_validate_json(text)
        for round_, epsilon in found.progress:
            if type(round_) is not int or not 0 <= float(epsilon) < float("inf"):
                raise ValueError("progress is no list of rounds and epsilons")
    except (ValidationError, ValueError, TypeError) as error:
        raise ProtocolError("it is no receipt of a plan") from error
    return found.model_dump()


def epsilon_so_far(receipt: dict[str, Any], round_: int, repeated: bool) -> float | None:
    """What a run has cost up to a round, never too small; None of a receipt without a plan.

    A receipt holds the epsilon after some rounds only: between two of them, the next one's. After a
    repeated round and at the end it is the whole run's, which pays for the spare rounds.

    Args:
        receipt: As `read_receipt` gives it.
        round_: The round that was trained last.
        repeated: Whether any round up to it was trained more than once.
    """
    whole: float | None = receipt.get("epsilon")
    if repeated or whole is None:
        return whole
    points = [(number, float(epsilon)) for number, epsilon in receipt["progress"]]
    if round_ >= max((number for number, _ in points), default=0):
        return whole
    return min(whole, *(epsilon for number, epsilon in points if number >= round_))
