"""The state folder: one process at a time holds it, and it keeps answers and newest tensors."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from client.guard import Guard
from client.local_state import LocalState
from client.site import Site
from client.state import KEPT_ROUNDS, Store, exclusive
from server.protocol import AdmitAnswer, Refusal, Schedule, TrainAnswer
from tests.conftest import admit, ledger_rows, train

Open = Callable[..., Guard]


def answer() -> TrainAnswer:
    tensors = {"encoder.norm.weight": np.arange(3, dtype=np.float32)}
    return TrainAnswer("north", 1, 0, tensors=tensors, ledger_hash="0" * 64)


def state(value: float) -> LocalState:
    return LocalState({"output.heads.chest.bias": torch.tensor([value])}, {}, {})


def test_only_one_process_holds_a_state_folder(tmp_path: Path):
    """A second process waits, even if it only reads."""
    with exclusive(tmp_path), open(tmp_path / "lock") as another, pytest.raises(BlockingIOError):
        fcntl.flock(another, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with open(tmp_path / "lock") as another:
        fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.99])
def test_an_answer_that_changed_on_the_disk_is_not_sent(tmp_path: Path, place: float):
    """An answer with one flipped bit is never sent; the attempt is lost."""
    store = Store(tmp_path, "run-1")
    digest = store.put_answer("key", answer())
    kept = store.get_answer("key", digest)
    assert kept is not None
    assert np.array_equal(kept.tensors["encoder.norm.weight"], [0, 1, 2])
    (file,) = tmp_path.glob("runs/run-1/answers/*")
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 1
    file.write_bytes(data)
    assert store.get_answer("key", digest) is None


def test_a_round_goes_on_from_the_newest_state_before_it(tmp_path: Path):
    """A round starts from the last attempt of the round before it; oldest rounds are deleted."""
    store = Store(tmp_path, "run-1")
    assert store.get_state(1) is None
    for round_, attempt in ((1, 0), (2, 0), (2, 1), (3, 0)):
        store.put_state(round_, attempt, state(10 * round_ + attempt))
    for before, wanted in ((2, 10.0), (3, 21.0), (9, 30.0)):
        found = store.get_state(before)
        assert found is not None
        assert float(found.parameters["output.heads.chest.bias"]) == wanted
    store.put_state(3 + KEPT_ROUNDS, 0, state(0.0))
    assert store.get_state(4) is None


def test_an_answer_is_on_the_ledger_only_when_it_is_on_the_disk(
    open_guard: Open, site: Site, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
):
    """If the disk is full after the training, the attempt is spent and no row names an answer."""

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    guard = open_guard(site)
    assert isinstance(guard.handle(admit(schedule)), AdmitAnswer)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_answer", full)
        assert isinstance(guard.handle(train(schedule)), Refusal)
    kinds = [row["kind"] for row in ledger_rows(guard.folder)]
    assert kinds.count("attempt") == 1
    assert "answer" not in kinds
    lost = guard.handle(train(schedule))
    assert isinstance(lost, Refusal)
    assert lost.code == "attempt-lost"
    assert isinstance(guard.handle(train(schedule, attempt=1)), TrainAnswer)


def test_the_sites_own_tensors_are_on_the_disk_before_the_answer(
    open_guard: Open, site: Site, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
):
    """Without local tensors on the disk no answer is kept: the next round would start from older
    ones."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    guard = open_guard(site)
    guard.handle(admit(schedule))
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_state", full)
        assert isinstance(guard.handle(train(schedule)), Refusal)
    assert not list(guard.folder.glob("runs/run-1/answers/*"))
