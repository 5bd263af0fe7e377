"""`site report`: the lifetime of a record set as a page and as JSON, from the ledger alone."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.ledger.budget import Account
from client.ledger.chain import FILE
from client.ledger.ledger import Ledger
from client.ledger.rows import Rows
from client.lifetime.document import CANNOT_KNOW, document
from client.lifetime.facts import lifetime
from client.lifetime.page import page
from client.privacy.composition import Budget
from client.privacy.plan import PrivacyPlan
from client.site import Privacy
from server.protocol.record_counts import STATISTICS
from simulations.cli import main
from tests.helpers.accessible import faults
from tests.helpers.ledgers import PRIVACY, lived, one_plan
from tests.helpers.sources import ROOT

KINDS = {
    "cohort", "reservation", "attempt", "answer", "asked", "approval", "denial", "refusal",
    "class-balance", "measurement", "measurement-answer", "anchor", "home", "restored",
    "report",
}  # fmt: skip
"""Kinds of rows that the page tells of."""


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return one_plan()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, plan: PrivacyPlan) -> Path:
    """Write the page of a site that has lived; its folder holds no record and no other file."""
    folder = tmp_path_factory.mktemp("l")
    lived(folder / "north", plan)
    assert main(["site", "report", str(folder / "north"), "-o", str(folder / "p.html")]) == 0
    return folder


def found(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "p.json").read_text())
    return values


def test_the_json_has_the_numbers_of_the_ledger(made: Path, plan: PrivacyPlan):
    """Cost, approval, rounds, refusals; the newest hash is that of the file."""
    values = found(made)
    rows = Rows(made / "north" / "state" / FILE)
    account, last = Account(rows), rows.last()
    assert last is not None
    assert (values["rows"], values["newest_hash"]) == (last.seq, last.hash)
    assert (values["budget"]["epsilon_spent"], values["budget"]["epsilon"]) == (
        account.spent()[0], account.limits()[0],
    )  # fmt: skip
    (run,) = values["runs"]
    assert run["epsilon"] == plan.epsilon == run["epsilon_so_far"]
    assert (run["approved_by"], run["approved"]) == ("ana", "2026-03-01T12:00:05+00:00")
    assert (run["rounds_trained"], run["rounds"], run["spare_rounds_used"]) == (2, 3, 1)
    assert run["answers_kept_for_sending"] == 2
    assert [(one["run_id"], one["answer"], one["who"]) for one in values["questions"]] == [
        ("done", "approved", "ana"), ("no", "refused", "ben"), ("late", "", ""), ("old", "", ""),
    ]  # fmt: skip
    assert values["questions"][1]["why"] == "not this year"
    (refusal,) = values["refusals"]
    assert (refusal["count"], refusal["code"]) == (2, "policy")
    rows.close()


def test_everybody_can_read_the_page_and_it_loads_nothing(made: Path):
    """A server's words are text, and the page shows what the JSON has."""
    text = (made / "p.html").read_text()
    assert faults(text) == []
    assert "<b>no</b>" not in text
    assert "&lt;b&gt;no&lt;/b&gt;\\x1b[2J run evil: approved" in text
    assert "\x1b" not in text
    flat = re.sub(r"\s+", " ", text)
    for said in ("ε = 2.999", "refused", "not this year", "2 of 3", "33.4 %", "at most 2",
                 found(made)["newest_hash"]):  # fmt: skip
        assert said in flat.replace("&epsilon;", "ε").replace("&nbsp;", " "), said


def test_it_says_what_no_ledger_holds(made: Path):
    """Withdrawals, records, missing rows, other places."""
    text = (made / "p.html").read_text()
    assert found(made)["cannot_know"] == list(CANNOT_KNOW)
    for line in CANNOT_KNOW:
        assert re.sub("`(.*?)`", r"<code>\1</code>", line).replace("'", "&#39;") in text
    assert "Withdrawals" in text.split("8. What this page cannot know")[1]


def test_an_export_gives_the_same_page(made: Path, tmp_path: Path):
    """Nothing but the ledger was read: neither site.yaml's data nor a list."""
    lines, out = tmp_path / "north.jsonl", tmp_path / "p.html"
    assert main(["site", "ledger", "export", str(made / "north"), "--out", str(lines)]) == 0
    assert main(["site", "report", str(lines), "-o", str(out)]) == 0
    mine, other = found(made), found(tmp_path)
    assert {**mine, "made": "", "site": ""} == {**other, "made": "", "site": ""}
    assert (mine["site"], other["site"]) == ("north", "north.jsonl")


