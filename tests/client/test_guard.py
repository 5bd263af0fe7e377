"""The guard admits, trains, keeps and releases; it is called directly, without Flower."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client import release, training
from client.data.load import forget, load
from client.data.records import Records
from client.guard import Guard
from client.ledger import export as ledger_file
from client.local_state import initial_state
from client.privacy import engine
from client.refusals import PolicyForbids
from client.round import RoundResult, one_round
from client.site import Privacy, Site
from client.state import Store
from client.training import site_model
from medformer.config import ModelConfig
from medformer.images import standardise
from medformer.sharing import is_local
from server.protocol import (
    AdmitAnswer,
    Evaluate,
    EvaluateAnswer,
    Hello,
    HelloAnswer,
    Phase,
    Refusal,
    Schedule,
    TrainAnswer,
    source_hash,
)
from tests.conftest import CONFIG, admit, ledger_rows, train

Open = Callable[..., Guard]


def test_a_run_from_hello_to_metrics(open_guard: Open, site: Site, schedule: Schedule):
    """A simulated site answers hello, admission, three rounds and exact metrics."""
    guard = open_guard(site)
    hello = guard.handle(Hello("run-1", source_hash()))
    assert isinstance(hello, HelloAnswer)
    assert hello.site == "north"
    assert isinstance(guard.handle(admit(schedule)), AdmitAnswer)
    for number in (1, 2, 3):
        answer = guard.handle(train(schedule, number))
        assert isinstance(answer, TrainAnswer), answer
        assert all(np.isfinite(v).all() for v in answer.tensors.values())
    shared = train(schedule).tensors
    metrics = guard.handle(
        Evaluate("run-1", source_hash(), schedule_hash=schedule.hash(), split="test",
                 tensors=shared)
    )  # fmt: skip
    assert isinstance(metrics, EvaluateAnswer)


def test_nothing_local_is_ever_in_a_message(open_guard: Open, site: Site, schedule: Schedule):
    """Heads, queries, task and site embeddings stay at the site, and an answer that holds one is
    not released."""
    guard = open_guard(site)
    guard.handle(admit(schedule))
    answer = guard.handle(train(schedule))
    assert isinstance(answer, TrainAnswer)
    assert answer.tensors
    assert not [name for name in answer.tensors if is_local(name)]
    leaking = replace(answer, tensors={"output.heads.chest.weight": np.zeros((1, 64), "f4")})
    with pytest.raises(PolicyForbids, match="stays at the site"):
        release.check(leaking, exact=True)


def test_every_field_of_every_answer_is_on_the_release_list():
    """Every field is listed, and exact values are refused outside simulations."""
    for answer in (HelloAnswer, AdmitAnswer, TrainAnswer, EvaluateAnswer, Refusal):
        for field in fields(answer):
            assert f"{answer.__name__}.{field.name}" in {item.name for item in release.ITEMS}
    exact = TrainAnswer("north", 1, 0, {}, exact_loss=0.5)
    with pytest.raises(PolicyForbids, match="simulations only"):
        release.check(exact, exact=False)


def test_the_number_of_records_shows_nowhere(open_guard: Open, site: Site, schedule: Schedule):
    """With half or twice as many records as declared, the receipt is the same to the last digit,
    and answers have the same fields, shapes and types."""
    seen = []
    for count in (32, 64, 128):
        data = {"source": "phantoms", "kind": "chest", "records": count}
        named = site.model_copy(update={"name": f"of-{count}"}).model_dump()
        guard = open_guard(Site.model_validate({**named, "data": data}))
        assert len(load(guard.site, "train")) == count
        receipt = guard.handle(admit(schedule))
        assert isinstance(receipt, AdmitAnswer)
        answer = guard.handle(train(schedule))
        assert isinstance(answer, TrainAnswer)
        shapes = {name: (value.shape, value.dtype) for name, value in answer.tensors.items()}
        filled = {f.name for f in fields(answer) if getattr(answer, f.name) is not None}
        seen.append((receipt.receipt, shapes, filled))
    assert seen[0] == seen[1] == seen[2]


def test_a_ledger_that_was_put_back_is_found_by_what_the_server_was_told(
    open_guard: Open, site: Site, schedule: Schedule
):
    """A ledger restored from a copy is refused, and nothing is trained. The hash that the server
    holds is that of a ledger row, equal for equal requests, and not a part of their key."""
    guard = open_guard(site)
    receipt = guard.handle(admit(schedule))
    assert isinstance(receipt, AdmitAnswer)
    assert guard.handle(admit(schedule)) == receipt
    ledger = guard.folder / "ledger.sqlite"
    copy = ledger.read_bytes()
    first = guard.handle(replace(train(schedule), ledger_hash=receipt.ledger_hash))
    assert isinstance(first, TrainAnswer)
    again = replace(train(schedule), ledger_hash=first.ledger_hash)
    assert guard.handle(again).ledger_hash == first.ledger_hash  # type: ignore[union-attr]
    hashes = [row.hash for row in ledger_file.read(guard.folder)]
    assert hashes.index(receipt.ledger_hash) < hashes.index(first.ledger_hash)

    for leftover in guard.folder.glob("ledger.sqlite*"):
        leftover.unlink()
    ledger.write_bytes(copy)
    second = guard.handle(replace(train(schedule, 2), ledger_hash=first.ledger_hash))
    assert isinstance(second, Refusal)
    assert second.code == "ledger-rolled-back"
    assert "an old copy was put back" in second.reason
    left = [row for row in ledger_file.read(guard.folder) if row.kind != "refusal"]
    assert len(left) == hashes.index(first.ledger_hash)


def test_training_before_admission_is_refused(open_guard: Open, site: Site, schedule: Schedule):
    """A request to train is refused until the schedule was admitted."""
    answer = open_guard(site).handle(train(schedule))
    assert isinstance(answer, Refusal)
    assert answer.code == "bad-request"


def test_the_budget_is_on_the_ledger_before_the_first_gradient(
    open_guard: Open, site: Site, schedule: Schedule
):
    """A process that dies in its training leaves reservation and attempt behind."""
    guard = open_guard(site)
    guard.handle(admit(schedule))
    seen: list[list[object]] = []

    def die(*_: object) -> RoundResult:
        seen.append([row["kind"] for row in ledger_rows(guard.folder)])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(guard, train=die).handle(train(schedule))
    assert seen == [["cohort", "reservation", "attempt"]]

    lost = open_guard(site).handle(train(schedule))
    assert isinstance(lost, Refusal)
    assert lost.code == "attempt-lost"
    assert isinstance(open_guard(site).handle(train(schedule, attempt=1)), TrainAnswer)
    spent = open_guard(site).handle(train(schedule, attempt=2))
    assert isinstance(spent, Refusal)
    assert spent.code == "budget-exhausted"


def test_a_run_over_budget_is_refused_before_any_record_is_read(
    open_guard: Open, site: Site, schedule: Schedule
):
    """Runs add up on one ledger: a third run of epsilon 8 exceeds a budget of 20."""
    guard = open_guard(site)
    assert isinstance(guard.handle(admit(schedule, "run-1")), AdmitAnswer)
    assert isinstance(guard.handle(admit(schedule, "run-2")), AdmitAnswer)
    blind = replace(open_guard(site), read=lambda *_: pytest.fail("a record was read"))
    answer = blind.handle(admit(schedule, "run-3"))
    assert isinstance(answer, Refusal)
    assert answer.code == "budget-exhausted"
    epsilons = [row["epsilon"] for row in ledger_rows(guard.folder) if row["kind"] == "reservation"]
    assert len(epsilons) == 2
    assert 15 < sum(epsilons) <= 16  # type: ignore[arg-type]


def test_noise_that_the_engine_could_not_add_is_refused_before_budget_is_spent(
    open_guard: Open, site: Site, schedule: Schedule
):
    """Rounding to the grid of so much noise would exceed the sensitivity. Without this check, the
    first step would fail after the whole run was charged."""
    tiny = Privacy(epsilon=1e-5, n_public=64, epsilon_budget=20)
    guard = open_guard(site.model_copy(update={"privacy": tiny}))
    refused = guard.handle(admit(schedule))
    assert isinstance(refused, Refusal)
    assert refused.code == "policy"
    assert re.search(r"too large for [\d,]+ trained parameters.*At most about", refused.reason)
    assert not [row for row in ledger_rows(guard.folder) if row["kind"] == "reservation"]


def test_a_phase_that_would_train_nothing_is_refused_before_budget_is_spent(
    open_guard: Open, site: Site
):
    """A server that names one domain asks for an adversary with nothing to tell apart: the site
    would send noise, and pay for it."""
    phase = Phase(name="adapt", rounds=2, objectives={"domain_adversarial": 0.1, "supervised": 1})
    guard = open_guard(site)
    alone = ModelConfig.for_domains([site.domain])
    refused = guard.handle(admit(Schedule(phases=[phase], spare_rounds=0), config=alone))
    assert isinstance(refused, Refusal)
    assert refused.code == "policy"
    assert "this model knows only" in refused.reason
    assert not [row for row in ledger_rows(guard.folder) if row["kind"] == "reservation"]


@pytest.mark.parametrize("more", [-1, 1])
def test_an_answer_of_more_or_fewer_steps_than_planned_does_not_leave(
    open_guard: Open, site: Site, schedule: Schedule, more: int
):
    """An answer leaves only if exactly the charged number of steps was taken."""

    def other(model, site, records, schedule, *rest):  # type: ignore[no-untyped-def]
        (phase,) = schedule.phases
        steps = phase.model_copy(update={"local_steps": phase.local_steps + more})
        changed = schedule.model_copy(update={"phases": (steps,)})
        return one_round(model, site, records, changed, *rest)

    guard = replace(open_guard(site), train=other)
    guard.handle(admit(schedule))
    answer = guard.handle(train(schedule))
    assert isinstance(answer, Refusal)
    assert answer.code == "internal-error"


def test_the_same_request_gets_the_same_bytes_for_free(
    open_guard: Open, site: Site, schedule: Schedule
):
    """A repeated request is replayed; another attempt has fresh noise and is charged."""
    open_guard(site).handle(admit(schedule))
    first = open_guard(site).handle(train(schedule))
    rows = len(ledger_rows(open_guard(site).folder))
    again = open_guard(site).handle(train(schedule))
    assert isinstance(first, TrainAnswer)
    assert isinstance(again, TrainAnswer)
    assert all(np.array_equal(first.tensors[k], again.tensors[k]) for k in first.tensors)
    assert len(ledger_rows(open_guard(site).folder)) == rows

    other = open_guard(site).handle(train(schedule, attempt=1))
    assert isinstance(other, TrainAnswer)
    assert not np.array_equal(*(a.tensors["encoder.norm.weight"] for a in (first, other)))

    changed = open_guard(site).handle(train(schedule, scale=0.9))
    assert isinstance(changed, Refusal)
    assert changed.code == "bad-request"


def test_an_acknowledged_answer_is_gone(open_guard: Open, site: Site, schedule: Schedule):
    """Once the server has stored a round, its answer is deleted and cannot be repeated."""
    guard = open_guard(site)
    guard.handle(admit(schedule))
    guard.handle(train(schedule, 1))
    guard.handle(train(schedule, 2, acknowledged=1))
    answer = guard.handle(train(schedule, 1, acknowledged=1))
    assert isinstance(answer, Refusal)
    assert answer.code == "attempt-lost"


def test_rounds_continue_from_the_sites_own_state(open_guard: Open, site: Site, schedule: Schedule):
    """Round 2 starts from the local tensors after round 1, in any process, and so does a second
    attempt of round 2."""
    guard = open_guard(site)
    guard.handle(admit(schedule))
    guard.handle(train(schedule, 1))
    guard.handle(train(schedule, 2))
    states = sorted(p.name for p in guard.folder.rglob("state/*"))
    assert states == ["r000001-a000", "r000002-a000"]


@pytest.mark.parametrize("harm", ["nan", "huge", "unknown", "missing", "shape", "local"])
def test_harmful_tensors_are_refused(harm: str, open_guard: Open, site: Site, schedule: Schedule):
    """Tensors that could provoke signals depending on records are refused before any budget."""
    guard = open_guard(site)
    guard.handle(admit(schedule))
    request = train(schedule)
    tensors = {k: v.copy() for k, v in request.tensors.items()}
    name = "encoder.norm.weight"
    if harm in ("nan", "huge"):
        tensors[name][0] = float("nan") if harm == "nan" else 1e9
    elif harm == "missing":
        del tensors[name]
    elif harm == "shape":
        tensors[name] = tensors[name][:3]
    else:
        tensors["output.heads.chest.weight" if harm == "local" else "new"] = tensors[name]
    answer = guard.handle(replace(request, tensors=tensors))
    assert isinstance(answer, Refusal)
    assert answer.code == "bad-request"
    assert "attempt" not in [row["kind"] for row in ledger_rows(guard.folder)]


def _npz_site(site: Site, path: Path) -> Site:
    data = {"source": "npz", "path": str(path)}
    return Site.model_validate({**site.model_dump(), "data": data})


def _store(path: Path, poison: str) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.random((40, 28, 28), dtype=np.float32)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (40, 1))
    if poison == "nan":
        arrays["train_images"][:5] = np.nan
    if poison == "label":
        arrays["train_labels"][:5] = 7
    np.savez(path, **arrays)
    if poison == "truncated":
        path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("poison", ["nan", "label", "truncated"])
def test_a_poisoned_record_changes_no_field_of_any_message(
    poison: str, open_guard: Open, site: Site, schedule: Schedule, tmp_path: Path
):
    """Types, names, shapes and receipts equal those of a clean site; tensors stay finite."""

    def conversation(name: str, poison: str) -> list[object]:
        path = tmp_path / f"{name}.npz"
        _store(path, poison)
        guard = open_guard(_npz_site(site.model_copy(update={"name": name}), path))
        answers = [guard.handle(admit(schedule)), *(guard.handle(train(schedule, r))
                                                    for r in (1, 2, 3))]  # fmt: skip
        forget()
        return answers

    clean, bad = conversation("clean", ""), conversation("bad", poison)
    assert clean[0].receipt == bad[0].receipt  # type: ignore[attr-defined]
    for one, other in zip(clean[1:], bad[1:], strict=True):
        assert isinstance(one, TrainAnswer)
        assert isinstance(other, TrainAnswer)
        assert (one.round, one.attempt) == (other.round, other.attempt)
        assert (one.exact_loss is None) == (other.exact_loss is None)
        assert {k: v.shape for k, v in one.tensors.items()} == {
            k: v.shape for k, v in other.tensors.items()
        }
        assert all(np.isfinite(v).all() for v in other.tensors.values())


def test_an_exception_tells_the_server_nothing(open_guard: Open, site: Site, schedule: Schedule):
    """The server never sees the text of an exception, which could hold a record's path."""
    guard = open_guard(site)
    guard.handle(admit(schedule))

    def fail(*_: object) -> Records:
        raise ValueError("/hospital/patient-4711.dcm is odd")

    answer = replace(guard, read=fail).handle(train(schedule))
    assert isinstance(answer, Refusal)
    assert answer.code == "internal-error"
    assert "4711" not in answer.reason


