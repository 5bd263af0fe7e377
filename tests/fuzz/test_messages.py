"""No hostile update is averaged and no hostile request is trained on; nothing raises or hangs."""

import logging
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import numpy as np
import pytest
from flwr.app import RecordDict

from client.guard import Guard
from client.ledger.ledger import Ledger
from client.privacy.noise import SecureNoise
from client.site import Privacy, Site
from server.protocol import (
    AdmitAnswer,
    Evaluate,
    Hello,
    HelloAnswer,
    Phase,
    ProtocolError,
    Refusal,
    Request,
    Schedule,
    Tensors,
    TrainAnswer,
    source_hash,
)
from server.protocol.wire import read_answer
from server.run.errors import UpdateRefused
from server.run.strategy import check_update
from tests.conftest import OPEN, admit, ledger_rows, train
from tests.fuzz.limits import in_time
from tests.fuzz.messages import (
    MAX_NORM,
    Judge,
    Round,
    Unreadable,
    may_be_averaged,
    request,
    update,
)

pytestmark = pytest.mark.usefixtures("flower_identity")

PHASE = Phase(name="p", rounds=9, objectives={"supervised": 1})
SEEDS = pytest.mark.parametrize(
    "first", [0, *(pytest.param(1_000 * n, marks=pytest.mark.heavy) for n in range(1, 10))]
)


def judged(content: RecordDict, shared: Tensors) -> TrainAnswer | str:
    """Return the update that the server reads from an answer, or the reason why it is none."""
    try:
        answer = read_answer(content)
        if not isinstance(answer, TrainAnswer):
            return "another"
        check_update(answer, shared, MAX_NORM, site="north", round_=3, attempt=1, phase=PHASE)
    except (ProtocolError, UpdateRefused) as error:
        return type(error).__name__
    return answer


@contextmanager
def no_more_than(most: int) -> Iterator[None]:
    """Assert that the block allocates at most so many bytes, however much a message claims."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most


@SEEDS
@pytest.mark.slow
def test_a_thousand_hostile_updates(first: int):
    """Each is refused by a typed error, or is what was asked for and small."""
    rng = np.random.default_rng(0)
    shared = {
        "encoder.a": rng.normal(size=(8, 4)).astype(np.float32),
        "encoder.b": rng.normal(size=5).astype(np.float32),
        "stem.c": rng.normal(size=(2, 3, 3)).astype(np.float32),
    }
    of = Round("north", 3, 1, shared)
    seen = Counter[str]()
    for seed in range(first, first + 1_000):
        content = update(Random(seed), of)
        with in_time(), no_more_than(2**23):  # 5,000 names of tensors that come, as Python's
            answer = judged(content, shared)
        if isinstance(answer, str):
            seen[answer] += 1
            continue
        may_be_averaged(answer, of)
        seen["averaged"] += 1
    assert min(seen["averaged"], seen["ProtocolError"], seen["UpdateRefused"]) > 50, seen


@SEEDS
@pytest.mark.slow
def test_a_thousand_hostile_requests(site: Site, schedule: Schedule, tmp_path: Path, first: int):
    """To one guard: what is admitted and trained is what may be, each once; the ledger
    then has paid for exactly that, and its chain holds."""
    logging.getLogger("client.guard").setLevel(logging.CRITICAL)
    private = Privacy(epsilon=2, n_public=64, epsilon_budget=20)
    site = site.model_copy(update={"privacy": private})
    folder = tmp_path / "state"
    guard = Guard(site, folder, lambda *_: SecureNoise(), policy=OPEN)
    good: dict[str, Request] = {"hello": Hello("run-1", source_hash())}
    for run in [f"run-{i}" for i in range(1, 13)]:  # two more than the budget has room for
        good[f"admit {run}"] = admit(schedule, run)
        for round_, attempt in ((1, 0), (1, 1), (2, 0), (3, 0)):
            good[f"train {run} {round_} {attempt}"] = train(schedule, round_, attempt, run_id=run)
    some = train(schedule)
    good["evaluate"] = Evaluate(
        "run-1", source_hash(), schedule_hash=schedule.hash(), split="val", tensors=some.tensors
    )
    judge = Judge(good, {name: value.shape for name, value in some.tensors.items()})
    plans, seen = {}, Counter[str]()
    for seed in range(first, first + 1_000):
        with in_time(20 if seed < first + 200 else 5):  # the first trainings load Opacus
            try:
                asked = request(Random(seed), good)
            except Unreadable:
                seen["unreadable"] += 1
                continue
            answer = guard.handle(asked)
        what = answer.code if isinstance(answer, Refusal) else type(answer).__name__
        seen[what] += 1
        assert what != "internal-error", (seed, asked)
        if isinstance(answer, HelloAnswer):
            assert judge.may_greet(asked), seed
        elif isinstance(answer, AdmitAnswer):
            assert judge.may_admit(asked), seed
            plans[asked.run_id] = answer.receipt
        elif isinstance(answer, TrainAnswer):
            assert judge.may_train(asked), seed
            assert (answer.site, answer.exact_loss) == ("north", None)
            assert (answer.round, answer.attempt) == (asked.round, asked.attempt)  # type: ignore[union-attr]
            assert all(np.isfinite(v).all() for v in answer.tensors.values())
        else:
            assert isinstance(answer, Refusal), seed
            assert len(answer.reason) < 1_000
            assert answer.reason.isprintable()
    with Ledger.of(site, folder) as ledger:
        ledger.rows.verify()
        admitted = [ledger.reservation(run) for run in plans]
        costs = [kept.plan.epsilon for kept in admitted if kept is not None]
        assert len(costs) == len(judge.admitted) == len(plans) >= 2
        assert ledger.account.spent()[0] == pytest.approx(sum(costs))
        assert ledger.account.spent()[0] <= 20
    rows = ledger_rows(folder)
    attempts = {(r["run_id"], r["round"], r["attempt"]) for r in rows if r["kind"] == "attempt"}
    assert attempts == set(judge.answers)
    assert {r["run_id"] for r in rows if r["kind"] == "reservation"} == set(plans)
    assert len(judge.answers) >= 4
    assert min(seen["bad-request"], seen["unreadable"], seen["TrainAnswer"]) > 20, seen
