"""server/protocol/ as typed protobuf, and back. Imports no learning library."""

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
    Answer,
    Evaluate,
    EvaluateAnswer,
    Hello,
    HelloAnswer,
    ProtocolError,
    Refusal,
    Request,
    Tensors,
    Train,
    TrainAnswer,
)

SERVICE = "fedmedformer.guard.v1.Guard"
METHOD = f"/{SERVICE}/Handle"
SIZES = (
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
)

_REQUESTS: dict[str, type[Any]] = {
    "hello": Hello, "admit": Admit, "train": Train, "evaluate": Evaluate,
}  # fmt: skip
_ANSWERS: dict[str, type[Any]] = {
    "hello": HelloAnswer,
    "admit": AdmitAnswer,
    "train": TrainAnswer,
    "evaluate": EvaluateAnswer,
    "refusal": Refusal,
}
_ENVELOPE = ("run_id", "source_hash", "protocol_version")
"""Fields that every request has, beside its own."""


def request_to_proto(request: Request) -> Any:
    """A `guard.proto` Request."""
    name = _name_of(_REQUESTS, request)
    message = pb.Request(**{field: getattr(request, field) for field in _ENVELOPE})
    getattr(message, name).SetInParent()
    _fill(getattr(message, name), request, leave=_ENVELOPE)
    return message


def request_from_proto(message: Any) -> Request:
    """Back again.

    Raises:
        ProtocolError: It asks for nothing, or its tensors are not what they say.
    """
    name = message.WhichOneof("ask")
    if name is None:
        raise ProtocolError("the request asks for nothing")
    envelope = {field: getattr(message, field) for field in _ENVELOPE}
    request: Request = _read(_REQUESTS[name], getattr(message, name), envelope)
    return request


def answer_to_proto(answer: Answer) -> Any:
    """A `guard.proto` Answer."""
    message = pb.Answer()
    inner = getattr(message, _name_of(_ANSWERS, answer))
    inner.SetInParent()
    _fill(inner, answer, leave=())
    return message


def answer_from_proto(message: Any) -> Answer:
    """Back again.

    Raises:
        ProtocolError: It holds nothing, or its tensors are not what they say.
    """
    name = message.WhichOneof("answer")
    if name is None:
        raise ProtocolError("the guard's answer is empty")
    answer: Answer = _read(_ANSWERS[name], getattr(message, name), {})
    return answer


def _name_of(kinds: dict[str, type[Any]], part: Request | Answer) -> str:
    return next(name for name, kind in kinds.items() if type(part) is kind)


def _fill(message: Any, part: Any, leave: Iterable[str]) -> None:
    for item in fields(part):
        value = getattr(part, item.name)
        if item.name == "tensors":
            for name in sorted(value):
                array = np.asarray(value[name], dtype="<f4", order="C")
                message.tensors.add(name=name, shape=array.shape, values=array.tobytes())
        elif item.name not in leave and value is not None:
            setattr(message, item.name, value)


def _read(kind: type[Any], message: Any, values: dict[str, Any]) -> Any:
    for item in fields(kind):
        if item.name == "tensors":
            values["tensors"] = _tensors(message.tensors)
        elif item.name not in values:
            absent = item.name == "exact_loss" and not message.HasField("exact_loss")
            values[item.name] = None if absent else getattr(message, item.name)
    return kind(**values)


def _tensors(messages: Any) -> Tensors:
    if len(messages) > MAX_TENSORS:
        raise ProtocolError(f"{len(messages)} tensors; at most {MAX_TENSORS} are read")
    tensors: Tensors = {}
    for one in messages:
        if one.name in tensors or len(one.name) > MAX_TEXT or len(one.shape) > 8:
            raise ProtocolError(f"tensor {one.name[:80]!r} comes twice, or is none")
        if 4 * math.prod(one.shape) != len(one.values):
            raise ProtocolError(f"tensor {one.name[:80]!r} is not of its shape")
        flat = np.frombuffer(one.values, dtype="<f4").astype(np.float32)
        try:
            tensors[one.name] = flat.reshape(tuple(one.shape))
        except ValueError as error:  # no value at all, and sides whose product overflows
            raise ProtocolError(f"tensor {one.name[:80]!r} has an impossible shape") from error
    return tensors