def test_policy_forbids_an_objective(open_guard: Open, site: Site, schedule: Schedule):
    """An objective that site.yaml does not allow is refused."""
    strict = site.model_copy(update={"objectives": ("inpainting",)})
    answer = open_guard(strict).handle(admit(schedule))
    assert isinstance(answer, Refusal)
    assert answer.code == "policy"


@pytest.mark.parametrize(
    "key", ["private", "noise_multiplier", "max_grad_norm", "dp", "sigma", "clipping"]
)
def test_no_file_can_ask_for_training_without_dp(key: str, site: Site):
    """Neither site.yaml nor the schedule has a key for it."""
    from pydantic import ValidationError

    values = site.model_dump()
    values["privacy"][key] = 0
    if key == "max_grad_norm":
        with pytest.raises(ValidationError):
            Schedule.model_validate(
                {"phases": [{"name": "a", "rounds": 1, "objectives": {"supervised": 1},
                             "max_grad_norm": float("inf")}], "spare_rounds": 0}
            )  # fmt: skip
    with pytest.raises(ValidationError):
        Site.model_validate(values)


def test_wrong_sources_are_refused(open_guard: Open, site: Site, schedule: Schedule):
    """A server with other sources is refused."""
    answer = open_guard(site).handle(replace(admit(schedule), source_hash="0" * 64))
    assert isinstance(answer, Refusal)
    assert "other sources" in answer.reason
    assert CONFIG.domains


