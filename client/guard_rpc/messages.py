"""Conversion of the protocol's messages to protobuf and back. It imports no learning library."""

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np

from client.guard_rpc import guard_pb2 as pb
from server.protocol import (
    MAX_MESSAGE,
    MAX_TENSORS,
    MAX_TEXT,
    Admit,
    AdmitAnswer,
    Agree,
    AgreeAnswer,
    Answer,
    Confirm,
    ConfirmAnswer,
    Evaluate,
    EvaluateAnswer,
    Hello,
    HelloAnswer,
    Measure,
    MeasureAnswer,
    ProtocolError,
    Refusal,
    Request,
    Tensors,
    Train,
    TrainAnswer,
)
from server.protocol.masking import Words

SERVICE = "fedmedformer.guard.v1.Guard"
"""Name of the gRPC service."""
METHOD = f"/{SERVICE}/Handle"
"""Path of the service's one method."""
SIZES = (
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
)

_REQUESTS: dict[str, type[Any]] = {
    "hello": Hello, "admit": Admit, "agree": Agree, "train": Train, "measure": Measure,
    "evaluate": Evaluate, "confirm": Confirm,
}  # fmt: skip
_ANSWERS: dict[str, type[Any]] = {
    "hello": HelloAnswer,
    "admit": AdmitAnswer,
    "agree": AgreeAnswer,
    "train": TrainAnswer,
    "measure": MeasureAnswer,
    "evaluate": EvaluateAnswer,
    "confirm": ConfirmAnswer,
    "refusal": Refusal,
}
_ENVELOPE = ("run_id", "source_hash", "protocol_version")
"""Fields that every request has."""


def request_to_proto(request: Request) -> Any:
    """Convert a request to a `Request` of guard.proto.

    Args:
        request: One of the protocol's requests.
    """
    name = _name_of(_REQUESTS, request)
    message = pb.Request(**{field: getattr(request, field) for field in _ENVELOPE})
    # A request without fields would otherwise be indistinguishable from none.
    getattr(message, name).SetInParent()
    _fill(getattr(message, name), request, leave=_ENVELOPE)
    return message


def request_from_proto(message: Any) -> Request:
    """Convert a `Request` of guard.proto to a request.

    Args:
        message: As it came over the socket.
    Raises:
        ProtocolError: The message holds no request, or its tensors are malformed.
    """
    name = message.WhichOneof("ask")
    if name is None:
        raise ProtocolError("the request asks for nothing")
    envelope = {field: getattr(message, field) for field in _ENVELOPE}
    request: Request = _read(_REQUESTS[name], getattr(message, name), envelope)
    return request


def answer_to_proto(answer: Answer) -> Any:
    """Convert an answer to an `Answer` of guard.proto.

    Args:
        answer: One of the protocol's answers.
    """
    message = pb.Answer()
    inner = getattr(message, _name_of(_ANSWERS, answer))
    inner.SetInParent()
    _fill(inner, answer, leave=())
    return message


def answer_from_proto(message: Any) -> Answer:
    """Convert an `Answer` of guard.proto to an answer.

    Args:
        message: As it came over the socket.
    Raises:
        ProtocolError: The message holds no answer, or its tensors are malformed.
    """
    name = message.WhichOneof("answer")
    if name is None:
        raise ProtocolError("the guard's answer is empty")
    answer: Answer = _read(_ANSWERS[name], getattr(message, name), {})
    return answer


def _name_of(kinds: dict[str, type[Any]], part: Request | Answer) -> str:
    """Return the protobuf field for a message of this type."""
    return next(name for name, kind in kinds.items() if type(part) is kind)


def _fill(message: Any, part: Any, leave: Iterable[str]) -> None:
    """Copy the fields of a dataclass, except those in `leave`, to a protobuf message."""
    for item in fields(part):
        value = getattr(part, item.name)
        if item.name == "tensors":
            # Sorted, so that equal messages have equal bytes.
            for name in sorted(value):
                array = np.asarray(value[name], dtype="<f4", order="C")
                message.tensors.add(name=name, shape=array.shape, values=array.tobytes())
        elif item.name == "words":
            if value is not None:
                message.words = np.asarray(value, dtype="<u8", order="C").tobytes()
        elif item.name not in leave and value is not None:
            setattr(message, item.name, value)


def _read(kind: type[Any], message: Any, values: dict[str, Any]) -> Any:
    """Make a dataclass from `values` and the fields of a protobuf message."""
    for item in fields(kind):
        if item.name == "tensors":
            values["tensors"] = _tensors(message.tensors)
        elif item.name == "words":
            values["words"] = _words(message.words) if message.HasField("words") else None
        elif item.name not in values:
            # A loss of 0 is a loss: protobuf alone cannot tell it from a missing one.
            absent = item.name == "exact_loss" and not message.HasField("exact_loss")
            values[item.name] = None if absent else getattr(message, item.name)
    return kind(**values)


def _words(data: bytes) -> Words:
    """Read masked words."""
    if len(data) % 8:
        raise ProtocolError("masked words have 8 bytes each")
    return np.frombuffer(data, "<u8").astype(np.uint64)


def _tensors(messages: Any) -> Tensors:
    """Read named arrays; names, sizes and shapes are checked before anything is allocated."""
    if len(messages) > MAX_TENSORS:
        raise ProtocolError(f"{len(messages)} tensors; at most {MAX_TENSORS} are allowed")
    tensors: Tensors = {}
    for one in messages:
        if one.name in tensors or len(one.name) > MAX_TEXT or len(one.shape) > 8:
            raise ProtocolError(
                f"tensor {one.name[:80]!r} is repeated, or its name or shape is too long"
            )
        # Checked before numpy sees the shape, whose product could overflow.
        if 4 * math.prod(one.shape) != len(one.values):
            raise ProtocolError(f"the data of tensor {one.name[:80]!r} does not fit its shape")
        # A copy in the machine's byte order, which the message's memory does not keep alive.
        flat = np.frombuffer(one.values, dtype="<f4").astype(np.float32)
        try:
            tensors[one.name] = flat.reshape(tuple(one.shape))
        except ValueError as error:  # no data, and sides whose product overflows
            raise ProtocolError(f"tensor {one.name[:80]!r} has an impossible shape") from error
    return tensors
