"""Runs that count records and train nothing: what leaves, what the report says, what it costs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.data.load import load
from client.guard import Guard
from client.measuring import request
from client.policy import Policy
from client.site import Site, load_site
from server.protocol import Schedule
from server.protocol.record_counts import SPLITS, RecordCounts, Statistics
from server.report.build import build
from server.report.html import render
from server.report.write import write_report
from server.run.coordinate import Run
from server.run.errors import FederationError
from server.run.federation import Federation, PublicSite
from server.run.journal import outcome
from simulations.verification.ledger import verify_ledger
from simulations.verification.report import verify_report
from tests.conftest import CONFIG, ledger_rows
from tests.integration.test_coordinate import HarmedFleet, untouched

EPSILON = 2.0
COUNT = 200


@pytest.fixture
def execute(open_guard: Callable[..., Guard], site: Site, tmp_path: Path):
    """Ask two sites for statistics, in tmp_path/run."""
    data = {"source": "phantoms", "kind": "chest", "records": COUNT}
    sites = [
        Site.model_validate({**site.model_dump(), "name": name, "data": {**data, "seed": seed}})
        for seed, name in enumerate(("north", "south"))
    ]
    folder = tmp_path / "run"
    folder.mkdir()

    def execute_(epsilon: float = EPSILON, policy: Policy | None = None) -> Run:
        federation = Federation(
            name="survey",
            model=CONFIG,
            schedule=Schedule(phases=(), spare_rounds=0, statistics=Statistics(epsilon=epsilon)),
            pretraining=None,
            sites=tuple(PublicSite(name=s.name, domain=s.domain) for s in sites),
        )
        (folder / "federation.json").write_text(federation.model_dump_json())
        guards = {s.name: replace(open_guard(s), policy=policy) for s in sites}
        run = Run(HarmedFleet(guards, untouched, dict), federation, folder, retry_pause=0.01)
        with outcome(folder):
            run.execute(lambda: pytest.fail("nothing is trained"))
        return run

    return execute_


def wrong(path: Path) -> list[str]:
    return [found.text for found in verify_report(path) if found.verdict == "WRONG"]


def test_counts_leave_with_noise_and_are_reported(execute, tmp_path: Path):
    """A consortium reads how many records there are, of which class, and how bright they are."""
    execute()
    found = write_report(tmp_path / "run", simulation=False)
    counts = found["statistics"]["counts"]
    assert set(counts) == {"north", "south"}
    north = counts["north"]
    exact = [load(load_site(tmp_path / "north" / "site.yaml"), split) for split in SPLITS]
    near = 5 * north["std"]
    (task,) = north["tasks"]
    for i, records in enumerate(exact):
        assert north["records"][i] == pytest.approx(len(records), abs=near)
        for label, row in enumerate(task["rows"]):
            true = int((records.joined(task["task"]) == label).sum())
            assert row[i] == pytest.approx(true, abs=near)
    total = sum(len(records) for records in exact)
    assert north["sides"][0] == pytest.approx(total, abs=near)
    assert sum(north["greys"]) == pytest.approx(total, abs=4 * near)
    # Whole numbers would be exact ones.
    assert any(count != round(count) for count in north["records"])
    site = found["sites"][0]
    assert [p["name"] for p in site["phases"]] == ["statistics"]
    assert EPSILON - 0.01 < site["epsilon"] <= EPSILON
    assert (site["steps_trained"], site["model_file"]) == (1, None)
    page = " ".join(render(found).split())
    assert "counted their records once; nothing was trained" in page
    assert "Statistics of the records, with noise" in page
    assert f">{max(0, round(north['records'][0]))}<" in page
    assert wrong(tmp_path / "run" / "report.json") == []


def test_the_ledger_of_a_site_that_was_counted_is_right(execute, tmp_path: Path):
    """One query is what was paid for, and no more."""
    execute()
    found = verify_ledger(tmp_path / "north")
    assert [one.text for one in found if one.verdict == "WRONG"] == []
    assert "follows from 1 steps" in " ".join(one.text for one in found)


def test_the_same_question_gets_the_same_answer_once(execute, tmp_path: Path):
    """Submitted again, the run is charged once, and no second draw leaves."""
    execute()
    first = (tmp_path / "run" / "measurements.json").read_text()
    (tmp_path / "run" / "measurements.json").unlink()
    execute()
    assert (tmp_path / "run" / "measurements.json").read_text() == first
    rows = [row["kind"] for row in ledger_rows(tmp_path / "south")]
    assert (rows.count("reservation"), rows.count("measurement")) == (1, 1)


def test_a_hospital_that_has_not_agreed_refuses(execute, tmp_path: Path):
    """Without a line in policy.yaml no number about its records leaves, whatever its noise."""
    rules = {"objectives": ["supervised"], "accept_unit_image": True, "approval": "automatic"}
    rules |= {"max_epsilon_per_run": 8.0, "min_noise_multiplier": 0.5, "max_rounds": 10}
    with pytest.raises(FederationError, match="set max_epsilon_statistics in"):
        execute(policy=Policy(**rules))
    with pytest.raises(FederationError, match="`statistics`, 2, is beyond this site's policy"):
        execute(policy=Policy(**rules, max_epsilon_statistics=1.0))
    execute(policy=Policy(**rules, max_epsilon_statistics=2.0))


def test_no_more_is_spent_than_a_run_may_cost(execute, site: Site):
    """The site's own epsilon is the limit of any run."""
    with pytest.raises(FederationError, match="that this site spends on a run"):
        execute(epsilon=site.privacy.epsilon + 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"std": 0.5}, "state noise of"),
        ({"images": (1.0,) * 5}, "are not of the tasks for which it has added noise"),
    ],
)
def test_a_site_cannot_state_other_counts_than_it_has_admitted(
    execute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object],
    said: str,
):
    """Whatever its guard signs: intervals rest on the noise."""
    plain = request.record_counts

    def hostile(site: Site, *rest: Any) -> RecordCounts:
        counts = plain(site, *rest)
        return counts.model_copy(update=change) if site.name == "north" else counts

    monkeypatch.setattr(request, "record_counts", hostile)
    execute()
    found = build(tmp_path / "run", simulation=False, generated_at="now")
    assert set(found["statistics"]["counts"]) == {"south"}
    assert said in found["events"][0]["text"]


def test_a_changed_count_is_found(execute, tmp_path: Path):
    """The guard has signed the digest of what it sent."""
    execute()
    path = tmp_path / "run" / "report.json"
    report = {**build(tmp_path / "run", simulation=False, generated_at="now"), "files": {}}
    report["statistics"]["counts"]["north"]["records"][0] += 1
    from server.report.seal import seal

    path.write_text(json.dumps(seal(report)))
    assert wrong(path) == ["north: its counts are not those that its guard has signed"]