def test_the_declared_number_not_the_true_one_decides_plan_and_messages(
    open_guard: Open, site: Site, schedule: Schedule
):
    """A site with half the records gives the same receipt."""
    fewer = Site.model_validate(
        {**site.model_dump(), "name": "fewer",
         "data": {"source": "phantoms", "kind": "chest", "records": 32}}
    )  # fmt: skip
    one = open_guard(site).handle(admit(schedule))
    other = open_guard(fewer).handle(admit(schedule))
    assert isinstance(one, AdmitAnswer)
    assert isinstance(other, AdmitAnswer)
    assert one.receipt == other.receipt


def test_a_site_that_trains_alone_sends_nothing_and_goes_on_with_its_own_copy(
    open_guard: Open, site: Site, schedule: Schedule
):
    """From the second such round on, the server's tensors have no effect. The rounds are charged as
    all others are, and the site's own model is evaluated at the end."""
    first = schedule.phases[0].model_copy(update={"rounds": 1})
    last = first.model_copy(update={"name": "alone", "rounds": 3, "shared_with": "nobody"})
    whole = schedule.model_copy(update={"phases": (first, last), "average_last": 0.5})
    guard = open_guard(site)
    receipt = guard.handle(admit(whole))
    assert isinstance(receipt, AdmitAnswer)
    plan = json.loads(receipt.receipt)
    assert [(p["name"], p["steps"]) for p in plan["phases"]] == [
        ("supervised", 2), ("alone", 6), ("spare", 2)
    ]  # fmt: skip
    together = guard.handle(train(whole, 1))
    assert isinstance(together, TrainAnswer)
    assert together.tensors
    copies = []
    for number in (2, 3, 4):
        sent = guard.handle(train(whole, number, scale=1.0 if number == 2 else 0.1))
        assert isinstance(sent, TrainAnswer), sent
        assert sent.tensors == {}
        kept = Store(guard.folder, "run-1").get_state(number + 1)
        assert kept is not None
        copies.append(kept)
    name = "encoder.norm.weight"
    assert name in together.tensors
    start = train(whole).tensors[name]
    steps = [copy.parameters[name].numpy() - start for copy in copies]
    assert all(0 < np.abs(step).max() < 0.3 for step in steps)  # a tenth of it would be .9 away
    assert [copy.averaged for copy in copies] == [0, 1, 2]
    assert len({step.tobytes() for step in steps}) == 3
    values = [
        guard.handle(Evaluate("run-1", source_hash(), schedule_hash=whole.hash(), split="val",
                              tensors=train(whole, scale=scale).tensors))
        for scale in (1.0, 0.1)
    ]  # fmt: skip
    assert isinstance(values[0], EvaluateAnswer)
    assert values[0] == values[1]


