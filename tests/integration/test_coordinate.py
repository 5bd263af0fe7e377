"""Whole runs without Flower: guards in this process, lost attempts, refusals and resumption."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from client.guard import Guard
from client.ledger import export as ledger_file
from client.site import Privacy, Site
from medformer.config import Domain, ModelConfig, Task
from server.protocol import (
    Admit,
    AdmitAnswer,
    Answer,
    Hello,
    HelloAnswer,
    Phase,
    Refusal,
    RefusalCode,
    Request,
    Schedule,
    Train,
    TrainAnswer,
)
from server.report.build import build
from server.run.checkpoints import write_json
from server.run.coordinate import Run
from server.run.errors import FederationError, RunInterrupted
from server.run.federation import Federation, PublicSite
from server.run.fleet import Lost, read_reply
from server.run.journal import outcome
from server.run.metrics import read_metrics
from server.run.pretraining import initial_shared
from server.run.strategy import State
from simulations.baselines.jobs import LocalFleet
from tests.conftest import CONFIG, ledger_rows

Harm = Callable[[str, Request, Answer], Answer | Lost]
Greet = Callable[[dict[str, HelloAnswer]], dict[str, HelloAnswer]]


class HarmedFleet(LocalFleet):
    """Changes answers on their way to the server."""

    def __init__(self, guards: Mapping[str, Guard], harm: Harm, greet: Greet) -> None:
        super().__init__(guards)
        self.harm = harm
        self.greet = greet
        self.sent: list[Request] = []

    def hello(self, request: Hello) -> dict[str, HelloAnswer]:
        return self.greet(super().hello(request))

    def ask(
        self, requests: Mapping[str, Request], enough: int | None = None
    ) -> dict[str, Answer | Lost]:
        self.sent += requests.values()
        return {
            name: answer if isinstance(answer, Lost) else self.harm(name, requests[name], answer)
            for name, answer in super().ask(requests, enough).items()
        }


def only_north(answers: dict[str, HelloAnswer]) -> dict[str, HelloAnswer]:
    return {"north": answers["north"]}


def untouched(name: str, request: Request, answer: Answer) -> Answer | Lost:
    return answer


@pytest.fixture
def sites(site: Site) -> list[Site]:
    return [site, site.model_copy(update={"name": "south"})]


@pytest.fixture
def execute(
    open_guard: Callable[..., Guard], sites: list[Site], schedule: Schedule, tmp_path: Path
) -> Callable[..., tuple[Run, State]]:
    """Run, or resume, the federation in tmp_path/run."""
    federation = Federation(
        name="test",
        model=CONFIG,
        schedule=schedule,
        pretraining=None,
        sites=tuple(PublicSite(name=s.name, domain=s.domain) for s in sites),
    )
    folder = tmp_path / "run"
    folder.mkdir()

    def execute_(
        harm: Harm = untouched,
        greet: Greet = dict,
        quorum: int | None = None,
        phases: tuple[Phase, ...] = schedule.phases,
        **settings: float,
    ) -> tuple[Run, State]:
        fleet = HarmedFleet({s.name: open_guard(s) for s in sites}, harm, greet)
        planned = schedule.model_copy(update={"phases": phases})
        chosen = federation.model_copy(update={"quorum": quorum, "schedule": planned})
        quick = {"approval_poll": 0.01, "retry_pause": 0.01}
        run = Run(fleet, chosen, folder, evaluate=True, **quick, **settings)
        return run, run.execute(lambda: initial_shared(CONFIG, 0))

    return execute_


def test_a_run_trains_every_round_and_writes_what_the_report_needs(execute, tmp_path: Path):
    """The folder holds receipts, metrics, checkpoints and results."""
    run, state = execute()
    assert state.round == 3
    folder = tmp_path / "run"
    rows = [r for r in read_metrics(folder) if r["event"] == "round"]
    assert [(r["round"], r["site"]) for r in rows] == [
        (n, s) for n in (1, 2, 3) for s in ("north", "south")
    ]
    summary = json.loads((folder / "summary.json").read_text())
    assert {(r["site"], r["metric"]) for r in summary["results"]} == {
        (s, m) for s in ("north", "south") for m in ("auc", "accuracy")
    }
    assert run.journal.receipts["north"]["epsilon"] <= 8


def test_volumes_and_images_train_one_encoder(
    open_guard: Callable[..., Guard], site: Site, schedule: Schedule, tmp_path: Path
):
    """One run trains a 3D and a 2D site under DP: each its own stem, and both the encoder."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 255, (40, 17, 16, 18), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(40)[:, None] % 2
    np.savez(tmp_path / "volumes.npz", **arrays)
    domain = Domain(name="ct", modality="ct", anatomy="adrenal", channels=1, rank=3)
    volumes = Site(
        name="volumes",
        domain=domain,
        tasks=(Task(name="lesion", kind="binary-class", classes=2),),
        data={"source": "npz", "path": tmp_path / "volumes.npz"},  # type: ignore[arg-type]
        privacy=Privacy(epsilon=8, n_public=40, epsilon_budget=20),
    )
    config = ModelConfig.for_domains([site.domain, domain])
    federation = Federation(
        name="test",
        model=config,
        schedule=schedule,
        pretraining=None,
        sites=tuple(PublicSite(name=s.name, domain=s.domain) for s in (site, volumes)),
    )
    (tmp_path / "run").mkdir()
    start = initial_shared(config, 0)
    fleet = LocalFleet({s.name: open_guard(s) for s in (site, volumes)})
    run = Run(fleet, federation, tmp_path / "run", evaluate=True)
    state = run.execute(lambda: initial_shared(config, 0))
    changed = {k for k, v in state.shared.items() if not np.array_equal(v, start[k])}
    for part in ("input.stems.2d-1.", "input.stems.3d-1.", "input.modality.ct.", "encoder."):
        assert any(k.startswith(part) for k in changed), part
    results = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
    assert {r["site"] for r in results if r["value"] is not None} == {"north", "volumes"}


