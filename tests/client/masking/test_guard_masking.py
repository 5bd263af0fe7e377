"""A guard joins a sum under its policy's conditions, or refuses before any record is read."""

import json
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from client.guard import Guard
from client.masking.agreement import RunKeys, run_name
from client.masking.identity import load_identity, public_text
from client.policy import Policy
from client.round import RoundResult, one_round
from client.simulated import open_guard
from client.training import site_model
from medformer.sharing import shared_shapes
from server.protocol import (
    Admit,
    AdmitAnswer,
    Agree,
    AgreeAnswer,
    Answer,
    Refusal,
    Schedule,
    Train,
    TrainAnswer,
    fingerprint,
    source_hash,
)
from server.run.checkpoints import load_state
from server.run.journal import CHECKPOINTS
from simulations.run_folder import load_prepared
from tests.conftest import ledger_rows
from tests.integration.test_masked_runs import SECURE, SITES, prepared, trained
from tests.integration.test_shared_noise import ROUNDS

RUN = "run-1"
POLICY = Policy(
    objectives=("supervised",),
    max_epsilon_per_run=50,
    min_noise_multiplier=0.2,
    max_expected_share=1.0,
    accept_unit_image=True,
    approval="automatic",
)


@dataclass
class Run:
    """Three guards that have agreed, and a fourth that is no member."""

    guards: dict[str, Guard]
    members: list[str]
    sealed: dict[str, list[Any]]
    schedule: Schedule
    tensors: dict[str, Any]

    def train(self, site: str, **changes: Any) -> Train:
        cohort = changes.pop("cohort", SITES[:3])
        sealed = [one for one in self.sealed[site] if one["sender"] in cohort]
        fields: dict[str, Any] = {
            "schedule_hash": self.schedule.hash(), "round": 1, "attempt": 0,
            "acknowledged_round": 0, "tensors": self.tensors, "cohort": json.dumps(cohort),
            "sealed": json.dumps(sealed),
        }  # fmt: skip
        return Train(RUN, source_hash(), **(fields | changes))


def begun(folder: Path, **changes: Any) -> Run:
    run = load_prepared(prepared(folder, **changes))
    guards = {s.name: open_guard(folder, n) for n, s in enumerate(run.sites)}
    peers = {
        name: fingerprint(public_text(load_identity(guard.folder)), "signer")
        for name, guard in guards.items()
    }
    guards = {
        name: replace(guard, policy=POLICY.model_copy(update={"peers": peers}))
        for name, guard in guards.items()
    }
    start = load_state(folder / CHECKPOINTS, 0)
    assert start is not None
    federation = run.federation
    asked = Admit(RUN, source_hash(), schedule=federation.schedule.canonical(),
                  model=federation.model.model_dump_json())  # fmt: skip
    admitted = {name: guard.handle(asked) for name, guard in guards.items()}
    keys = [a.mask_keys for a in admitted.values() if isinstance(a, AdmitAnswer)]
    assert len(keys) == 4
    return Run(guards, keys, {name: [] for name in SITES}, federation.schedule, start.shared)