def test_a_later_phase_alone_goes_on_from_the_average_of_the_one_before(
    open_guard: Open, site: Site, schedule: Schedule
):
    """The phase starts from that average even if the site misses its first round; later rounds
    continue from the site's last one."""
    first = schedule.phases[0].model_copy(update={"rounds": 1})
    own = first.model_copy(update={"name": "own", "rounds": 2, "shared_with": "nobody"})
    heads = own.model_copy(update={"name": "heads", "rounds": 3, "trains": "heads"})
    update = {"phases": (first, own, heads), "average_last": 1.0}
    whole = schedule.model_copy(update=update)
    guard = open_guard(site)
    assert isinstance(guard.handle(admit(whole)), AdmitAnswer)
    kept = {}
    for number in (1, 2, 3, 5, 6):
        assert isinstance(guard.handle(train(whole, number)), TrainAnswer)
        kept[number] = Store(guard.folder, "run-1").get_state(number + 1)
    _, _, before, begun, after = (state for state in kept.values() if state is not None)
    name, head = "encoder.norm.weight", "output.heads.chest.weight"
    assert not torch.equal(before.average[name], before.parameters[name])
    for state in (begun, after):
        assert torch.equal(state.parameters[name], before.average[name])
        assert name not in state.momentum
    assert [state.averaged for state in (before, begun, after)] == [2, 1, 2]
    assert len({s.parameters[head].numpy().tobytes() for s in (before, begun, after)}) == 3


