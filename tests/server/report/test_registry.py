"""A deployment's report becomes a draft for the OpenDP registry, complete or not at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.report.about import EXAMPLE, REGISTRY_NEEDS, About, load_about
from server.report.files import ReportError
from server.report.registry.form import check_form
from server.report.registry.record import record_of, registry_record
from server.report.seal import seal
from server.report.write import state, write_report
from simulations.cli import main
from tests.server.report.test_report import as_deployment, write_run


@pytest.fixture
def about(tmp_path: Path) -> About:
    (tmp_path / "about.yaml").write_text(EXAMPLE)
    return load_about(tmp_path / "about.yaml")


@pytest.fixture
def report(tmp_path: Path) -> dict[str, Any]:
    folder = as_deployment(write_run(tmp_path / "run"))
    return write_report(folder, simulation=False)


def test_a_record_is_complete_and_has_the_reports_numbers(report: dict[str, Any], about: About):
    """Rounded up, the largest of all sites."""
    text = registry_record(report, about)
    record = yaml.safe_load(text)
    check_form(record)
    loss = record["deployment"]["privacy_loss"]
    sites = [site for site in report["sites"] if site["participated"]]
    assert loss["privacy_parameters"]["epsilon"] >= max(site["epsilon"] for site in sites)
    assert loss["privacy_parameters"]["epsilon"] < max(site["epsilon"] for site in sites) + 0.01
    assert loss["privacy_parameters"]["delta"] == max(site["delta"] for site in sites)
    for site in sites:
        assert f"- {site['name']}: epsilon" in loss["privacy_parameters_details"]
    assert "epsilons of these hospitals add up" in loss["privacy_unit_details"]
    domain = record["deployment"]["dp_variant"]
    assert "timing and size of answers" in domain["unprotected_quantities"]
    assert "west" not in domain["data_domain"]
    mechanisms = record["deployment"]["implementation"]["mechanisms"]
    assert "noise multiplier" in mechanisms
    assert report["source_hash"] in mechanisms
    assert record["url_slug"] == "a-shared-model-for-chest-x-rays-university-hospital-north-2026"


def test_the_text_is_quoted_as_the_registry_asks(report: dict[str, Any], about: About):
    """No folded text, which would lose the line breaks of Markdown."""
    styles = {token.style for token in yaml.scan(registry_record(report, about))
              if isinstance(token, yaml.ScalarToken)}  # fmt: skip
    assert styles <= {None, "|", "'", '"'}


def test_shared_noise_and_a_measurement_are_told(report: dict[str, Any], about: About):
    """Who has to be honest is a part of the promise."""
    for site in report["sites"]:
        site["colluders"] = 1
        for phase in site["phases"]:
            phase["honest"] = 3
    deployment = record_of(report | {"masked": True, "measurement": {}}, about)["deployment"]
    assert "no more hospitals collude with the coordinator than 1" in str(deployment)
    assert "all other hospitals" not in deployment["deployment_model"]["actors"]
    assert (
        "m images at m hospitals count as m at one"
        in deployment["privacy_loss"]["privacy_unit_details"]
    )


def test_a_simulation_is_no_deployment(report: dict[str, Any], about: About):
    """Its noise protects nobody."""
    with pytest.raises(ReportError, match="this run is a simulation"):
        registry_record(report | {"simulation": True}, about)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("deployment", "basic", "data_product_type"), "Model"),
        (("deployment", "privacy_loss", "privacy_parameters", "epsilon"), 0),
        (("deployment", "basic", "name"), ""),
        (("status",), "Approved"),
        (("surprise",), 1),
    ],
)
def test_what_the_registry_would_refuse_is_refused_here(
    report: dict[str, Any], about: About, path: tuple[str, ...], value: object
):
    """Before anybody sends it."""
    record = record_of(report, about)
    place = record
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(ReportError, match="the record would be wrong at"):
        check_form(record)


def test_the_command_shows_what_is_missing_and_writes_the_record(
    tmp_path: Path, report: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    """Without the facts of people there is no record; the report stays as it is."""
    run, out, about = tmp_path / "run", tmp_path / "record.yaml", tmp_path / "about.yaml"
    before = (run / "report.json").read_bytes()
    assert main(["report", str(run), "--registry", str(out)]) != 0
    said = capsys.readouterr().err
    assert f"nobody has stated: {', '.join(REGISTRY_NEEDS)}" in said
    assert "curators: [University hospital north" in said
    about.write_text(EXAMPLE.replace("region:", "regoin:"))
    assert main(["report", str(run), "--registry", str(out), "--about", str(about)]) != 0
    assert "regoin" in capsys.readouterr().err
    assert not out.exists()
    about.write_text(EXAMPLE)
    assert main(["report", str(run), "--registry", str(out), "--about", str(about)]) == 0
    check_form(yaml.safe_load(out.read_text()))
    assert "nobody has signed the report" in capsys.readouterr().err
    assert (run / "report.json").read_bytes() == before
    assert json.loads(before)["simulation"] is False


def test_a_report_that_has_the_statements_needs_no_file(
    tmp_path: Path, report: dict[str, Any], about: About
):
    """Statements from consortium.yaml or run.yaml are enough."""
    run, out = tmp_path / "run", tmp_path / "record.yaml"
    state(run, about)
    write_report(run, simulation=False)
    assert main(["report", str(run), "--registry", str(out)]) == 0
    assert (
        "triage of chest" in yaml.safe_load(out.read_text())["deployment"]["basic"]["intended_use"]
    )


@pytest.mark.parametrize(
    ("edit", "sealed", "said"),
    [
        (lambda r: r["sites"][0].update(epsilon=0.1), False, "changed after it was made"),
        (lambda r: r["sites"][0].update(epsilon=-1), True, "epsilon: -1 is less than"),
        (lambda r: r.update(schema_version=1), True, "schema_version"),
        (lambda r: r["seal"].update(signature="00", identity="x"), False, "does not fit"),
    ],
)
def test_no_record_is_written_of_a_report_that_does_not_hold(
    tmp_path: Path,
    report: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    edit: Callable[[dict[str, Any]], object],
    sealed: bool,
    said: str,
):
    """Its schema and its seal are looked at first."""
    run, out, about = tmp_path / "run", tmp_path / "record.yaml", tmp_path / "about.yaml"
    about.write_text(EXAMPLE)
    edit(report)
    (run / "report.json").write_text(json.dumps(seal(report) if sealed else report))
    assert main(["report", str(run), "--registry", str(out), "--about", str(about)]) != 0
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_no_option_is_without_effect(
    tmp_path: Path, report: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    """--about alone changes the report; --sign-with beside --registry is refused."""
    run, out, about = tmp_path / "run", tmp_path / "record.yaml", tmp_path / "about.yaml"
    about.write_text("purpose: Study 2026-17.\n")
    assert main(["report", str(run), "--about", str(about)]) == 0
    assert json.loads((run / "report.json").read_text())["about"] == {"purpose": "Study 2026-17."}
    command = ["report", str(run), "--registry", str(out), "--sign-with", "key"]
    assert main([*command, "--about", str(about)]) != 0
    assert "give them in two commands" in capsys.readouterr().err
    assert not out.exists()


def test_a_patient_at_several_hospitals_is_told_the_truth(report: dict[str, Any], about: About):
    """Hospitals that share the noise of training still add up what their counts cost."""
    report["unit"] = "patient"
    for site in report["sites"]:
        site["colluders"] = 1
        for phase in site["phases"]:
            phase["honest"] = 3
    count = {**report["sites"][0]["phases"][0], "name": "evaluation", "honest": 1}
    shared = record_of(report, about)["deployment"]["privacy_loss"]["privacy_unit_details"]
    assert "A patient with records at several hospitals" in shared
    assert "adds up over these hospitals" not in shared
    report["sites"][0]["phases"].append(count)
    counted = record_of(report, about)["deployment"]["privacy_loss"]["privacy_unit_details"]
    assert "The cost of evaluation adds up over these hospitals" in counted


@pytest.mark.parametrize(("last", "said"), [(0.25, "the last 25 % of"), (0, "send.")])
def test_the_average_of_the_last_rounds_is_that_of_the_schedule(
    report: dict[str, Any], about: About, last: float, said: str
):
    """Without one, none is claimed."""
    schedule = json.loads(report["schedule_text"]) | {"average_last": last}
    record = record_of(report | {"schedule_text": json.dumps(schedule)}, about)
    assert said in record["deployment"]["accounting"]["post_processing"]