def test_validation_at_the_end_of_a_phase_changes_nothing_else(
    execute, schedule: Schedule, tmp_path: Path
):
    """It adds a row per site after each phase but the last; model and ledgers stay the same."""
    (phase,) = schedule.phases
    phases = tuple(phase.model_copy(update={"name": n, "rounds": 1}) for n in ("first", "second"))
    _, without = execute(phases=phases)
    before = ledger_rows(tmp_path / "north")
    for path in list(tmp_path.iterdir()):
        shutil.rmtree(path)
    (tmp_path / "run").mkdir()
    _, state = execute(phases=phases, validate=True)
    assert all(np.array_equal(state.shared[k], without.shared[k]) for k in state.shared)
    after = ledger_rows(tmp_path / "north")
    assert [(r["kind"], r.get("round")) for r in after] == [
        (r["kind"], r.get("round")) for r in before
    ]
    rows = [r for r in read_metrics(tmp_path / "run") if r["event"] == "validation"]
    assert [(r["round"], r["phase"], r["site"]) for r in rows] == [
        (1, "first", "north"), (1, "first", "south"),
    ]  # fmt: skip
    assert all(r["auc"] is not None and 0 <= r["auc"] <= 1 for r in rows)


def test_two_runs_with_one_seed_are_the_same(execute, tmp_path: Path, sites: list[Site]):
    """Started from empty state, they agree bit for bit."""
    _, one = execute()
    for path in tmp_path.iterdir():
        shutil.rmtree(path)
    (tmp_path / "run").mkdir()
    _, two = execute()
    assert all(np.array_equal(one.shared[k], two.shared[k]) for k in one.shared)