def test_heads_alone_are_trained_where_the_schedule_says_so(
    open_guard: Open, site: Site, schedule: Schedule
):
    """No other tensor changes and nothing is sent; the next phase trains everything."""
    heads = schedule.phases[0].model_copy(update={"name": "heads", "trains": "heads", "rounds": 2})
    both = schedule.model_copy(update={"phases": (heads, *schedule.phases)})
    guard = open_guard(site)
    assert isinstance(guard.handle(admit(both)), AdmitAnswer)
    before = initial_state(site_model(CONFIG, site.tasks)).parameters
    for number in (1, 2):
        answer = guard.handle(train(both, number))
        assert isinstance(answer, TrainAnswer), answer
        assert answer.tensors == {}
        kept = Store(guard.folder, "run-1").get_state(number + 1)
        assert kept is not None
        moved = {k for k, v in kept.parameters.items() if not torch.equal(v, before[k])}
        assert "output.heads.chest.weight" in moved
        assert all(name.startswith("output.") for name in moved)
        assert kept.parameters.keys() == before.keys()
    answer = guard.handle(train(both, 3))
    assert isinstance(answer, TrainAnswer)
    assert "encoder.norm.weight" in answer.tensors


def test_own_tensors_that_are_lost_are_not_begun_anew(
    open_guard: Open, site: Site, schedule: Schedule
):
    """Lost local tensors are an error, which costs no attempt; the first round needs none."""
    guard = open_guard(site)
    guard.handle(admit(schedule))
    assert isinstance(guard.handle(train(schedule, 1)), TrainAnswer)
    shutil.rmtree(guard.folder / "runs" / "run-1" / "state")
    said = guard.handle(train(schedule, 2))
    assert isinstance(said, Refusal)
    assert said.code == "internal-error"
    attempts = [r for r in ledger_rows(guard.folder) if r["kind"] == "attempt"]
    assert [(r["round"], r["attempt"]) for r in attempts] == [(1, 0)]
    assert isinstance(guard.handle(train(schedule, 1, attempt=1)), TrainAnswer)


