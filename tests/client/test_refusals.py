"""The audit log: refusals are on the ledger, and cannot fill the disk."""

from dataclasses import replace
from pathlib import Path

import pytest

from client.data.records import Records
from client.guard import Guard
from client.ledger import export as ledger_file
from client.ledger.ledger import Ledger
from client.ledger.refused import MAX_REASON, Refused
from client.policy import Policy
from client.privacy.noise import SecureNoise
from client.site import Privacy, Site
from server.protocol import Answer, Refusal, Request, Schedule, TrainAnswer
from simulations.cli import main
from tests.client.ledger.test_ledger import PRIVACY, plan
from tests.conftest import OPEN, admit, ledger_rows, train


def guarded(site: Site, folder: Path, policy: Policy = OPEN) -> Guard:
    return Guard(site, folder, lambda *_: SecureNoise(), policy=policy)


def refused(answer: Answer) -> tuple[str, str]:
    assert isinstance(answer, Refusal), answer
    return answer.code, answer.reason


def refusals(folder: Path) -> list[dict[str, object]]:
    return [row for row in ledger_rows(folder) if row["kind"] == "refusal"]


def test_every_kind_of_refusal_has_a_row_that_says_what_the_server_was_told(
    site: Site, schedule: Schedule, tmp_path: Path
):
    """Each kind of refusal has a ledger row with the text that the server got."""
    site = site.model_copy(update={"privacy": Privacy(epsilon=8, n_public=64, epsilon_budget=8)})
    strict = OPEN.model_copy(update={"max_rounds": 1})
    manual = OPEN.model_copy(update={"approval": "manual"})
    guard = guarded(site, tmp_path)
    told: list[tuple[str, str, str, str]] = []

    def ask(guard: Guard, kind: str, request: Request) -> None:
        told.append((kind, request.run_id, *refused(guard.handle(request))))

    ask(guarded(site, tmp_path, strict), "admit", admit(schedule))
    ask(guarded(site, tmp_path, manual), "admit", admit(schedule, "run-2"))
    guard.handle(admit(schedule))
    ask(guard, "admit", admit(schedule, "run-3"))
    ask(guard, "train", train(schedule, 9))
    assert isinstance(guard.handle(train(schedule, 1)), TrainAnswer)
    guard.handle(train(schedule, 2, acknowledged=1))
    ask(guard, "train", train(schedule, 1, acknowledged=1))
    ask(guard, "train", replace(train(schedule, 3), ledger_hash="0" * 64))

    assert [code for _, _, code, _ in told] == [
        "policy", "approval-pending", "budget-exhausted", "bad-request", "attempt-lost",
        "ledger-rolled-back",
    ]  # fmt: skip
    rows = refusals(tmp_path)
    assert [(r["request"], r["run_id"], r["code"], r["reason"]) for r in rows] == told
    ledger_file.read(tmp_path)


def test_a_refusal_costs_nothing(tmp_path: Path):
    """Spent budget, remaining budget and admitted runs are unchanged."""
    with Ledger(tmp_path / "l", PRIVACY) as ledger:
        standing = ledger.reserve("one", "s", "m", plan())
        account, waiting = ledger.account, ledger.approvals.waiting
        before = account.spent(), account.used(), account.limits(), waiting()
        for code in ("policy", "budget-exhausted", "bad-request"):
            ledger.refused.note("admit", "one", code, "no")
        assert (account.spent(), account.used(), account.limits(), waiting()) == before
        assert ledger.reservation("one") == standing
        ledger.reserve("two", "s", "m", plan())


def test_the_same_refusal_again_and_again_is_counted_and_written_at_each_doubling(tmp_path: Path):
    """Repeated refusals are counted in the file, across restarts."""
    for _ in range(100):
        with Ledger(tmp_path / "ledger.sqlite", PRIVACY) as ledger:
            ledger.refused.note("train", "run-1", "bad-request", "no")
    assert [row["count"] for row in refusals(tmp_path)] == [1, 2, 4, 8, 16, 32, 64]


def test_a_server_that_makes_up_runs_and_long_texts_cannot_fill_the_disk(tmp_path: Path):
    """Further runs share one row beyond a limit; malformed names and long reasons are cut."""
    with Ledger(tmp_path / "ledger.sqlite", PRIVACY) as ledger:
        refused = Refused(ledger.rows, max_counted=10)
        refused.note("train", "../../" + "y" * 10_000, "policy", "no")
        for i in range(500):
            refused.note("train", f"run-{i}", "bad-request", "x" * 10_000)
    rows = refusals(tmp_path)
    assert len({row["run_id"] for row in rows}) == 10
    assert [row["count"] for row in rows if row["code"] == "bad-request" and not row["run_id"]] == [
        2**n for n in range(9)
    ]
    assert max(len(str(row["reason"])) for row in rows) == MAX_REASON
    assert not [row for row in rows if "y" in str(row["run_id"])]


def test_the_answer_is_the_same_where_the_ledger_cannot_be_written(
    site: Site, schedule: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The server's answer does not depend on whether the ledger can be written."""
    guard = guarded(site, tmp_path)
    usual = guard.handle(train(schedule))

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Refused, "note", full)
    assert guard.handle(train(schedule)) == usual
    assert refused(usual)[0] == "bad-request"


def test_what_may_come_from_a_record_is_not_on_the_ledger(
    site: Site, schedule: Schedule, tmp_path: Path
):
    """An error that may depend on a record is not on the ledger: the server gets hashes of later
    rows, against which it could test its guesses."""
    guard = guarded(site, tmp_path)
    guard.handle(admit(schedule))

    def fail(*_: object) -> Records:
        raise ValueError("/hospital/patient-4711.dcm is odd")

    assert refused(replace(guard, read=fail).handle(train(schedule)))[0] == "internal-error"
    assert refusals(tmp_path) == []


def test_the_ledger_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Time, number, run and reason are shown, with control characters of a request escaped."""
    with Ledger(tmp_path / "ledger.sqlite", PRIVACY) as ledger:
        for _ in range(5):
            ledger.refused.note("train", "run-1", "bad-request", "'\x1b[2Jgone' is not")
        ledger.refused.note("admit", "run-2", "policy", "not here")
    assert main(["site", "ledger", "show", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    first = ledger_file.read(tmp_path)[1].time
    assert [first, "4+", "train", "bad-request", "run-1:", "'\\x1b[2Jgone'", "is", "not"] in lines
    assert any(line[1:] == ["1", "admit", "policy", "run-2:", "not", "here"] for line in lines)
    assert "\x1b" not in out
