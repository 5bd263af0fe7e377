"""Messages as Flower carries them: packed for sending, checked while reading."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from server.protocol.limits import MAX_JSON, MAX_TENSORS, MAX_TEXT, MAX_VALUES
from server.protocol.masking import Words
from server.protocol.messages import (
    ARRAYS,
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
    RefusalCode,
    Request,
    Tensors,
    Train,
    TrainAnswer,
)

PACKED = "safetensors"
"""Name of the one array that holds all tensors of a message as a file of safetensors. Flower
carries every array as an object of its own through four processes; one is faster than hundreds."""
WORDS = "words"
"""Name of the one array that holds masked words, 8 bytes each."""
JSON_FIELDS = (
    "schedule", "model", "receipt", "domain", "exact_metrics",
    "mask_keys", "members", "sealed", "cohort", "trained", "counts",
)  # fmt: skip
"""Fields that hold JSON, which may be longer than other texts."""

_REQUESTS: dict[str, type[Request]] = {
    c.kind: c for c in (Hello, Admit, Agree, Train, Measure, Evaluate, Confirm)
}
_ANSWERS: dict[str, type[Answer]] = {
    c.__name__: c
    for c in (
        HelloAnswer, AdmitAnswer, AgreeAnswer, TrainAnswer, MeasureAnswer, EvaluateAnswer,
        ConfirmAnswer, Refusal,
    )
}  # fmt: skip


def to_content(part: Request | Answer, packed: dict[int, Array] | None = None) -> RecordDict:
    """Pack a request or an answer: tensors as one file of safetensors, the rest as scalars.

    Args:
        part: What to send.
        packed: Arrays that were packed before, by the `id` of their mapping. A round sends the same
            tensors to every site; pass one dict, and keep the mappings alive as long as it.
    """
    known = {} if packed is None else packed
    config: dict[str, Any] = {"type": type(part).__name__}
    content: dict[str, ArrayRecord | ConfigRecord] = {}
    for item in fields(part):
        value = getattr(part, item.name)
        if item.name == "tensors":
            # By identity: comparing the tensors would cost more than packing them again.
            if id(value) not in known:
                known[id(value)] = _packed(value)
            content["tensors"] = ArrayRecord({PACKED: known[id(value)]})
        # Flower has no null: a field that is left out takes its default at the other side.
        elif item.name == "words":
            if value is not None:
                content["words"] = ArrayRecord({WORDS: _packed_words(value)})
        elif value is not None:
            config[item.name] = value
    content["fields"] = ConfigRecord(config)
    return RecordDict(content)


def _packed(tensors: Mapping[str, npt.NDArray[Any]]) -> Array:
    """Pack all tensors into one of Flower's arrays."""
    # safetensors writes the memory of an array: its values have to be in order.
    data = save({k: np.ascontiguousarray(v) for k, v in tensors.items()})
    return Array("uint8", (len(data),), PACKED, data)


def _packed_words(words: Words) -> Array:
    """Pack masked words into one of Flower's arrays."""
    data = np.ascontiguousarray(words, dtype="<u8").tobytes()
    return Array("uint8", (len(data),), WORDS, data)


def read_request(message: Message) -> Request:
    """Unpack a request of the server.

    Args:
        message: As Flower delivered it.
    Raises:
        ProtocolError: Unknown type, or missing, unknown or mistyped fields.
    """
    kind = _REQUESTS.get(message.metadata.message_type)
    if kind is None:
        raise ProtocolError(f"unknown message type {message.metadata.message_type!r:.80}")
    # Flower may deliver an error under the type of a request.
    if message.has_error():
        raise ProtocolError("the message holds an error of Flower's")
    return _unpack(message.content, kind)


def read_answer(content: RecordDict) -> Answer:
    """Unpack an answer of a site.

    Args:
        content: Of Flower's reply; a hostile site may have written it.
    Raises:
        ProtocolError: Unknown type, or missing, unknown or mistyped fields.
    """
    config = content.get("fields")
    # Every step may be missing or of another type: a hostile site writes all of it.
    name = config.get("type", "") if isinstance(config, ConfigRecord) else ""
    kind = _ANSWERS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError(f"unknown answer type {name!r:.80}")
    return _unpack(content, kind)