def test_a_lost_site_interrupts_and_resume_retrains_from_the_spares(execute, tmp_path: Path):
    """Round 2 is lost at one site after it was started there. Resuming asks that site for attempt 1
    of it and replays the other site's kept answer."""

    def lose(name: str, request: Request, answer: Answer) -> Answer | Lost:
        lost = isinstance(request, Train) and request.round == 2 and name == "north"
        return Lost("killed") if lost else answer

    with pytest.raises(RunInterrupted, match="north: killed"):
        execute(lose)
    for answer in (tmp_path / "north").rglob("answers/*"):
        answer.unlink()  # it died before its answer was on the disk
    reserved = [r for r in ledger_rows(tmp_path / "north") if r["kind"] == "reservation"]

    run, state = execute()
    assert state.round == 3
    attempts = {
        name: [(r["round"], r["attempt"]) for r in ledger_rows(tmp_path / name)
               if r["kind"] == "attempt"]
        for name in ("north", "south")
    }  # fmt: skip
    assert attempts["north"] == [(1, 0), (2, 0), (2, 1), (3, 0)]
    assert attempts["south"] == [(1, 0), (2, 0), (3, 0)]
    again = [r for r in ledger_rows(tmp_path / "north") if r["kind"] == "reservation"]
    assert again == reserved
    assert run.journal.run_id == reserved[0]["run_id"]


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Refusal("attempt-lost", "again", "south"), "attempt-lost: again"),
        (HelloAnswer("south", "{}", ""), "bad-answer: HelloAnswer to a Train request"),
    ],
)
def test_a_site_that_never_answers_well_does_not_hold_up_the_others(
    execute, schedule: Schedule, reply: Answer, text: str
):
    """It is asked once for each attempt that it has paid for, and its answer is in the events."""
    asked = 0

    def harm(name: str, request: Request, answer: Answer) -> Answer | Lost:
        nonlocal asked
        if name != "south" or not isinstance(request, Train):
            return answer
        asked += 1
        return reply

    run, state = execute(harm)
    assert state.round == 3
    attempts = 1 + schedule.spare_rounds if isinstance(reply, Refusal) else 1
    assert asked == 3 * attempts
    events = [e for e in run.journal.events if e["site"] == "south"]
    assert [(e["round"], e["text"]) for e in events] == [(n, text) for n in (1, 2, 3)]


@pytest.mark.parametrize("leak", ["output.heads.chest.weight", "input.site.own.tokens"])
def test_an_update_with_a_local_tensor_is_refused_and_reported(execute, leak: str):
    """The updates of the others are averaged; the refusal is in the events."""

    def harm(name: str, request: Request, answer: Answer) -> Answer | Lost:
        if name == "south" and isinstance(answer, TrainAnswer):
            return replace(answer, tensors={**answer.tensors, leak: np.zeros((1, 64), "f4")})
        return answer

    run, state = execute(harm)
    assert state.round == 3
    refused = [e for e in run.journal.events if e["kind"] == "refused-update"]
    assert [e["round"] for e in refused] == [1, 2, 3]
    assert all(leak in e["text"] and e["site"] == "south" for e in refused)


def test_no_message_to_a_site_or_back_names_a_local_tensor(execute):
    """The test looks at every message in both directions."""
    from medformer.sharing import is_local

    seen: list[str] = []

    def spy(name: str, request: Request, answer: Answer) -> Answer | Lost:
        seen.extend(getattr(request, "tensors", {}))
        seen.extend(getattr(answer, "tensors", {}))
        return answer

    execute(spy)
    assert seen
    assert not [name for name in seen if is_local(name)]


def test_a_refusal_ends_that_sites_part_not_the_run(execute):
    """The policy of one site refuses, and the other site trains on."""

    def refuse(name: str, request: Request, answer: Answer) -> Answer | Lost:
        admitting = type(request).__name__ == "Admit"
        return Refusal("policy", "not here", name) if admitting and name == "south" else answer

    run, state = execute(refuse)
    assert state.round == 3
    assert run.journal.excluded == {"south": "policy: not here"}


def test_a_site_that_puts_an_old_ledger_back_is_out_of_the_run(execute, tmp_path: Path):
    """The server quotes the row that the site had reported. The others go on, and the report names
    the rows."""
    north = tmp_path / "north"
    kept: dict[str, bytes] = {}

    def rollback(name: str, request: Request, answer: Answer) -> Answer:
        if name == "north" and isinstance(request, Train):
            if request.round == 1:
                kept.update({f.name: f.read_bytes() for f in north.glob("ledger.sqlite*")})
            if request.round == 2 and kept:
                for file in north.glob("ledger.sqlite*"):
                    file.unlink()
                for file_name, data in kept.items():
                    (north / file_name).write_bytes(data)
        return answer

    run, state = execute(rollback)
    assert state.round == 3
    assert "an old copy was put back" in run.journal.excluded["north"]
    assert set(run.journal.ledgers) == {"north", "south"}
    assert json.loads((tmp_path / "run" / "ledgers.json").read_text()) == run.journal.ledgers
    hashes = {s: [row.hash for row in ledger_file.read(tmp_path / s)] for s in ("north", "south")}
    assert run.journal.ledgers["south"] in hashes["south"]
    assert run.journal.ledgers["north"] not in hashes["north"]


