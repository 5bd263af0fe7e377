"""Averaging, refusal of updates, and checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest

from server.protocol import Phase, TrainAnswer
from server.run.checkpoints import load_state, save_state, write_atomically
from server.run.errors import CheckpointError, UpdateRefused
from server.run.strategy import State, apply, check_update

A, B, C = "encoder.a", "stem.b", "output.concepts.k.weight"
TOGETHER = Phase(name="p", rounds=1, objectives={"supervised": 1})
ALONE = TOGETHER.model_copy(update={"shared_with": "nobody"})
IMAGES = TOGETHER.model_copy(update={"objectives": {"inpainting": 1.0}})
HEADS = TOGETHER.model_copy(update={"trains": "heads"})
OWN_HEADS = TOGETHER.model_copy(update={"trains": "own-heads"})


def state(value: float = 1.0) -> State:
    return State(0, {A: np.full(2, value, np.float32), B: np.zeros(3, np.float32)}, {}, {})


def update(**tensors: object) -> TrainAnswer:
    arrays = {k.replace("__", "."): np.asarray(v, "f4") for k, v in tensors.items()}
    return TrainAnswer("north", 1, 0, arrays)


def check(answer: TrainAnswer, site: str = "north", round_: int = 1, attempt: int = 0) -> None:
    facts = {"site": site, "round_": round_, "attempt": attempt}
    check_update(answer, state().shared, 100.0, **facts, phase=TOGETHER)  # type: ignore[arg-type]


def test_each_tensor_is_averaged_over_the_sites_that_trained_it():
    """The result is computed by hand: weights 1 and 3 on the common tensor, one site on the
    other."""
    updates = {
        "north": {A: np.array([2, 2], "f4"), B: np.array([1, 1, 1], "f4")},
        "south": {A: np.array([6, 6], "f4")},
    }
    after = apply(state(), updates, {"north": 1, "south": 3}, momentum=0, averages=False)
    assert after.round == 1
    assert after.shared[A].tolist() == [5, 5]
    assert after.shared[B].tolist() == [1, 1, 1]


def test_momentum_is_the_servers():
    """Under FedAvgM the second step carries half of the first."""
    one = apply(state(0), {"n": {A: np.ones(2, "f4")}}, {"n": 1}, momentum=0.5, averages=False)
    two = apply(one, {"n": {A: np.full(2, 2, "f4")}}, {"n": 1}, momentum=0.5, averages=False)
    assert two.shared[A].tolist() == [2.5, 2.5]


def test_the_averaged_update_has_a_learning_rate():
    """It is a number, the number of sites that trained the tensor, or its root."""
    updates = {n: {A: np.full(2, 3, "f4")} for n in ("a", "b", "c", "d")}
    updates["a"][B] = np.ones(3, "f4")
    weights = dict.fromkeys(updates, 1.0)

    def after(rate: object) -> dict[str, list[float]]:
        found = apply(state(), updates, weights, momentum=0, averages=False, learning_rate=rate)  # type: ignore[arg-type]
        return {k: v.tolist() for k, v in found.shared.items()}

    assert after(1.0) == {A: [3, 3], B: [1, 1, 1]}
    assert after(0.5) == {A: [2, 2], B: [0.5, 0.5, 0.5]}
    assert after("sqrt-sites") == {A: [5, 5], B: [1, 1, 1]}
    assert after("sites") == {A: [9, 9], B: [1, 1, 1]}


def test_a_round_that_sites_train_alone_changes_nothing_here():
    """An update that a site sends nevertheless is refused."""
    before = apply(state(0), {"n": {A: np.ones(2, "f4")}}, {"n": 1}, momentum=0.5, averages=True)
    after = before.unchanged()
    assert (after.round, after.averaged) == (2, 1)
    assert after.shared is before.shared
    assert after.final()[A].tolist() == [1, 1]
    facts = {"site": "north", "round_": 1, "attempt": 0}
    check_update(update(), state().shared, 100.0, **facts, phase=ALONE)  # type: ignore[arg-type]
    with pytest.raises(UpdateRefused, match="though the site trains for itself"):
        check_update(update(encoder__a=[1, 1]), state().shared, 100.0, **facts, phase=ALONE)  # type: ignore[arg-type]
    with pytest.raises(UpdateRefused, match="holds no tensor"):
        check_update(update(), state().shared, 100.0, **facts, phase=IMAGES)  # type: ignore[arg-type]


def test_a_round_of_heads_changes_no_feature():
    """A site sends the concepts of its kind of image, or nothing if no other site has that kind."""
    shared = state().shared | {C: np.zeros(2, "f4")}
    facts = {"site": "north", "round_": 1, "attempt": 0, "phase": HEADS}
    concepts = update(**{C.replace(".", "__"): [1, 1]})
    check_update(concepts, shared, 100.0, **facts)  # type: ignore[arg-type]
    check_update(update(), shared, 100.0, **facts)  # type: ignore[arg-type]
    with pytest.raises(UpdateRefused, match=r"encoder\.a is not trained in a phase of heads"):
        check_update(update(encoder__a=[1, 1]), shared, 100.0, **facts)  # type: ignore[arg-type]


def test_nothing_enters_from_a_round_of_own_heads():
    """An answer without tensors is right; one with any tensor, a concept's too, is refused."""
    shared = state().shared | {C: np.zeros(2, "f4")}
    facts = {"site": "north", "round_": 1, "attempt": 0, "phase": OWN_HEADS}
    check_update(update(), shared, 100.0, **facts)  # type: ignore[arg-type]
    for name in (A, C, "output.heads.chest.weight"):
        with pytest.raises(UpdateRefused, match="holds tensors, though the site trains for itself"):
            check_update(update(**{name.replace(".", "__"): [1, 1]}), shared, 100.0, **facts)  # type: ignore[arg-type]


