"""Hostile updates and hostile requests: what a server may be answered, what a guard may be asked.

Each case is made with the judgement of what may come of it, by rules written here a second time.
"""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from safetensors.numpy import load, save

from client.guard_rpc import guard_pb2 as pb
from client.guard_rpc.messages import request_from_proto, request_to_proto
from server.protocol import (
    PROTOCOL_VERSION,
    Admit,
    Evaluate,
    Hello,
    ProtocolError,
    Request,
    Schedule,
    Tensors,
    Train,
    TrainAnswer,
    source_hash,
)
from server.protocol.wire import PACKED, to_content
from tests.fuzz.harm import spoiled

# Updates

MAX_NORM = 10.0
FLOATS = (math.nan, math.inf, -math.inf, 3e38, -3e38, 1e30, 1e-45, 0.0, -0.0)
JUNK = (
    "",
    "north",
    "\0",
    "\x1b[2J",
    "../x",
    "x" * 70_000,
    -1,
    2**31,
    2**62,
    1.5,
    math.nan,
    True,
    b"x",
)


@dataclass(frozen=True)
class Round:
    """The round that the server asked for."""

    site: str
    number: int
    attempt: int
    shared: Tensors


def update(rng: Random, of: Round) -> RecordDict:
    """An answer to that round: a good one, of which one to three things are not as they should be;
    one in ten is left as it is."""
    seed = rng.randrange(2**32)
    step = np.random.default_rng(seed)
    tensors = {
        name: (value + step.normal(0, 0.1, value.shape)).astype(np.float32)
        for name, value in of.shared.items()
        if rng.random() < 0.9
    }
    answer = TrainAnswer(of.site, of.number, of.attempt, tensors, None, "0" * 64)
    content = to_content(answer)
    for _ in range(0 if rng.random() < 0.1 else rng.choice((1, 1, 2, 3))):
        _harm_answer(content, rng)
    return content


def _put(content: RecordDict, name: str, record: ArrayRecord | ConfigRecord | MetricRecord) -> None:
    """Replace a record without Flower's warning about another type."""
    content.pop(name, None)
    content[name] = record


def _harm_answer(content: RecordDict, rng: Random) -> None:
    arrays = content.get("tensors")
    if rng.random() < 0.35 or not isinstance(arrays, ArrayRecord) or not arrays:
        _harm_fields(content, rng)
        return
    try:
        harmed = _harmed(arrays, rng)
    except Exception:  # it was harmed before, beyond what safetensors reads
        return
    content["tensors"] = harmed


def _harmed(record: ArrayRecord, rng: Random) -> ArrayRecord:
    """Return a record whose file of tensors, or whose description of it, is spoiled."""
    key, one = next(iter(record.items()))
    how = rng.randrange(14)
    if how < 3:  # whatever the bytes say
        return _as_sent(spoiled(one.data, rng))
    if how == 3:
        return _as_sent(_lying(rng))
    if how == 4:
        stype = rng.choice(("torch", "pickle", "numpy.ndarray", ""))
        return ArrayRecord({key: Array(one.dtype, one.shape, stype, one.data)})
    if how == 5:
        several = {key: one, rng.choice(("more", "", "../x")): one}
        return ArrayRecord(rng.choice((several, {}, {"x": one}, {"a": Array(np.ones(3))})))
    tensors = load(one.data)
    name = rng.choice(sorted(tensors))
    value = tensors[name].copy()
    if how == 6:
        kind = rng.choice(("f8", "f2", "i4", "?", "u1"))
        tensors[name] = np.ones(value.shape, np.float32).astype(kind)
    elif how in (7, 8):
        value.flat[rng.randrange(value.size)] = rng.choice(FLOATS)
        tensors[name] = value
    elif how == 9:
        changed = (value[None], value.ravel()[:-1], value.T.copy(), value[:0])
        tensors[name] = rng.choice(changed)
    elif how == 10:
        tensors[name] = value * np.float32(rng.choice((10, 1e3, 1e20)))
    elif how == 11:
        foreign = ("output.heads.x.weight", "input.site.own.tokens", "encoder.no", "", "x" * 9_000)
        tensors[rng.choice(foreign)] = value
    elif how == 12:
        tensors.update({f"{name}.{i}": value[:0] for i in range(5_000)})
    else:
        out = io.BytesIO()
        np.save(out, np.array([print] * 4, object), allow_pickle=True)
        return ArrayRecord({key: Array(one.dtype, one.shape, "numpy.ndarray", out.getvalue())})
    return _as_sent(save(tensors))