def test_only_a_slice_of_what_is_drawn_becomes_numbers_at_a_time(
    open_guard: Open, site: Site, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
):
    """Memory does not grow with the number of drawn images and views: otherwise a missing answer
    would reveal the number."""
    sizes: list[int] = []

    def spy(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return standardise(images)

    monkeypatch.setattr(training, "standardise", spy)
    monkeypatch.setattr(engine, "PHYSICAL_BATCH", 8)
    phase = schedule.phases[0].model_copy(update={"views": 4})
    often = schedule.model_copy(update={"phases": (phase,)})
    guard = open_guard(site)
    guard.handle(admit(often))
    assert isinstance(guard.handle(train(often)), TrainAnswer)
    assert sum(sizes) > 40
    assert max(sizes) <= 8


def test_heads_may_be_trained_without_momentum(open_guard: Open, site: Site, schedule: Schedule):
    """Training works without a momentum buffer, which torch does not keep at momentum 0."""
    plain = schedule.model_copy(update={"local_momentum": 0.0})
    guard = open_guard(site)
    guard.handle(admit(plain))
    for number in (1, 2):
        assert isinstance(guard.handle(train(plain, number)), TrainAnswer)


def test_what_sites_of_one_kind_answer_with_is_trained_together(
    open_guard: Open, site: Site, schedule: Schedule
):
    """The concept layer is sent under the same plan; the site's own heads are neither sent nor
    changed."""
    heads = schedule.phases[0].model_copy(update={"name": "heads", "trains": "heads", "rounds": 1})
    both = schedule.model_copy(update={"phases": (heads, *schedule.phases)})
    config = CONFIG.between([site.domain, site.domain])
    guard = open_guard(site)
    assert isinstance(guard.handle(admit(both, config=config)), AdmitAnswer)
    before = initial_state(site_model(config, site.tasks)).parameters
    concepts = [f"output.concepts.{site.domain.kind}.{part}" for part in ("weight", "bias")]
    for number in (1, 2):
        request = train(both, number, config=config)
        answer = guard.handle(request)
        assert isinstance(answer, TrainAnswer), answer
        sent = {k for k, v in answer.tensors.items() if not np.array_equal(v, request.tensors[k])}
        assert {n for n in sent if n.startswith("output.c")} == set(concepts)
        assert (sent == set(concepts)) == (number == 1)
        kept = Store(guard.folder, "run-1").get_state(number + 1)
        assert kept is not None
        moved = {k for k, v in kept.parameters.items() if not torch.equal(v, before[k])}
        assert not {n for n in moved if n.startswith(("output.heads.", "output.textures."))}
        assert not {n for n in moved if n.startswith("output.readouts.")}
        assert "output.readouts.chest" in before