@pytest.mark.parametrize(("patience", "joins"), [(60, True), (0, False)])
def test_a_site_whose_people_have_to_say_yes_is_waited_for(
    execute, tmp_path: Path, patience: float, joins: bool
):
    """The coordinator waits as long as it was set to; the other sites are asked once."""
    asked: list[str] = []

    def slow(name: str, request: Request, answer: Answer) -> Answer:
        if isinstance(request, Admit):
            asked.append(name)
            if name == "south" and asked.count("south") < 4:
                return Refusal("approval-pending", "a person has to approve", "south")
        return answer

    run, state = execute(slow, approval_wait=patience)
    assert state.round == 3
    assert asked.count("north") == 1
    assert asked.count("south") == (4 if joins else 1)
    assert ("south" in run.journal.receipts) == joins
    assert ("south" in run.journal.excluded) != joins


def refused(code: RefusalCode, name: str) -> Refusal:
    return Refusal(code, "no", name)


def attempts(folder: Path) -> list[tuple[int, int]]:
    rows = ledger_rows(folder)
    return [(r["round"], r["attempt"]) for r in rows if r["kind"] == "attempt"]


def test_a_quorum_goes_on_without_a_site_that_is_lost(execute, tmp_path: Path):
    """The site is asked once more, is absent in that round, and is back in the next at no further
    cost."""
    asked: list[int] = []

    def lose(name: str, request: Request, answer: Answer) -> Answer | Lost:
        if name == "south" and isinstance(request, Train):
            asked.append(request.round)
            return Lost("killed") if request.round == 2 else answer
        return answer

    run, state = execute(lose, quorum=1)
    assert state.round == 3
    assert asked == [1, 2, 2, 3]
    assert [(e["round"], e["site"], e["kind"], e["text"]) for e in run.journal.events] == [
        (2, "south", "absent", "killed")
    ]
    rows = [r for r in read_metrics(tmp_path / "run") if r["event"] == "round"]
    assert [r["round"] for r in rows if r["site"] == "south"] == [1, 3]
    assert attempts(tmp_path / "south") == [(1, 0), (2, 0), (3, 0)]


def test_a_process_that_dies_once_is_asked_again_within_the_round(execute, tmp_path: Path):
    """Its answer was on the disk: it sends the same bytes and pays nothing."""
    lost: list[int] = []

    def lose(name: str, request: Request, answer: Answer) -> Answer | Lost:
        if name == "south" and isinstance(request, Train) and request.round not in lost:
            lost.append(request.round)
            return Lost("killed")
        return answer

    run, state = execute(lose, quorum=2)
    assert (state.round, lost, run.journal.events) == (3, [1, 2, 3], [])
    assert attempts(tmp_path / "south") == [(1, 0), (2, 0), (3, 0)]


def test_too_few_for_a_quorum_interrupt_the_run_at_the_deadline(execute, tmp_path: Path):
    """Both sites are needed. After the deadline the checkpoint of the round before stands, and the
    run can be submitted again."""

    def lose(name: str, request: Request, answer: Answer) -> Answer | Lost:
        lost = isinstance(request, Train) and request.round == 2 and name == "south"
        return Lost("no power") if lost else answer

    with pytest.raises(RunInterrupted, match="round 2 needs the updates of 2 sites and got 1"):
        execute(lose, quorum=2, deadline=0.2)
    _, state = execute(quorum=2)
    assert state.round == 3
    assert attempts(tmp_path / "north") == [(1, 0), (2, 0), (3, 0)]


def test_a_site_that_was_away_joins_later_and_reserves_the_whole_run(execute, tmp_path: Path):
    """Its node connects after round 1. Its reservation does not depend on when that is."""
    calls: list[int] = []

    def greet(answers: dict[str, HelloAnswer]) -> dict[str, HelloAnswer]:
        calls.append(1)
        return answers if len(calls) > 2 else only_north(answers)

    run, state = execute(quorum=1, greet=greet)
    assert state.round == 3
    assert attempts(tmp_path / "south") == [(2, 0), (3, 0)]
    assert [(e["round"], e["site"], e["kind"]) for e in run.journal.events] == [
        (2, "south", "joined")
    ]
    assert run.journal.receipts["south"]["epsilon"] == run.journal.receipts["north"]["epsilon"]
    assert len(calls) == 3


