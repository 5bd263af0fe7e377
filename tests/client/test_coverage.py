"""Every byte that a site sends is decoded again, and each field must be on the release list."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from flwr.common.serde import recorddict_to_proto

from client.guard import Guard
from client.privacy.noise import SecureNoise
from client.release import ITEMS
from medformer.sharing import is_local
from server.protocol import Answer, Evaluate, Hello, Refusal, Schedule, TrainAnswer, source_hash
from server.protocol.wire import to_content
from tests.client.privacy.test_units import patients_site
from tests.conftest import OPEN, admit, train
from tests.helpers.pictures import draw

CANARIES = ("CANARY-PATIENT", "train-0-0.png", "labels.csv", "CANARY-FOLDER")
"""Names that only the site knows: of a patient, files, a table and folders."""


def conversation(root: Path, schedule: Schedule) -> list[Answer]:
    """Ask a deployed site everything that a server can ask, and some things that it may not."""
    folder = root / "CANARY-FOLDER"
    folder.mkdir()
    site = patients_site(folder, {"CANARY-PATIENT": 3, **{f"p{i}": 2 for i in range(20)}})
    draw(folder / "train-1-0.png", 1).write_bytes(b"no picture at all: CANARY-PATIENT")
    guard = Guard(site, root / "state", lambda *_: SecureNoise(), policy=OPEN)
    hello = Hello("run-1", source_hash())
    evaluation = Evaluate(
        "run-1", source_hash(), schedule_hash=schedule.hash(), split="test",
        tensors=train(schedule).tensors,
    )  # fmt: skip
    requests = [
        train(schedule), hello, admit(schedule), *(train(schedule, n) for n in (1, 2, 3)),
        train(schedule, 9), train(schedule, 1, 1), evaluation, Hello("x", "other sources"),
    ]  # fmt: skip
    answers = [guard.handle(request) for request in requests]
    (folder / "labels.csv").write_text("CANARY-PATIENT is all that is left")
    answers.append(guard.handle(train(schedule, 2, 1)))  # whatever it is, it says nothing
    return answers


def test_every_byte_that_leaves_a_site_is_on_the_list(tmp_path: Path, schedule: Schedule):
    """Names and types are as on the wire; a field that is not listed, local or exact fails."""
    listed = {item.name: item for item in ITEMS}
    kinds = set()
    for answer in conversation(tmp_path, schedule):
        proto = recorddict_to_proto(to_content(answer))
        again = type(proto).FromString(sent := proto.SerializeToString())
        kinds.add(kind := type(answer).__name__)
        for canary in CANARIES:
            assert canary.encode() not in sent, (kind, canary)
        for item in again.items:
            assert item.key in {"fields", "tensors"}, (kind, item.key)
            if item.key == "fields":
                names = {entry.key for entry in item.config_record.items}
                assert "type" in names
                for name in names - {"type"}:
                    entry = listed[f"{kind}.{name}"]
                    assert entry.covered, f"{entry.name} left a deployment"
                    assert not entry.simulation_only
            else:
                assert isinstance(answer, TrainAnswer)
                assert listed[f"{kind}.tensors"].covered
                (array,) = item.array_record.items
                length = int.from_bytes(array.value.data[:8], "little")
                header = json.loads(array.value.data[8 : 8 + length])
                assert set(header) == set(answer.tensors)
                for name, said in header.items():
                    assert not is_local(name)
                    assert set(said) == {"dtype", "shape", "data_offsets"}
                    assert said["dtype"] == "F32"
                values = sum(value.size for value in answer.tensors.values())
                assert len(array.value.data) == 8 + length + 4 * values
    assert kinds == {"HelloAnswer", "AdmitAnswer", "TrainAnswer", "Refusal"}


def test_refusals_are_a_few_fixed_texts(tmp_path: Path, schedule: Schedule):
    """Their numbers come from the request, the schedule or the ledger."""
    refusals = [a for a in conversation(tmp_path, schedule) if isinstance(a, Refusal)]
    assert {r.code for r in refusals} <= {"bad-request", "policy", "budget-exhausted"}
    for refusal in refusals:
        assert {f.name for f in fields(refusal)} == {"code", "reason", "site"}
        assert not any(canary in refusal.reason for canary in CANARIES)


def test_a_field_that_is_not_listed_is_caught(
    tmp_path: Path, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
):
    """The test above fails if a message holds a further field."""

    real = to_content

    def with_more(answer: Answer):  # type: ignore[no-untyped-def]
        content = real(answer)
        content["fields"]["records"] = 61
        return content

    monkeypatch.setitem(globals(), "to_content", with_more)
    with pytest.raises(KeyError, match=r"\.records"):
        test_every_byte_that_leaves_a_site_is_on_the_list(tmp_path, schedule)
