"""The report: true to its sources, valid, readable, safe."""

import json
from pathlib import Path

import jsonschema
import pytest

from client.privacy import release
from client.privacy.plan import solve
from client.site import Privacy
from server.errors import RunInterrupted
from server.federation import Federation, PublicSite
from server.protocol import Phase, Schedule
from server.report.build import VOLATILE, ReportError
from server.report.schema import SCHEMA
from server.report.write import write_report
from tests.conftest import CHEST, CONFIG

SCHEDULE = Schedule(
    phases=(Phase(name="supervised", rounds=2, objectives={"supervised": 1}),), spare_rounds=1
)
PLAN = solve(SCHEDULE, Privacy(epsilon=5, n_public=2000))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run of two sites; the second refused."""
    names = ["north", "south"]
    federation = Federation(
        name="test", model=CONFIG, schedule=SCHEDULE, pretraining=None,
        sites=tuple(PublicSite(name=n, domain=CHEST) for n in names),
    )  # fmt: skip
    (tmp_path / "federation.json").write_text(federation.model_dump_json())
    files = {
        "run": {"run_id": "abc", "source_hash": "0" * 64},
        "receipts": {"north": json.loads(PLAN.to_json())},
        "release": release.declaration(),
        "site_facts": {
            "north": {"epsilon_lifetime": 4.9, "delta_lifetime": 1e-5, "epsilon_budget": 10.0,
                      "delta_budget": 2e-5, "delta_warning": None, "n_public": 2000},
        },
        "summary": {
            "run_id": "abc", "rounds": 2,
            "excluded": {"south": "policy: <script>alert(1)</script>"},
            "events": [{"event": "refusal", "round": 0, "site": "south", "text": "policy: no"}],
            "results": [{"site": "north", "task": "t", "metric": m, "split": "test", "value": 0.75}
                        for m in ("auc", "accuracy")],
        },
        "baselines": [{"site": "north", "task": "t", "metric": "auc", "split": "test",
                       "value": 0.625, "model": "local-dp"}],
    }  # fmt: skip
    for name, value in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    rows = [
        {"event": "round", "round": n, "rounds": 2, "phase": "supervised", "site": "north",
         "attempt": int(n == 2), "exact_loss": 0.7, "epsilon_progress": 1.0, "seconds": 0.5}
        for n in (1, 2)
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_the_numbers_are_those_of_the_receipt_and_the_ledger(folder: Path):
    """Epsilon of the admitted schedule, every phase with its parameters, the lifetime total."""
    report = write_report(folder)
    site = report["sites"][0]
    assert site["epsilon"] == PLAN.epsilon
    assert site["epsilon_lifetime"] == 4.9
    assert [p["name"] for p in site["phases"]] == ["supervised", "spare"]
    for phase in site["phases"]:
        assert {"sample_rate", "noise_multiplier", "steps", "max_grad_norm"} <= set(phase)
    assert (site["steps"], site["steps_trained"]) == (3, 3)
    assert json.loads((folder / "report.json").read_text()) == report
    jsonschema.validate(report, json.loads((folder / "report.schema.json").read_text()))


def test_a_report_that_lacks_a_field_is_not_valid(folder: Path):
    """The schema is no decoration."""
    report = write_report(folder)
    del report["sites"][0]["phases"][0]["noise_multiplier"]
    with pytest.raises(jsonschema.ValidationError, match="noise_multiplier"):
        jsonschema.validate(report, SCHEMA)


def test_the_page_tells_a_data_protection_officer_everything(folder: Path):
    """Unit, sum over sites, simulation, each released item, each gap, both results."""
    write_report(folder)
    page = (folder / "report.html").read_text()
    for text in ("one image", "sum of those sites", "This is a simulation", "0.750", "0.625",
                 f"{PLAN.epsilon:.3f}", "did not take part", *release.NOT_COVERED[:4]):  # fmt: skip
        assert text.replace("'", "&#39;") in page, text
    for item in release.ITEMS:
        assert item.name in page
    for loading in ('src="http', 'href="http', "url(http", "@import", "<link", "<img"):
        assert loading not in page
    assert "<script" not in page


def test_a_deployment_shows_no_lifetime_total_and_no_exact_item(folder: Path):
    """The total stays at the site."""
    (folder / "site_facts.json").unlink()
    report = write_report(folder, simulation=False)
    assert report["sites"][0]["epsilon_lifetime"] is None
    assert report["noise_source"] == "secure"
    assert not [i for i in report["sites"][0]["released"] if "exact" in i["name"]]
    assert "kept at the site" in (folder / "report.html").read_text()


def test_two_builds_differ_in_volatile_fields_only(folder: Path):
    """So that two runs with one seed can be compared."""
    one, two = write_report(folder), write_report(folder)
    for field in VOLATILE:
        del one[field], two[field]
    assert one == two


def test_an_unfinished_run_is_named(folder: Path):
    """With what to do."""
    (folder / "summary.json").unlink()
    with pytest.raises(ReportError, match=r"no finished run.*--resume"):
        write_report(folder)
    assert issubclass(RunInterrupted, Exception)