def test_a_site_that_is_away_after_a_resume_stays_in_the_receipts(execute, tmp_path: Path):
    """It trained round 1 and then died: the report still shows what its patients were charged."""
    folder = tmp_path / "run"
    with pytest.raises(RunInterrupted):
        execute(lambda name, r, a: Lost("killed") if _is_round(r, 2) else a, quorum=2, deadline=0.2)
    before = json.loads((folder / "receipts.json").read_text())
    run, state = execute(quorum=1, greet=only_north)
    assert state.round == 3
    assert set(run.journal.receipts) == {"north"}
    assert json.loads((folder / "receipts.json").read_text()) == before
    write_json(folder / "federation.json", run.federation.model_dump(mode="json"))
    report = build(folder, simulation=True, generated_at="now")
    shown = {s["name"]: (s["participated"], s["rounds_trained"]) for s in report["sites"]}
    assert shown == {"north": (True, 3), "south": (True, 1)}
    assert all(s["epsilon"] == before[s["name"]]["epsilon"] for s in report["sites"])


def _is_round(request: Request, number: int) -> bool:
    return isinstance(request, Train) and request.round == number


def test_fewer_sites_than_the_quorum_do_not_begin(execute):
    """Nothing is trained, and the missing sites are named. The run may be submitted again, because
    a site that died at its hello is back a moment later."""
    with pytest.raises(RunInterrupted, match="too few sites take part: south: is not there"):
        execute(quorum=2, greet=only_north)


def test_a_quorum_that_refusals_make_impossible_ends_the_run(execute):
    """Submitting it again would not help."""

    def refuse(name: str, request: Request, answer: Answer) -> Answer | Lost:
        return refused("budget-exhausted", name) if name == "south" else answer

    with pytest.raises(FederationError, match="too few sites take part: south: budget-exhausted"):
        execute(refuse, quorum=2)


def test_a_spent_site_is_out_and_a_closed_one_is_waited_for(execute, tmp_path: Path):
    """`budget-exhausted` in a round ends the site's part; after `closed-now` it is asked again."""
    asked: list[str] = []

    def refuse(name: str, request: Request, answer: Answer) -> Answer | Lost:
        if isinstance(request, Train) and name == "south" and request.round == 1:
            asked.append(name)
            return answer if len(asked) > 3 else refused("closed-now", name)
        if isinstance(request, Train) and name == "south" and request.round == 2:
            return refused("budget-exhausted", name)
        return answer

    run, state = execute(refuse, quorum=1, approval_wait=60)
    assert state.round == 3
    assert run.journal.excluded == {"south": "budget-exhausted: no"}
    assert len(asked) == 2  # a quorum had answered, so that it was asked once more, not waited for
    asked.clear()


def test_a_round_without_a_quorum_waits_until_a_closed_site_opens(execute, tmp_path: Path):
    """Both sites are needed, so the round takes as long as the run is allowed to wait."""
    asked: list[str] = []

    def refuse(name: str, request: Request, answer: Answer) -> Answer | Lost:
        if isinstance(request, Train) and name == "south" and request.round == 1:
            asked.append(name)
            return answer if len(asked) > 5 else refused("closed-now", name)
        return answer

    run, state = execute(refuse, quorum=2, approval_wait=60, deadline=0)
    assert (state.round, len(asked), run.journal.events) == (3, 6, [])


def test_sites_that_all_refuse_are_named(execute):
    """The error gives the reason of each."""

    def refuse(name: str, request: Request, answer: Answer) -> Answer | Lost:
        return Refusal("budget-exhausted", "nothing left", name)

    with pytest.raises(FederationError, match="north: budget-exhausted: nothing left"):
        execute(refuse)


def test_other_sources_at_a_site_stop_the_run(execute):
    """Two versions of the code must not train together."""

    def greet(answers: dict[str, HelloAnswer]) -> dict[str, HelloAnswer]:
        return {name: replace(answer, source_hash="0" * 64) for name, answer in answers.items()}

    with pytest.raises(FederationError, match="runs other sources than the server"):
        execute(greet=greet)


def test_outcome_says_done_or_why_not(tmp_path: Path):
    """outcome.json is written last, atomically."""
    with outcome(tmp_path):
        assert not (tmp_path / "outcome.json").exists()
    assert json.loads((tmp_path / "outcome.json").read_text())["outcome"] == "done"
    with pytest.raises(RunInterrupted), outcome(tmp_path):
        raise RunInterrupted("north: killed")
    failed = json.loads((tmp_path / "outcome.json").read_text())
    assert (failed["outcome"], failed["kind"]) == ("failed", "RunInterrupted")


def test_a_line_cut_off_by_a_kill_is_skipped(tmp_path: Path):
    """The rows before it are read."""
    (tmp_path / "metrics.jsonl").write_text('{"event": "round"}\n{"event": "ro')
    assert len(list(read_metrics(tmp_path))) == 1


