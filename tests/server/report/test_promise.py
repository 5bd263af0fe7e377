"""The report says in full what is promised, by whom, and what nobody has stated."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.privacy import noise
from client.privacy.noise import SecureNoise, SeededNoise
from medformer.errors import MedFormerError
from server.report.about import EXAMPLE, About, about_schema, load_about, stated
from server.report.build import build
from server.report.files import ReportError
from server.report.html import STATEMENTS, render
from server.report.promise import promise_schema
from server.report.template import TEMPLATE
from server.report.write import state, write_report
from tests.server.report.test_report import SCHEDULE, change, page_of, text_of, write, write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def built(folder: Path, simulation: bool = True) -> dict[str, Any]:
    return build(folder, simulation=simulation, generated_at="2026-01-01T00:00:00+00:00")


def test_the_promise_follows_from_schedule_receipts_and_noise(folder: Path):
    """Post-processing is the schedule's, and the key of the noise that of the engine."""
    found = built(folder)["promise"]
    assert found["post_processing"]["average_last"] == SCHEDULE.average_last
    assert found["post_processing"]["measured"] is False
    assert found["randomness"]["key"] == "seed"
    assert found["max_colluders"] is None
    shared = {"honest": 2}
    change(folder, "receipts", lambda r: [
        (one.update(colluders=1), [p.update(shared) for p in one["phases"]]) for one in r.values()
    ])  # fmt: skip
    assert built(folder)["promise"]["max_colluders"] == 1


def test_the_randomness_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch):
    """Both sources draw from ChaCha20, and only the deployment's key is of the operating system."""
    words = promise_schema()["properties"]["randomness"]["properties"]
    assert words["stream"]["enum"] == ["chacha20"]
    drawn: list[str] = []
    cipher = noise.Cipher

    def watched(algorithm: Any, mode: None) -> Any:
        drawn.append(algorithm.name.lower())
        return cipher(algorithm, mode=mode)

    monkeypatch.setattr(noise, "Cipher", watched)
    assert SecureNoise().words(2).tolist() != SecureNoise().words(2).tolist()
    assert SeededNoise(1).words(2).tolist() == SeededNoise(1).words(2).tolist()
    assert drawn == 4 * ["chacha20"]
    monkeypatch.setattr(noise.secrets, "token_bytes", lambda size: bytes(size))
    assert SecureNoise().words(2).tolist() == SecureNoise().words(2).tolist()


def test_the_page_says_the_promise_in_full(folder: Path):
    """Variant, neighbours, trust, data, post-processing and randomness, in words."""
    write_report(folder)
    shown = text_of(folder)
    for words in (
        "(ε, δ)-differential privacy, also called approximate",
        "ε and δ are for all of it together",
        "may work together against a record; ε holds against them",
        "at each site its staff, its machine, and the guard, the only program that reads records",
        "static: the records of each site at the time of the run",
        "a key from the run's seed, which is not secret",
        "averages the models of the last 30 % of a phase's rounds",
    ):
        assert words in shown, words


def test_what_nobody_has_stated_is_seen(folder: Path):
    """A gap is shown as a gap, and a statement as the word of the coordinator."""
    write_report(folder)
    every = len(About.model_fields) - 2
    assert text_of(folder).count("not stated") == every
    assert "why this epsilon the coordinator's word not stated" in text_of(folder)
    state(folder, About(purpose="Study 17", controllers=("North", "South")))
    report = write_report(folder)
    assert report["about"] == {"purpose": "Study 17", "controllers": ["North", "South"]}
    shown = text_of(folder)
    assert "purpose of the processing Study 17" in shown
    assert "controllers North, South" in shown
    assert shown.count("not stated") == every - 2
    assert "nothing in this report proves it" in shown


def test_every_statement_has_a_place_on_the_page():
    """All but the authors of a registry's record."""
    shown = re.findall(r'(?:said|statement)\("(\w+)"\)', TEMPLATE)
    shown += re.findall(r'"(\w+)"', re.search(r"for name in \((.*?)\)", TEMPLATE)[1])
    assert sorted([*shown, *STATEMENTS]) == sorted(
        set(About.model_fields) - {"authors", "language"}
    )
    assert set(about_schema()["properties"]) == set(About.model_fields)
    assert all(field["description"] for field in about_schema()["properties"].values())


def test_statements_are_read_once_and_shown_as_they_are(folder: Path, tmp_path: Path):
    """The example is complete; markup in it stays text; lines stay lines."""
    file = tmp_path / "about.yaml"
    file.write_text(EXAMPLE)
    about = load_about(file)
    assert set(stated(about)) == set(About.model_fields) - {"sources", "language"}
    state(folder, about.model_copy(update={"purpose": "<script>1</script>"}))
    write_report(folder)
    assert "<script" not in page_of(folder)
    assert "&lt;script&gt;1" in page_of(folder)
    file.write_text("porpoise: x\n")
    with pytest.raises(MedFormerError, match="purpose"):
        load_about(file)


def test_the_example_of_the_page_on_reports_is_understood():
    """It is a part of consortium.yaml or run.yaml."""
    page = (Path(__file__).parents[3] / "docs" / "howto" / "report.md").read_text()
    (block,) = re.findall(r"```yaml\n(about:.*?)```", page, re.DOTALL)
    assert len(stated(About.model_validate(yaml.safe_load(block)["about"]))) > 5


def test_damaged_statements_are_named(folder: Path):
    """The report is not made without them, and not with half of them."""
    write(folder, "about", {"purpose": 7})
    with pytest.raises(ReportError, match=r"about\.json: `purpose`"):
        write_report(folder)


def test_a_report_of_an_earlier_version_is_still_drawn(folder: Path):
    """It has neither promise nor statements."""
    report = write_report(folder)
    old = {k: v for k, v in report.items() if k not in ("promise", "about")}
    assert "of a version that did not state it" in render(old)
    assert json.dumps(old)