def _unpack(content: RecordDict, kind: type[Any]) -> Any:
    """Build a message of one kind; every part and field is checked before it is used."""
    # A part that nobody reads could carry anything past a reviewer.
    if foreign := sorted(set(content) - {"fields", *ARRAYS}):
        raise ProtocolError(f"{kind.__name__} has no part {foreign[0]!r:.80}")
    config = content.get("fields")
    if not isinstance(config, ConfigRecord):
        raise ProtocolError(f"the message does not hold a {kind.__name__}")
    values: dict[str, Any] = dict(config)
    if values.pop("type", None) != kind.__name__ or set(ARRAYS) & set(values):
        raise ProtocolError(f"the message does not hold a {kind.__name__}")
    if "tensors" in content:
        values["tensors"] = _arrays(content["tensors"])
    if "words" in content:
        values["words"] = _words(content["words"])
    known = {f.name: f for f in fields(kind)}
    # The same for fields: `private: false` must not look as if it had an effect.
    if unknown := sorted(set(values) - set(known)):
        raise ProtocolError(f"{kind.__name__} has no field {unknown[0]!r:.80}")
    for name, value in values.items():
        if name not in ARRAYS and not _possible(value, name, known[name].type):
            raise ProtocolError(f"{kind.__name__}.{name} must be {_type_name(known[name].type)}")
    try:
        return kind(**values)
    # Raised by the dataclass: unknown fields were refused before.
    except TypeError as error:
        raise ProtocolError(f"{kind.__name__}: a field is missing") from error


def _possible(value: Any, name: str, annotation: Any) -> bool:
    """Check the type and the size of a field's value, not its meaning."""
    if annotation is int:
        # `type(...) is`, because True is an int, too.
        return type(value) is int and 0 <= value < 2**31
    if annotation is RefusalCode:
        return value in get_args(RefusalCode)
    if annotation is str:
        return type(value) is str and len(value) <= (MAX_JSON if name in JSON_FIELDS else MAX_TEXT)
    return type(value) is float and math.isfinite(value)


def _arrays(record: Any) -> Tensors:
    """Unpack what `_packed` made. Sizes are checked before memory for the values is allocated."""
    packed = record.get(PACKED) if isinstance(record, ArrayRecord) and len(record) == 1 else None
    if packed is None or packed.stype != PACKED:
        raise ProtocolError(f"tensors must be one array, {PACKED!r}")
    # The first 8 bytes of safetensors are the length of its header, which is JSON.
    if int.from_bytes(packed.data[:8], "little") > MAX_JSON:
        raise ProtocolError(f"tensors: their names and shapes are longer than {MAX_JSON} bytes")
    if len(packed.data) > MAX_JSON + 8 + 4 * MAX_VALUES:
        raise ProtocolError(f"tensors: more than {MAX_VALUES} values")
    try:
        parts = deserialize(packed.data)  # type: ignore[no-untyped-call]
        if len(parts) > MAX_TENSORS:
            raise ValueError(f"{len(parts)} tensors, at most {MAX_TENSORS}")
        return {name: _array(name, part) for name, part in parts}
    # A shape whose product overflows is an OverflowError.
    except (SafetensorError, ValueError, OverflowError) as error:
        raise ProtocolError(f"tensors: not a file of float32 safetensors ({error})") from error


def _words(record: Any) -> Words:
    """Unpack what `_packed_words` made."""
    packed = record.get(WORDS) if isinstance(record, ArrayRecord) and len(record) == 1 else None
    if packed is None or packed.stype != WORDS:
        raise ProtocolError(f"words must be one array, {WORDS!r}")
    if len(packed.data) % 8 or len(packed.data) > 8 * MAX_VALUES:
        raise ProtocolError(f"words must be at most {MAX_VALUES} of 8 bytes each")
    return np.frombuffer(packed.data, "<u8").astype(np.uint64)


def _array(name: str, part: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Copy one tensor; safetensors has checked that the data have the size of the shape."""
    if part["dtype"] != "F32" or len(part["shape"]) > 8:
        raise ValueError(
            f"{name!r:.80} must be F32 in at most 8 dimensions, is {part['dtype']} in "
            f"{len(part['shape'])}"
        )
    # A copy, because the buffer is read-only and belongs to the message.
    return np.frombuffer(part["data"], "<f4").astype(np.float32).reshape(part["shape"])


def _type_name(annotation: Any) -> str:
    return getattr(annotation, "__name__", "RefusalCode" if annotation is RefusalCode else "")