def test_a_damaged_checkpoint_is_passed_over_and_written_down(execute, tmp_path: Path):
    """The newest one is cut off. Resuming trains its round again from kept answers, which cost
    nothing more, ends with the same model, and notes it in metrics.jsonl and the summary."""
    _, before = execute()
    folder = tmp_path / "run"
    newest = folder / "checkpoints" / "000003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-8])
    spent = [r for r in ledger_rows(tmp_path / "north") if r["kind"] == "attempt"]
    _, after = execute()
    assert all(np.array_equal(before.shared[k], after.shared[k]) for k in before.shared)
    notes = [r for r in read_metrics(folder) if r["event"] == "checkpoint-damaged"]
    assert [(r["round"], r["site"]) for r in notes] == [(3, "")]
    assert "goes on from the one before" in notes[0]["text"]
    summary = json.loads((folder / "summary.json").read_text())
    assert [e["event"] for e in summary["events"]] == ["checkpoint-damaged"]
    assert [r for r in ledger_rows(tmp_path / "north") if r["kind"] == "attempt"] == spent


@pytest.mark.parametrize("receipt", ["", "[", '{"epsilon": 1}', "null"])
def test_a_site_without_a_readable_receipt_takes_no_part(execute, receipt: str):
    """The other site trains on: a hostile answer cannot stop a run."""

    def harm(name: str, request: Request, answer: Answer) -> Answer | Lost:
        spoilt = name == "south" and isinstance(answer, AdmitAnswer)
        return replace(answer, receipt=receipt) if spoilt else answer

    run, state = execute(harm)
    assert state.round == 3
    assert set(run.journal.receipts) == {"north"}
    assert run.journal.excluded["south"] == "bad-request: its receipt is not that of a privacy plan"


def test_a_receipt_that_its_guard_has_not_signed_is_refused(execute):
    """Whoever sits between guard and server cannot make a run look cheaper."""

    def harm(name: str, request: Request, answer: Answer) -> Answer | Lost:
        if name != "south" or not isinstance(answer, AdmitAnswer):
            return answer
        receipt = json.dumps({**json.loads(answer.receipt), "epsilon": 0.1})
        return replace(answer, receipt=receipt)

    run, _ = execute(harm)
    assert run.journal.excluded["south"] == "bad-request: its receipt is not signed by its guard"


def test_a_ledger_row_that_its_guard_has_not_signed_costs_the_update(execute):
    """And it does not become the row that the report names as signed."""

    def harm(name: str, request: Request, answer: Answer) -> Answer | Lost:
        hidden = name == "south" and isinstance(answer, TrainAnswer) and answer.round == 2
        return replace(answer, ledger_hash="0" * 64) if hidden else answer

    run, _ = execute(harm)
    (event,) = [e for e in run.journal.events if e["kind"] == "refused-update"]
    assert event["text"] == "the row of its ledger is not signed by the guard that admitted the run"
    assert "south" not in run.journal.excluded
    voucher = run.journal.vouchers["south"]
    assert voucher.holds
    assert voucher.ledger_hash == run.journal.ledgers["south"] != "0" * 64


def test_an_update_in_another_sites_name_is_refused(execute):
    """An update of another attempt is refused, too."""

    def harm(name: str, request: Request, answer: Answer) -> Answer | Lost:
        if name != "south" or not isinstance(answer, TrainAnswer):
            return answer
        return replace(answer, **({"site": "north"} if answer.round == 1 else {"attempt": 7}))

    run, _ = execute(harm)
    texts = [e["text"] for e in run.journal.events if e["kind"] == "refused-update"]
    assert texts == [
        "the update names another site, 'north'",
        *2 * ["the update is of attempt 7, not 0"],
    ]


@pytest.mark.usefixtures("flower_identity")
def test_an_answer_that_cannot_be_read_is_a_refusal():
    """It counts as a refusal of that site, whatever is wrong with it; a process that failed is
    lost."""
    request = Message(content=RecordDict(), dst_node_id=1, message_type="train")
    unreadable = read_reply(Message(RecordDict({"x": ConfigRecord()}), reply_to=request))
    assert isinstance(unreadable, Refusal)
    assert "not of this protocol" in unreadable.reason
    assert isinstance(read_reply(Message(Error(1, "x"), reply_to=request)), Lost)