def test_a_phase_of_heads_starts_from_the_average():
    """The phase starts without the momentum of the last step, and with a new average."""
    one = apply(state(0), {"n": {A: np.ones(2, "f4")}}, {"n": 1}, momentum=0.5, averages=True)
    two = apply(one, {"n": {A: np.full(2, 4, "f4")}}, {"n": 1}, momentum=0.5, averages=True)
    rest = two.from_average()
    assert (rest.round, rest.averaged, rest.momentum, rest.average) == (2, 0, {}, {})
    assert rest.shared[A].tolist() == two.final()[A].tolist() != two.shared[A].tolist()


def test_the_final_model_is_the_mean_of_the_window():
    """Two averaged iterates, 1 and 3, give 2; without a window the last iterate stands."""
    one = apply(state(0), {"n": {A: np.ones(2, "f4")}}, {"n": 1}, momentum=0, averages=True)
    two = apply(one, {"n": {A: np.full(2, 3, "f4")}}, {"n": 1}, momentum=0, averages=True)
    assert two.final()[A].tolist() == [2, 2]
    assert state(4).final()[A].tolist() == [4, 4]


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"encoder__a": [np.nan, 1]}, "NaN or infinity"),
        ({"encoder__a": [1, 2, 3]}, "must be float32"),
        ({"encoder__c": [1, 2]}, "not a shared tensor"),
        ({"output__heads__pneumonia__weight": [1, 2]}, "is local: it must never leave a site"),
        ({"output__queries__pneumonia__tokens": [1, 2]}, "is local"),
        ({"input__site__own__tokens": [1, 2]}, "is local"),
        ({"encoder__a": [1e4, 1e4]}, "more than max_update_norm"),
    ],
)
def test_updates_that_may_not_be_averaged(tensors: dict[str, object], reason: str):
    """Each is refused with its reason."""
    with pytest.raises(UpdateRefused, match=reason):
        check(update(**tensors))


def test_a_stale_update_is_refused():
    """An update of round 1 cannot enter round 2; a good one passes."""
    with pytest.raises(UpdateRefused, match="for round 1, not 2"):
        check(update(encoder__a=[1, 2]), round_=2)
    check(update(encoder__a=[1, 2]))


def test_an_update_of_another_site_or_attempt_is_refused():
    """A site cannot answer for another one, and a lost attempt cannot come back as a later one."""
    with pytest.raises(UpdateRefused, match="names another site, 'north'"):
        check(update(encoder__a=[1, 2]), site="south")
    with pytest.raises(UpdateRefused, match="of attempt 0, not 1"):
        check(update(encoder__a=[1, 2]), attempt=1)


def test_a_checkpoint_comes_back_and_old_ones_go(tmp_path: Path):
    """The newest three and the public start are kept."""
    for number in range(6):
        save_state(tmp_path, State(number, {A: np.full(2, number, np.float32)}, {}, {}, number))
    back = load_state(tmp_path)
    assert back is not None
    assert (back.round, back.averaged, back.shared[A].tolist()) == (5, 5, [5, 5])
    assert sorted(p.name for p in tmp_path.glob("*.json")) == [
        f"{n:06d}.json" for n in (0, 3, 4, 5)
    ]
    assert load_state(tmp_path / "none") is None


def test_a_damaged_checkpoint_falls_back_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The checksum finds a flipped byte."""
    save_state(tmp_path, State(1, {A: np.ones(2, np.float32)}, {}, {}))
    save_state(tmp_path, State(2, {A: np.ones(2, np.float32)}, {}, {}))
    file = tmp_path / "000002.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    back = load_state(tmp_path)
    assert back is not None
    assert back.round == 1
    assert "checkpoint 000002 is damaged" in caplog.text
    (tmp_path / "000001.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        load_state(tmp_path)


@pytest.mark.parametrize("harm", ["averaged", "round", "list", "deep", "foreign"])
def test_what_a_checkpoint_says_of_itself_is_checksummed_too(tmp_path: Path, harm: str):
    """A wrong number of averaged rounds would spoil the final model."""
    for number in (1, 2):
        save_state(tmp_path, State(number, {A: np.ones(2, np.float32)}, {}, {}, number))
    file = tmp_path / "000002.json"
    facts = json.loads(file.read_text())
    file.write_text({
        "averaged": json.dumps({**facts, "averaged": 1}),
        "round": (tmp_path / "000001.json").read_text(),
        "list": "[]",
        "deep": "[" * 100_000,
        "foreign": json.dumps({**facts, "sha256": None}),
    }[harm])  # fmt: skip
    passed: list[int] = []
    back = load_state(tmp_path, on_damage=passed.append)
    assert back is not None
    assert (back.round, back.averaged, passed) == (1, 1, [2])


def test_an_unwritable_folder_is_named(tmp_path: Path):
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "x.json", b"")