def _as_sent(data: bytes) -> ArrayRecord:
    return ArrayRecord({PACKED: Array("uint8", (len(data),), PACKED, data)})


def _lying(rng: Random) -> bytes:
    """Return a safetensors file whose header describes data that it does not hold."""
    shape = rng.choice(([2**40], [-1, 4], [0, 2**63], [2**31] * 3, [1] * 64, [2**70], [], "x"))
    places = rng.choice(([0, 16], [0, 2**62], [16, 0], [8, 24], [0], "x"))
    kind = rng.choice(("F32", "F32", "F4", "F64", "BOOL", "x"))
    head = json.dumps({"a": {"dtype": kind, "shape": shape, "data_offsets": places}}).encode()
    if rng.random() < 0.2:
        head = rng.choice((b"[" * 100_000, b'{"a":' * 50_000, b"{}", b"", b"null"))
    length = rng.choice((len(head), len(head), len(head), 2**63, 2**32, 0))
    return length.to_bytes(8, "little") + head + bytes(16)


def _harm_fields(content: RecordDict, rng: Random) -> None:
    how = rng.randrange(8)
    record = content.get("fields")
    fields: dict[str, Any] = dict(record) if isinstance(record, ConfigRecord) else {}
    if how == 0:
        content["more"] = ConfigRecord({"a": 1})
    elif how == 1:
        wrong = (MetricRecord({"a": 1}), ConfigRecord({"a": 1}), ArrayRecord())
        _put(content, rng.choice(("fields", "tensors")), rng.choice(wrong))
    elif how == 2:
        content.pop(rng.choice(("fields", "tensors")), None)
    elif how == 3 and fields:
        del fields[rng.choice(sorted(fields))]
        _put(content, "fields", ConfigRecord(fields))
    else:
        names = ("site", "round", "attempt", "exact_loss", "ledger_hash", "type", "tensors", "more")
        value = rng.choice((*JUNK, "AdmitAnswer", "Refusal", "Hello", 0, 1, 2, [1, 2], ["a"]))
        fields[rng.choice(names)] = value
        _put(content, "fields", ConfigRecord(fields))


def may_be_averaged(answer: TrainAnswer, of: Round) -> None:
    """Assert that an answer which `check_update` accepted is the one asked for, and harmless."""
    assert (answer.site, answer.round, answer.attempt) == (of.site, of.number, of.attempt)
    # An update without tensors moves nothing: a site without labels sends such a one.
    assert set(answer.tensors) <= set(of.shared)
    assert answer.exact_loss is None or math.isfinite(answer.exact_loss)
    square = 0.0
    for name, value in answer.tensors.items():
        assert value.dtype == np.float32
        assert value.shape == of.shared[name].shape
        assert np.isfinite(value).all()
        square += float(((value.astype("f8") - of.shared[name].astype("f8")) ** 2).sum())
    assert square <= MAX_NORM**2 * (1 + 1e-9)


# Requests


class Unreadable(Exception):
    """The message was refused before it was a request."""


def request(rng: Random, good: Mapping[str, Request]) -> Request:
    """One of the good requests, spoiled as a dataclass, as protobuf or as Flower's message.

    Raises:
        Unreadable: Whoever unpacks it refuses it by a typed error.
    """
    asked = good[rng.choice(sorted(good))]
    how = rng.random()
    if how < 0.15:
        return asked
    if how < 0.6:
        return _changed(asked, rng)
    if how < 0.8:
        return _over_grpc(asked, rng)
    return _over_flower(asked, rng)