def agree(run: Run, members: list[str], site: str) -> Answer:
    text = f"[{','.join(members)}]"
    return run.guards[site].handle(
        Agree(RUN, source_hash(), schedule_hash=run.schedule.hash(), members=text)
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run of which the first three sites have agreed with each other."""
    found = begun(tmp_path / "run", aggregation=SECURE)
    for name in SITES[:3]:
        answer = agree(found, found.members[:3], name)
        assert isinstance(answer, AgreeAnswer), answer
        for one in json.loads(answer.sealed):
            found.sealed[one["receiver"]].append(one)
    return found


def blind(guard: Guard) -> Guard:
    """Return the guard without access to its records."""

    def read(*_: object) -> Any:
        raise AssertionError("a record was read")

    return replace(guard, read=read)


def attempts(guard: Guard) -> int:
    return sum(row["kind"] == "attempt" for row in ledger_rows(guard.folder))


FIRST, SECOND = SITES[:2]
CASES: list[tuple[str, str, Callable[[Run], Train], str]] = [
    ("no cohort", FIRST, lambda r: r.train(FIRST, cohort=()), "does not include this site"),
    ("without itself", FIRST, lambda r: r.train(FIRST, cohort=SITES[1:3]), "does not include"),
    ("a site twice", FIRST, lambda r: r.train(FIRST, cohort=(FIRST, *SITES[:3])), "sites once"),
    ("another order", FIRST, lambda r: r.train(FIRST, cohort=SITES[2::-1]), "order of names"),
    ("too small", FIRST, lambda r: r.train(FIRST, cohort=SITES[:2]), "a cohort of 2 sites"),
    ("a stranger", FIRST, lambda r: r.train(FIRST, cohort=SITES), "chest-4 is no other member"),
    ("no secret", SECOND, lambda r: r.train(SECOND, sealed="[]"), "no secret with chest-1"),
    ("damaged", SECOND, lambda r: r.train(SECOND, sealed="[1]"), "are not valid"),
    ("another's", SECOND, lambda r: r.train(SECOND, sealed=json.dumps(r.sealed[SITES[2]])),
     "not for this site"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("site", "ask", "reason"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_sum_that_a_site_must_not_join_is_refused(
    run: Run, site: str, ask: Callable[[Run], Train], reason: str
):
    """No record is read, and nothing is charged."""
    answer = blind(run.guards[site]).handle(ask(run))
    assert isinstance(answer, Refusal)
    assert reason in answer.reason
    assert attempts(run.guards[site]) == 0


def test_the_usual_request_is_answered_once(run: Run):
    """The same request gets the same words; a known attempt with another cohort is refused."""
    first, again = (run.guards["chest-1"].handle(run.train("chest-1")) for _ in range(2))
    assert isinstance(first, TrainAnswer), first
    assert isinstance(again, TrainAnswer)
    assert first.words is not None
    assert again.words is not None
    assert (first.words == again.words).all()
    kept = run.guards["chest-1"].folder / "runs" / RUN / "masking"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600  # it holds private keys
    assert attempts(run.guards["chest-1"]) == 1
    lenient = run.guards["chest-1"]
    assert lenient.policy is not None
    policy = lenient.policy.model_copy(update={"min_sites": 2})
    other = replace(lenient, policy=policy).handle(run.train("chest-1", cohort=SITES[:2]))
    assert isinstance(other, Refusal), other
    assert attempts(lenient) == 1


def test_a_cohort_smaller_than_that_of_the_run_is_refused(run: Run):
    """Also where the policy would allow it: the run's promise rests on its own number."""
    guard = run.guards[FIRST]
    assert guard.policy is not None
    assert run.schedule.aggregation.min_sites == 3
    lenient = replace(guard, policy=guard.policy.model_copy(update={"min_sites": 2}))
    answer = blind(lenient).handle(run.train(FIRST, cohort=SITES[:2]))
    assert isinstance(answer, Refusal)
    assert "a cohort of 2 sites: this site takes part in sums of 3 to 512" in answer.reason
    assert attempts(guard) == 0


def test_a_second_attempt_has_another_mask(run: Run):
    """The cohort is the same, and what the site trained is made the same here: every word differs.
    Otherwise the difference of two answers would be free of the mask."""
    first: list[RoundResult] = []

    def once(*arguments: Any) -> RoundResult:
        first.append(one_round(*arguments))
        return first[0]

    guard = replace(run.guards["chest-1"], train=once)
    words = []
    for attempt in (0, 1):
        answer = guard.handle(run.train("chest-1", attempt=attempt))
        assert isinstance(answer, TrainAnswer), answer
        assert answer.words is not None
        words.append(answer.words)
    assert (words[0] != words[1]).all()
    assert attempts(guard) == 2


def test_keys_that_change_within_a_run_are_refused(run: Run):
    """A member that comes later is new to the others, one may leave, and one that was there keeps
    its keys."""
    assert isinstance(agree(run, run.members, "chest-1"), AgreeAnswer)
    # A site is excluded, for example because its budget is spent: the others go on.
    assert isinstance(agree(run, run.members[:2], "chest-1"), AgreeAnswer)
    other = RunKeys.fresh("chest-3", run_name(RUN, run.schedule.hash()))
    changed = other.signed(load_identity(run.guards["chest-3"].folder)).model_dump_json()
    again = agree(run, [*run.members[:2], changed], "chest-1")
    assert isinstance(again, Refusal)
    assert "chest-3 had other keys before" in again.reason


@pytest.mark.parametrize(
    ("peers", "reason"),
    [({}, "lists no fingerprint of chest-2's guard"),
     ({"chest-2": " ".join(["0000"] * 8)}, "guard of chest-2 has another key")],
)  # fmt: skip
def test_a_guard_that_nobody_has_compared_is_refused(run: Run, peers: dict[str, str], reason: str):
    """The reason says what to do, and goes to the server and the ledger."""
    guard = run.guards["chest-1"]
    assert guard.policy is not None
    known = {**guard.policy.peers} if peers else {}
    policy = guard.policy.model_copy(update={"peers": known | peers})
    run.guards["chest-1"] = replace(blind(guard), policy=policy)
    answer = agree(run, run.members[:3], "chest-1")
    assert isinstance(answer, Refusal)
    assert (answer.code, reason in answer.reason) == ("policy", True)


def test_too_few_known_peers_are_refused_before_anything_is_reserved(tmp_path: Path):
    """A cohort of strangers would be refused only after the budget is spent."""
    folder = tmp_path / "run"
    federation = load_prepared(prepared(folder, aggregation=SECURE)).federation
    peers = dict.fromkeys(["chest-2"], " ".join(["0000"] * 8))
    policy = POLICY.model_copy(update={"peers": peers})
    guard = replace(open_guard(folder, 0), policy=policy)
    asked = Admit(RUN, source_hash(), schedule=federation.schedule.canonical(),
                  model=federation.model.model_dump_json(), sites="[]")  # fmt: skip
    strangers = guard.handle(replace(asked, sites=json.dumps(SITES[:3])))
    assert isinstance(strangers, Refusal)
    assert "of which chest-3 is not in `peers`" in strangers.reason
    broken = guard.handle(replace(asked, sites="3"))
    assert isinstance(broken, Refusal)
    assert "are not valid" in broken.reason
    answer = guard.handle(asked)
    assert isinstance(answer, Refusal)
    assert "knows 1 peers where sums have at least 3 sites" in answer.reason
    assert not [row for row in ledger_rows(guard.folder) if row["kind"] == "reservation"]
    enough = replace(guard, policy=policy.model_copy(update={"min_sites": 2}))
    admitted = enough.handle(replace(asked, sites=json.dumps(SITES[:2])))
    assert isinstance(admitted, AdmitAnswer)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [(None, "set max_epsilon_all_collude"), (8.5, "is beyond this site's policy (8.5"), (40, "")],
)
def test_a_share_of_the_noise_needs_the_policys_consent(
    tmp_path: Path, limit: float | None, reason: str
):
    """A hospital relies on others as far as its policy says, and by default not at all."""
    folder = tmp_path / "run"
    federation = load_prepared(prepared(folder, **ROUNDS)).federation
    peers = dict.fromkeys(SITES[1:], " ".join(["0000"] * 8))
    limits = {"peers": peers, "max_epsilon_all_collude": limit}
    guard = replace(open_guard(folder, 0), policy=POLICY.model_copy(update=limits))
    answer = guard.handle(Admit(RUN, source_hash(), schedule=federation.schedule.canonical(),
                                model=federation.model.model_dump_json(),
                                sites=json.dumps(SITES)))  # fmt: skip
    assert reason in getattr(answer, "reason", "")
    assert isinstance(answer, Refusal if reason else AdmitAnswer), answer
    reserved = [row for row in ledger_rows(guard.folder) if row["kind"] == "reservation"]
    assert len(reserved) == (not reason)


