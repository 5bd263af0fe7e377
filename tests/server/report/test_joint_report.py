"""A consortium's report joins all runs: what each hospital has paid, as far as anybody can know."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from client.masking.identity import sign, vouch
from medformer.common.rounding import rounded_up
from server.consortium.hub import new_signer
from server.protocol.vouchers import Voucher, countersigned
from server.report.build import build
from server.report.files import ReportError
from server.report.joint.build import build_joint, together
from server.report.joint.page import FILE, PAGES, render_joint
from server.report.joint.write import write_joint
from server.report.seal import seal
from server.report.write import check
from simulations.cli import main
from simulations.verification.paths import verify
from tests.helpers.accessible import faults
from tests.server.report.test_german_report import ENGLISH, german
from tests.server.report.test_report import PLAN, SCHEDULE, as_deployment, change, write, write_run

TIME = "2026-01-0{}T00:00:00+00:00"


def voucher(keys: Path, site: str, run_id: str, receipt: str | None = None) -> Voucher:
    """Let the guard of a site sign a receipt."""
    own = Voucher(site, run_id, SCHEDULE.hash(), receipt or PLAN.to_json(), "a" * 64)
    (keys / site).mkdir(parents=True, exist_ok=True)
    return own.signed(vouch(keys / site, own))


def run_folder(folder: Path, keys: Path, run_id: str, day: int, sites: tuple[str, ...]) -> Path:
    """Write a deployment's run in which these sites have signed their receipts."""
    as_deployment(write_run(folder, run_id=run_id))
    change(folder, "run", lambda run: run.update(began_at=TIME.format(day)))
    vouchers = {site: voucher(keys, site, run_id) for site in sites}
    write(folder, "vouchers", {site: asdict(own) for site, own in vouchers.items()})
    write(folder, "ledgers", {site: "a" * 64 for site in sites})
    return folder


def report_of(folder: Path, *, simulation: bool = False) -> dict[str, Any]:
    """Write its report without a page, which takes most of the time."""
    report = build(folder, simulation=simulation, generated_at=TIME.format(9))
    report = seal(report | {"files": {}})
    check(report)
    write(folder, "report", report)
    return report


@pytest.fixture
def consortium(tmp_path: Path) -> Path:
    """Two finished runs, one that goes on, a simulation, and a report that was changed."""
    folder, keys = tmp_path / "lungs", tmp_path / "keys"
    (folder / "runs").mkdir(parents=True)
    first = run_folder(folder / "runs" / "first", keys, "run-1", 1, ("north", "south"))
    report = report_of(first)
    own = voucher(keys, "north", "run-1")
    statement = countersigned("north", "run-1", report["seal"]["sha256"], own.digest, "b" * 64)
    signature = json.loads(sign(keys / "north", statement))["signature"]
    report["seal"]["sites"] = {"north": {"ledger_hash": "b" * 64, "signature": signature}}
    write(first, "report", report)
    report_of(run_folder(folder / "runs" / "second", keys, "run-2", 2, ("north",)))
    run_folder(folder / "runs" / "third", keys, "run-3", 3, ("north", "south"))
    report_of(write_run(folder / "runs" / "rehearsal", run_id="sim"), simulation=True)
    changed = run_folder(folder / "runs" / "changed", keys, "run-4", 4, ("north",))
    write(changed, "report", report_of(changed) | {"rounds": 1})
    return folder


def joined(folder: Path) -> dict[str, Any]:
    return build_joint(folder, generated_at=TIME.format(9))


def test_all_runs_of_a_site_add_up_finished_or_not(consortium: Path):
    """A run without a report was charged in full, too; what does not hold is in no sum."""
    report = joined(consortium)
    north, south = report["sites"]
    assert [(c["run_id"], c["state"]) for c in north["costs"]] == [
        ("run-1", "countersigned"), ("run-2", "signed"), ("run-3", "signed"),
    ]  # fmt: skip
    assert [c["state"] for c in south["costs"]] == ["signed", "unsigned", "signed"]
    assert north["together"] == {
        "runs": 3, "epsilon": pytest.approx(3 * PLAN.epsilon), "delta": pytest.approx(3e-5),
        "epsilon_all_collude": pytest.approx(3 * PLAN.epsilon),
    }  # fmt: skip
    assert north["together"]["epsilon"] >= 3 * PLAN.epsilon * (1 - 1e-15)
    assert {one["folder"]: one["reason"] for one in report["left_out"]} == {
        "runs/rehearsal": "a simulation",
        "runs/changed": next(o["reason"] for o in report["left_out"] if "changed" in o["folder"]),
    }
    assert "changed after it was made" in str(report["left_out"])
    assert str(consortium) not in str(report["left_out"])
    assert [(e["run_id"], e["site"]) for e in report["refusals"]] == [
        ("run-1", "west"), ("run-2", "west"),
    ]  # fmt: skip


def test_a_copy_of_a_run_counts_once(consortium: Path):
    """The report that was made last is taken."""
    before = joined(consortium)["sites"]
    shutil.copytree(consortium / "runs" / "first", consortium / "backup")
    report = joined(consortium)
    assert report["sites"] == before
    assert "another copy of run run-1" in str(report["left_out"])


