"""Runs that wait for a person's approval."""

from pathlib import Path

import pytest

from client.ledger.approvals import MAX_REASON, MAX_WAITING, Approvals
from client.ledger.ledger import Ledger
from client.refusals import BadRequest
from tests.client.ledger.test_ledger import PRIVACY


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite", PRIVACY)


def test_a_server_cannot_fill_the_disk_with_requests(ledger: Ledger):
    """Only so many runs wait at a time; an approval makes room for the next."""
    approvals = Approvals(ledger.rows, max_waiting=3)
    for i in range(3):
        approvals.ask(f"run-{i}", "s", "m")
    with pytest.raises(BadRequest, match="too many runs wait"):
        approvals.ask("run-3", "s", "m")
    approvals.approve("run-1", "ana")
    approvals.ask("run-3", "s", "m")
    assert list(approvals.waiting()) == ["run-0", "run-2", "run-3"]
    assert MAX_WAITING == 100


def test_a_run_asks_once_and_for_one_schedule_and_model(ledger: Ledger):
    """Asking again writes nothing; asking for something else under the same name is refused."""
    ledger.approvals.ask("run-1", "s", "m")
    rows = ledger.rows.all()
    ledger.approvals.ask("run-1", "s", "m")
    assert ledger.rows.all() == rows
    for schedule, model in (("t", "m"), ("s", "n")):
        with pytest.raises(BadRequest, match="another schedule or model"):
            ledger.approvals.ask("run-1", schedule, model)


def test_an_approval_is_of_the_schedule_and_model_that_were_asked_for(ledger: Ledger):
    """Another schedule or model under the same name is not approved."""
    ledger.approvals.ask("run-1", "s", "m")
    assert not ledger.approvals.approved("run-1", "s", "m")
    ledger.approvals.approve("run-1", "ana")
    assert ledger.approvals.approved("run-1", "s", "m")
    assert not ledger.approvals.approved("run-1", "t", "m")
    assert not ledger.approvals.approved("run-1", "s", "n")
    assert not ledger.approvals.approved("run-2", "s", "m")


def test_only_a_run_that_waits_can_be_approved(ledger: Ledger):
    """The error lists the runs that do wait."""
    ledger.approvals.ask("run-1", "s", "m")
    with pytest.raises(BadRequest, match="'run-2' does not wait for approval; waiting: run-1"):
        ledger.approvals.approve("run-2", "ana")
    ledger.approvals.approve("run-1", "ana")
    with pytest.raises(BadRequest, match="waiting: none"):
        ledger.approvals.approve("run-1", "ana")


def test_a_no_is_final_and_makes_room(ledger: Ledger):
    """The reason is kept for the coordinator, and nobody can approve the run afterwards."""
    ledger.approvals.ask("run-1", "s", "m")
    assert ledger.approvals.denied("run-1") is None
    for why in ("", "  ", "two\nlines", "x" * (MAX_REASON + 1)):
        with pytest.raises(BadRequest, match="one line of 1 to 200 characters"):
            ledger.approvals.deny("run-1", "ana", why)
    ledger.approvals.deny("run-1", "ana", " too expensive ")
    assert ledger.approvals.denied("run-1") == "too expensive"
    assert ledger.approvals.waiting() == {}
    assert not ledger.approvals.approved("run-1", "s", "m")
    for answer in (ledger.approvals.approve, lambda run, who: ledger.approvals.deny(run, who, "x")):
        with pytest.raises(BadRequest, match="does not wait"):
            answer("run-1", "ben")
