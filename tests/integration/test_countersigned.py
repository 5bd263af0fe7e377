"""Sites compare a finished run's report with their ledgers, and sign it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from client.guard import Guard
from client.site import Site
from server.protocol import Answer, Confirm, ConfirmAnswer, Refusal, Request, Schedule
from server.report.build import build
from server.report.countersign import collect_countersignatures
from server.report.seal import seal, sign_report
from server.report.write import check, write_report
from server.run.coordinate import Run
from server.run.federation import Federation, PublicSite
from server.run.fleet import Lost
from server.run.pretraining import initial_shared
from simulations.verification.findings import Finding
from simulations.verification.report import verify_report
from tests.conftest import CONFIG, ledger_rows, train
from tests.integration.test_coordinate import Harm, HarmedFleet, untouched


def without_exact_values(folder: Path) -> None:
    """Leave what a deployment has: guards of tests send exact losses, as in simulations."""
    file = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**row, "exact_loss": None}) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def finish(
    open_guard: Callable[..., Guard], site: Site, schedule: Schedule, folder: Path
) -> Callable[..., list[Finding]]:
    """Train a run of two sites, ask them to sign its report, and verify it."""

    def finish_(harm: Harm = untouched, edit: Callable[[dict], object] = dict) -> list[Finding]:
        sites = [site, site.model_copy(update={"name": "south"})]
        federation = Federation(
            name="test",
            model=CONFIG,
            schedule=schedule,
            pretraining=None,
            sites=tuple(PublicSite(name=s.name, domain=s.domain) for s in sites),
        )
        folder.mkdir(exist_ok=True)
        (folder / "federation.json").write_text(federation.model_dump_json())
        fleet = HarmedFleet({s.name: open_guard(s) for s in sites}, harm, dict)
        Run(fleet, federation, folder, retry_pause=0.01).execute(lambda: initial_shared(CONFIG, 0))
        without_exact_values(folder)
        report = {**build(folder, simulation=False, generated_at="now"), "files": {}}
        edit(report)
        (folder / "report.json").write_text(json.dumps(seal(report)))
        collect_countersignatures(fleet, folder)
        return verify_report(folder / "report.json")

    return finish_


def texts(found: list[Finding], verdict: str) -> str:
    return " ".join(one.text for one in found if one.verdict == verdict)


def test_sites_sign_a_report_that_says_what_their_ledgers_say(finish, folder: Path, tmp_path: Path):
    """Their signatures are in the seal, beside that of the coordinator, and on their ledgers."""
    found = finish()
    assert texts(found, "WRONG") == ""
    for name in ("north", "south"):
        assert f"{name}: has countersigned the report" in texts(found, "ok")
        row = ledger_rows(tmp_path / name)[-1]
        assert row["kind"] == "report"
        report = json.loads((folder / "report.json").read_text())
        assert row["sha256"] == report["seal"]["sha256"]
    check(report)
    sign_report(folder, "ssh-ed25519 key", lambda statement: b"s" * 64)
    assert set(json.loads((folder / "report.json").read_text())["seal"]["sites"]) == {
        "north",
        "south",
    }


def test_a_site_does_not_sign_a_report_that_hides_what_it_did(finish):
    """A voucher from before the last round: the ledger has rows that the report does not know."""
    early: dict[str, str] = {}

    def keep(name: str, request: Request, answer: Answer) -> Answer | Lost:
        signed = getattr(answer, "signed", "")
        if name == "north" and signed:
            early.setdefault("signed", signed)
            early.setdefault("row", answer.ledger_hash)
        return answer

    def hide(report: dict) -> None:
        parts = json.loads(early["signed"])
        report["vouchers"]["north"].update(**parts, ledger_hash=early["row"])
        report["ledger_hashes"]["north"] = early["row"]

    found = finish(keep, hide)
    assert "north: has not countersigned the report" in texts(found, "unknown")
    assert "south: has countersigned the report" in texts(found, "ok")


def test_a_site_that_is_away_is_named_and_the_others_sign(finish):
    """The run is over: nothing waits for it."""

    def away(name: str, request: Request, answer: Answer) -> Answer | Lost:
        return Lost("its node is not there") if isinstance(request, Confirm) else answer

    found = finish(away)
    assert texts(found, "WRONG") == ""
    assert "north: has not countersigned the report" in texts(found, "unknown")


@pytest.mark.parametrize("spoil", ["signature", "row", "nothing", "kind"])
def test_a_signature_that_does_not_fit_is_not_kept(finish, folder: Path, spoil: str):
    """Whoever reads the report sees that the site has not signed it."""
    spoiled: dict[str, Callable[[ConfirmAnswer], Answer]] = {
        "signature": lambda a: replace(a, signed=a.signed.replace('ure":"', 'ure":"0')),
        "row": lambda a: replace(a, ledger_hash="0" * 64),
        "nothing": lambda a: replace(a, signed=""),
        "kind": lambda a: Refusal("bad-request", "no\nreason", a.site),
    }

    def harm(name: str, request: Request, answer: Answer) -> Answer | Lost:
        if isinstance(answer, ConfirmAnswer) and name == "north":
            return spoiled[spoil](answer)
        return answer

    finish(harm)
    report = json.loads((folder / "report.json").read_text())
    assert set(report["seal"]["sites"]) == {"south"}


def test_a_forged_signature_is_found(finish, folder: Path):
    """A signature of another site is none of this one."""
    finish()
    path = folder / "report.json"
    report = json.loads(path.read_text())
    sites = report["seal"]["sites"]
    sites["north"], sites["south"] = sites["south"], sites["north"]
    path.write_text(json.dumps(report))
    assert "its signature under the report is not that of its guard" in texts(
        verify_report(path), "WRONG"
    )


def test_who_has_countersigned_takes_part_in_no_more_of_the_run(
    finish, open_guard: Callable[..., Guard], site: Site, schedule: Schedule, folder: Path
):
    """Otherwise a report from the middle of a run would hide the rounds that follow."""
    finish()
    run_id = json.loads((folder / "run.json").read_text())["run_id"]
    answer = open_guard(site).handle(train(schedule, 3, 1, run_id=run_id))
    assert isinstance(answer, Refusal)
    assert "it takes part in no more of it" in answer.reason


def test_signatures_that_were_cut_off_are_missed(finish, folder: Path):
    """They stand outside of the checksum, because they are over it."""
    finish()
    report = json.loads((folder / "report.json").read_text())
    del report["seal"]["sites"]
    (folder / "report.json").write_text(json.dumps(report))
    text = texts(verify_report(folder / "report.json"), "unknown")
    assert "north: the report has no countersignatures, or lost them" in text


def test_a_report_that_is_made_again_keeps_its_signatures_if_nothing_has_changed(
    finish, folder: Path
):
    """Its time is not worth the hospitals' signatures; another content is."""
    finish()
    write_report(folder, simulation=False)
    path = folder / "report.json"
    seal_of = {"sha256": "", "identity": "key", "signature": "0" * 128, "sites": {}}
    report = json.loads(path.read_text())
    path.write_text(json.dumps({**report, "seal": {**seal_of, "sha256": report["seal"]["sha256"]}}))
    monkey = pytest.MonkeyPatch()
    monkey.setattr("server.report.write.signed_by", lambda report: "key")
    again = write_report(folder, simulation=False)
    assert (again["seal"]["identity"], again["generated_at"]) == ("key", report["generated_at"])
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "rounds": 1}))
    assert write_report(folder, simulation=False)["seal"]["identity"] == ""
    monkey.undo()


def test_a_hash_is_a_hash(finish, open_guard: Callable[..., Guard], site: Site, folder: Path):
    """Texts of the coordinator would fill the ledger."""

    def harm(name: str, request: Request, answer: Answer) -> Answer | Lost:
        if isinstance(request, Confirm):
            longer = replace(request, report="x" * 4_000)
            return open_guard(site.model_copy(update={"name": name})).handle(longer)
        return answer

    assert "north: has not countersigned" in texts(finish(harm), "unknown")


def test_a_site_signs_no_endless_row_of_reports(finish, tmp_path: Path, monkeypatch):
    """Each is a row of its ledger."""
    monkeypatch.setattr("client.ledger.reports.MAX_REPORTS", 1)
    assert "has countersigned" in texts(finish(), "ok")
    again = finish(edit=lambda report: report.update(generated_at="later"))
    assert "north: has not countersigned" in texts(again, "unknown")
    kinds = [row["kind"] for row in ledger_rows(tmp_path / "north")]
    assert kinds.count("report") == 1