def test_the_larger_number_counts_where_signature_and_report_differ(consortium: Path):
    """A coordinator that shows less than was signed is found, and so is a receipt of another."""
    path = consortium / "runs" / "second" / "report.json"
    report = json.loads(path.read_text())
    report["sites"][0]["epsilon"] = 0.1
    path.write_text(json.dumps(seal(report)))
    cost = joined(consortium)["sites"][0]["costs"][1]
    assert (cost["state"], cost["epsilon"]) == ("wrong", PLAN.epsilon)


def test_images_and_patients_do_not_add_up(consortium: Path):
    """A site that has changed its unit of privacy has two sums."""

    def patients(receipts: dict[str, Any]) -> None:
        receipts["north"].update(unit="patient")

    change(consortium / "runs" / "third", "receipts", patients)
    (consortium / "runs" / "third" / "vouchers.json").unlink()
    sites = [(s["name"], s["unit"], s["together"]["runs"]) for s in joined(consortium)["sites"]]
    assert sites == [("north", "image", 2), ("north", "patient", 1), ("south", "image", 3)]


def test_a_second_key_is_said(consortium: Path, tmp_path: Path):
    """The hospital alone knows which of them is its own."""
    own = voucher(tmp_path / "others", "north", "run-3")
    change(consortium / "runs" / "third", "vouchers", lambda v: v.update(north=asdict(own)))
    report = joined(consortium)
    assert len(report["sites"][0]["guards"]) == 2
    assert "2 keys have signed for this site" in render_joint(report)


def test_the_page_says_what_the_sums_bound(consortium: Path):
    """An upper bound of these runs, a lower bound of the ledger; no site's text becomes markup."""
    report = joined(consortium)
    report["refusals"][0]["text"] = "<script>1</script>"
    for language in PAGES:
        page = render_joint(report, language)
        assert faults(page) == []
        assert "&lt;script&gt;1" in page
        assert (
            page.count(rounded_up(3 * PLAN.epsilon).replace(".", "," if language == "de" else "."))
            >= 2
        )
    english = " ".join(render_joint(report).split())
    assert "an upper bound of what these runs together reveal" in english
    assert "a lower bound of what the site's ledger holds" in english
    assert "3 runs are known here, 1 of them without a report" in english
    for text in german(render_joint(report, "de")):
        assert not ENGLISH.search(text), text


def test_the_command_signs_and_verify_checks(consortium: Path, capsys: pytest.CaptureFixture[str]):
    """With the consortium's key; a changed sum, cost or signature is found."""
    (consortium / "authority").mkdir()
    new_signer(consortium / "authority" / "bundle.key")
    assert main(["consortium", "report", str(consortium), "--lang", "de"]) == 0
    said = capsys.readouterr()
    assert said.out.strip().endswith(PAGES["de"])
    assert "left out: runs/rehearsal: a simulation" in said.err
    assert "not signed" not in said.err
    path = consortium / FILE
    text = path.read_text()
    assert main(["verify", str(path)]) == 0
    assert "north: 3 of 3 receipts are signed, and the sums are" in " ".join(
        capsys.readouterr().out.split()
    )
    edits: list[tuple[Callable[[dict[str, Any]], object], str]] = [
        (lambda r: r["sites"][0]["together"].update(epsilon=1.0), "sums are not those"),
        (lambda r: r["sites"][0]["costs"][0].update(epsilon=0.1), "not that of the signed receipt"),
        (lambda r: r["sites"][1]["costs"][1].update(state="signed"), "no signature holds"),
        (lambda r: r["sites"].pop(0), "which is in no sum"),
        (lambda r: r["sites"][0]["costs"].append(r["sites"][0]["costs"][0]), "twice"),
        (lambda r: r["runs"].pop(), "is not in the report"),
        (lambda r: r["vouchers"]["run-1"]["north"].update(signature="0" * 128), "no signature"),
        (lambda r: r["sites"][0]["costs"][0].update(state="unsigned"), "hides its signature"),
        (lambda r: r["sites"][0]["costs"][0].update(guard="x"), "signed with the key"),
        (lambda r: r.update(sites=7), "cannot be read"),
    ]  # fmt: skip
    for edit, words in edits:
        report = json.loads(text)
        edit(report)
        if isinstance(report["sites"], list):
            for site in report["sites"]:
                if words != "sums are not those":
                    site["together"] = together(site["costs"])
        path.write_text(json.dumps(seal(report)))
        found = " ".join(f.text for f in verify(path)[str(path)] if f.verdict == "WRONG")
        assert words in found, (words, found)
    path.write_text(text.replace('"name": "lungs"', '"name": "lunge"'))
    assert "changed after it was made" in str(verify(path))


def test_without_a_key_it_is_unsigned_and_an_empty_folder_is_refused(
    tmp_path: Path, consortium: Path, capsys: pytest.CaptureFixture[str]
):
    """A later report without German removes the German page."""
    assert main(["consortium", "report", str(consortium), "--out", str(tmp_path / "out")]) == 0
    assert "not signed: there is no key" in capsys.readouterr().err
    write_joint(consortium, out=tmp_path / "out", language="de")
    write_joint(consortium, out=tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([FILE, PAGES["en"]])
    assert "nobody has signed the report" in str(verify(tmp_path / "out" / FILE))
    with pytest.raises(ReportError, match="no run below it"):
        write_joint(tmp_path / "out")
    assert main(["consortium", "report", str(tmp_path / "nowhere")]) == 1
    assert "is not a folder" in capsys.readouterr().err