def _changed(asked: Request, rng: Random) -> Request:
    texts = ("", "x", "run-1", "run-2", "run-12", "../../etc", "a\0b", "\x1b[2J", "r" * 65)
    numbers = (0, 1, 2, 3, 4, 5, 2**31 - 1)
    for _ in range(rng.choice((1, 1, 2))):
        kind = rng.randrange(7)
        if kind == 0:
            asked = replace(asked, run_id=rng.choice(texts))
        elif kind == 1:
            asked = replace(asked, source_hash=rng.choice((source_hash(), "", "0" * 64)))
        elif kind == 2:
            asked = replace(asked, protocol_version=rng.choice((0, 1, 2, 3, 2**31)))
        elif isinstance(asked, Admit):
            field = rng.choice(("schedule", "schedule", "model"))
            asked = replace(asked, **{field: _json(getattr(asked, field), rng)})
        elif isinstance(asked, Train):
            field = rng.choice(
                ("round", "attempt", "acknowledged_round", "hash", "ledger", "t", "t")
            )
            if field == "t":
                asked = replace(asked, tensors=_tensors(asked.tensors, rng))
            elif field == "hash":
                asked = replace(asked, schedule_hash=rng.choice(("", "0" * 64, "x" * 10_000)))
            elif field == "ledger":
                asked = replace(asked, ledger_hash=rng.choice(("0" * 64, "' OR 1=1 --", "\0")))
            else:
                asked = replace(asked, **{field: rng.choice(numbers)})
        elif isinstance(asked, Evaluate):
            asked = replace(asked, split=rng.choice(("train", "", "../val", "val")))
    return asked


def _tensors(tensors: Tensors, rng: Random) -> Tensors:
    out = dict(tensors)
    name = rng.choice(sorted(out))
    how = rng.randrange(6)
    if how == 0:
        out[name] = np.full_like(out[name], rng.choice(FLOATS))
    elif how == 1:
        out[name] = out[name].astype(rng.choice(("f8", "f2", "i8")))
    elif how == 2:
        out[name] = out[name].ravel()[:-1]
    elif how == 3:
        del out[name]
    elif how == 4:
        out[rng.choice(("output.heads.chest.weight", "x", "../x"))] = out[name]
    else:
        value = out[name].copy()
        value.flat[rng.randrange(value.size)] = rng.choice((*FLOATS, 1e5, 0.25))
        out[name] = value
    return out


def _json(text: str, rng: Random) -> str:
    """A schedule or a vocabulary that asks for too much, for nothing, or is none."""
    if rng.random() < 0.3:
        return spoiled(text.encode(), rng).decode(errors="replace")
    if rng.random() < 0.1:
        return rng.choice(("", "null", "[]", "[" * 100_000, '{"a":' * 50_000, "x" * 2**21, "NaN"))
    try:
        values = json.loads(text)
    except ValueError:  # spoiled before
        return text
    if not isinstance(values, dict) or not values:
        return text
    if "phases" in values:
        if not values["phases"]:
            return text
        phase = rng.choice(values["phases"])
        field = rng.choice((*phase, "private", "noise_multiplier", "phases", "spare_rounds"))
        junk = (
            0,
            -1,
            1,
            2,
            10_000,
            10**9,
            1e308,
            math.nan,
            math.inf,
            "",
            None,
            True,
            [],
            {},
            1e-300,
        )
        if field == "phases":
            values["phases"] = [
                {**phase, "name": f"p{i}"} for i in range(rng.choice((0, 2, 5_000)))
            ]
        elif field == "spare_rounds":
            values["spare_rounds"] = rng.choice((*junk, 10**18))
        elif field == "objectives":
            names = ("supervised", "domain_adversarial", "alignment", "private", "inpainting")
            phase["objectives"] = {rng.choice(names): rng.choice((1.0, 0.0, math.nan, 1e9))}
        else:
            phase[field] = rng.choice(junk)
    else:
        field = rng.choice(sorted(values))
        values[field] = rng.choice(
            ([], ["x"], [f"w{i}" for i in range(30_000)], "base", 0, None, ["../x"], 1e-300)
        )
    return json.dumps(values)