def values_of(path: Path, budget: Privacy, bodies: list[dict[str, Any]]) -> dict[str, Any]:
    times = iter(["2026-03-01T12:00:00+00:00", "2026-03-03T12:00:00+00:00",
                  "2026-03-02T12:00:00+00:00"])  # fmt: skip
    with Ledger(path / FILE, budget, clock=lambda: next(times)) as own:
        for number, body in enumerate(bodies):
            with own.rows.transaction():
                own.rows.append("reservation", f"run-{number}", body)
        rows = own.rows.all()
    return document("north", lifetime(rows), "2026-03-04T12:00:00+00:00")


def test_a_filter_promises_its_limit_and_a_share_is_what_is_used(tmp_path: Path, plan: PrivacyPlan):
    """Under `rdp` no epsilon of the runs so far exists; a clock that went back is said."""
    budget = Privacy(epsilon=3, epsilon_budget=9, delta=1e-6, n_public=64, rule="rdp")
    limit = Budget.of(budget).limit
    assert limit is not None
    body = {"epsilon": 3.0, "delta": 1e-6, "renyi": limit / 4, "plan": plan.to_json()}
    values = values_of(tmp_path, budget, [body, body])
    assert values["budget"]["epsilon_spent"] == 9
    assert [run["used_so_far"] for run in values["runs"]] == pytest.approx([0.25, 0.5])
    text = page(values)
    assert "a filter promises its limit" in text
    assert "<dd>50.0 %<small>of the divergence" in text
    assert values["clock_went_back"][0]["row"] == 3
    assert "the clock went back before row 3: 2026-03-03" in text
    assert faults(text) == []


def test_runs_that_rely_on_others_are_counted_at_their_worst(tmp_path: Path, plan: PrivacyPlan):
    """The larger epsilon stands on the first page."""
    shared = replace(plan, colluders=1, epsilon_few_collude=1.0, epsilon_all_collude=7.0)
    bodies = [{"epsilon": 1.0, "delta": 1e-7, "plan": one.to_json()} for one in (shared, plan)]
    budget = Privacy(epsilon=3, epsilon_budget=9, delta=1e-6, n_public=64)
    text = page(values_of(tmp_path, budget, bodies))
    assert "1 of these runs relies on other sites" in text
    assert "all runs together have epsilon 9.9" in text.replace("\n", " ")


def test_a_site_without_a_run_has_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Nothing was charged, and nothing left."""
    privacy = Privacy(epsilon=3, epsilon_budget=9, delta=1e-6, n_public=64)
    Ledger(tmp_path / FILE, privacy).close()
    assert main(["site", "report", str(tmp_path), "-o", str(tmp_path / "p.html")]) == 0
    text = (tmp_path / "p.html").read_text()
    assert "No run was admitted: nothing was charged" in text
    assert faults(text) == []
    assert main(["site", "report", str(tmp_path), "-o", str(tmp_path / "p.pdf")]) == 1
    assert "must end in .html" in capsys.readouterr().err


def test_a_report_that_the_guard_has_confirmed_is_told(made: Path, tmp_path: Path):
    """Its digest says which report that was."""
    shutil.copytree(made / "north" / "state", tmp_path / "state")
    with Ledger(tmp_path / "state" / FILE, PRIVACY) as own:
        own.reports.keep("done", "ab" * 32)
        life = lifetime(own.rows.all())
    (run,) = (values := document("north", life, "2026-03-04T12:00:00+00:00"))["runs"]
    assert run["reports_confirmed"] == [{"time": life.rows[-1].time, "sha256": "ab" * 32}]
    text = page(values)
    assert "ab" * 32 in text
    assert faults(text) == []


def test_every_kind_of_row_is_told():
    """A new kind that the guard writes has to get a place on the page."""
    written = set()
    for path in (ROOT / "client").rglob("*.py"):
        written |= set(re.findall(r'\.append\(\s*"([a-z-]+)"', path.read_text()))
    assert written == KINDS


def test_a_run_that_counts_records_is_told_apart_and_is_done(tmp_path: Path, plan: PrivacyPlan):
    """It has no round, so that none is left; its counts are of records, not of a model's scores."""
    counting = replace(plan, phases=(replace(plan.phases[0], name=STATISTICS, rounds=0),))
    assert counting.rounds == 0
    body = {"epsilon": 1.0, "delta": 1e-7, "plan": counting.to_json()}
    with Ledger(tmp_path / FILE, Privacy(epsilon=3, delta=1e-6, n_public=64)) as own:
        with own.rows.transaction():
            own.rows.append("reservation", "count-1", body)
        assert lifetime(own.rows.all()).current is not None
        own.measurements.start("count-1", "key")
        life = lifetime(own.rows.all())
    assert life.current is None
    (run,) = document("north", life, "2026-03-04T12:00:00+00:00")["runs"]
    assert (run["model_measured"], run["records_counted"]) == (None, life.rows[-1].time)