def test_a_policy_wants_more_sites_than_the_run_has(tmp_path: Path):
    """Known before the budget is reserved."""
    folder = tmp_path / "run"
    federation = load_prepared(prepared(folder, aggregation=SECURE)).federation
    peers = {f"site-{n}": " ".join(["0000"] * 8) for n in range(9)}
    policy = POLICY.model_copy(update={"peers": peers, "min_sites": 5})
    guard = replace(open_guard(folder, 0), policy=policy)
    answer = guard.handle(Admit(RUN, source_hash(), schedule=federation.schedule.canonical(),
                                model=federation.model.model_dump_json()))  # fmt: skip
    assert isinstance(answer, Refusal)
    assert "adds up the answers of as few as 3 sites" in answer.reason
    assert "the run has to say min_sites: 5" in answer.reason


def test_the_keys_of_a_run_are_deleted_with_its_last_sum(tmp_path: Path):
    """From them and a recording, single answers could be told; own heads need none."""
    folder = prepared(tmp_path / "run", aggregation=SECURE)
    seen: dict[int, list[bool]] = {}

    def look(model: Any, site: Any, records: Any, schedule: Any, number: int,
             *others: Any) -> RoundResult:  # fmt: skip
        kept = folder.rglob("masking")
        seen[number] = [path.exists() for path in kept]
        return one_round(model, site, records, schedule, number, *others)

    trained(folder, train=look)
    # Four rounds send something; in the fifth each site has deleted its keys when it trains.
    assert [len(seen[number]) for number in (1, 2, 3, 4)] == [4] * 4
    assert seen[5] == []


def test_a_run_without_masks_has_nothing_to_agree_on(tmp_path: Path):
    """A cohort there would look like a promise."""
    folder = tmp_path / "run"
    run = load_prepared(prepared(folder))
    guard = open_guard(folder, 0)
    federation = run.federation
    answer = guard.handle(Admit(RUN, source_hash(), schedule=federation.schedule.canonical(),
                                model=federation.model.model_dump_json()))  # fmt: skip
    assert isinstance(answer, AdmitAnswer)
    assert answer.mask_keys == ""
    common = {"schedule_hash": federation.schedule.hash()}
    refused = guard.handle(Agree(RUN, source_hash(), members="[]", **common))
    assert isinstance(refused, Refusal)
    assert "nothing to agree on" in refused.reason
    start = load_state(folder / CHECKPOINTS, 0)
    assert start is not None
    asked = Train(RUN, source_hash(), round=1, attempt=0, acknowledged_round=0,
                  tensors=start.shared, cohort='["chest-1"]', **common)  # fmt: skip
    refused = blind(guard).handle(asked)
    assert isinstance(refused, Refusal)
    assert "it has no cohort" in refused.reason
    assert set(start.shared) == set(shared_shapes(site_model(federation.model, run.sites[0].tasks)))