def _over_grpc(asked: Request, rng: Random) -> Request:
    from google.protobuf.message import DecodeError

    message = request_to_proto(asked)
    data = message.SerializeToString()
    if rng.random() < 0.5 or not hasattr(asked, "tensors"):
        data = spoiled(data, rng)
    else:
        one = rng.choice(message.train.tensors or message.evaluate.tensors)
        sides = ((2**32 - 1,), (0, 2**32 - 1), (2**16,) * 8, (), (1,) * 9, (2**32 - 1, 0) * 4)
        one.ClearField("shape")
        one.shape.extend(rng.choice(sides))
        if rng.random() < 0.5:
            one.values = rng.choice((b"", b"\0" * 4, b"\0" * 3, b"\xff" * 64))
        data = message.SerializeToString()
    try:
        return request_from_proto(pb.Request.FromString(data))
    except (DecodeError, ProtocolError) as error:
        raise Unreadable from error


def _over_flower(asked: Request, rng: Random) -> Request:
    from server.protocol.wire import read_request

    content = to_content(asked)
    for _ in range(rng.choice((1, 2))):
        _harm_answer(content, rng)
    kind = rng.choice((asked.kind, asked.kind, asked.kind, "train", "query.hello", "query.admit"))
    try:
        return read_request(Message(content=content, dst_node_id=1, message_type=kind))
    except ProtocolError as error:
        raise Unreadable from error


class Judge:
    """Knows which answer a guard owes to a request, given all its answers so far."""

    def __init__(self, good: Mapping[str, Request], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.good = good
        self.shapes = shapes
        self.admitted: dict[str, tuple[Schedule, str]] = {}
        self.answers: dict[tuple[str, int, int], str] = {}
        """(run, round, attempt) -> key of the request that was trained."""

    def may_greet(self, asked: Request) -> bool:
        return isinstance(asked, Hello)

    def may_admit(self, asked: Request) -> bool:
        """Tell whether the request is a run of this protocol with a good schedule and vocabulary.

        A run that was admitted already also counts.
        """
        if not (isinstance(asked, Admit) and self._ours(asked)):
            return False
        schedule = Schedule.model_validate_json(asked.schedule)
        model = json.dumps(json.loads(asked.model), sort_keys=True)
        standing = self.admitted.get(asked.run_id)
        if standing is not None and (standing[0].canonical(), standing[1]) != (
            schedule.canonical(),
            model,
        ):
            return False
        self.admitted[asked.run_id] = schedule, model
        return True

    def may_train(self, asked: Request) -> bool:
        """Tell whether the request is the next attempt of a round of an admitted run.

        An attempt that was answered already also counts.
        """
        if not (isinstance(asked, Train) and self._ours(asked)):
            return False
        schedule = self.admitted[asked.run_id][0]
        fits = (
            asked.schedule_hash == schedule.hash()
            and 1 <= asked.round <= schedule.rounds
            and {k: v.shape for k, v in asked.tensors.items()} == dict(self.shapes)
            and all(v.dtype == np.float32 for v in asked.tensors.values())
            and all(bool((np.abs(v) <= 1e4).all()) for v in asked.tensors.values())
        )
        place = (asked.run_id, asked.round, asked.attempt)
        before = self.answers.get(place)
        if not fits or before not in (None, asked.key()):
            return False
        if before is None:
            mine = [r for r in self.answers if r[:2] == place[:2]]
            spares = [r for r in self.answers if r[0] == asked.run_id and r[2] > 0]
            if asked.attempt != len(mine) or (
                asked.attempt and len(spares) >= schedule.spare_rounds
            ):
                return False
        self.answers[place] = asked.key()
        return True

    def _ours(self, asked: Request) -> bool:
        plain = bool(asked.run_id) and asked.run_id.isascii()
        return (
            asked.protocol_version == PROTOCOL_VERSION
            and asked.source_hash == source_hash()
            and plain
            and len(asked.run_id) <= 64
            and asked.run_id.replace("-", "").isalnum()
        )
