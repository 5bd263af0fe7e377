"""Anybody can check a run: untouched files pass, and no change of a report or ledger does."""

import json
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import fedmedformer
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.ledger.chain import Row
from client.ledger.export import export, read
from client.ledger.ledger import Ledger
from client.masking.identity import load_identity, public_text, vouch
from client.node.joining import init
from client.site import load_site
from medformer.errors import MedFormerError
from server.consortium.hub import new_signer, signed_with, signer_of
from server.protocol import fingerprint
from server.protocol.vouchers import Voucher
from server.report.build import NOTHING
from server.report.seal import seal, sign_report
from simulations.cli import main
from simulations.verification.findings import Finding
from simulations.verification.ledger import verify_ledger
from simulations.verification.paths import verify
from simulations.verification.report import verify_report

CHEST = {"source": "phantoms", "kind": "chest", "records": 96}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two sites in two rounds, one of which lost nothing."""
    out = tmp_path_factory.mktemp("verify") / "run"
    scenario = {
        "name": "verify",
        "recipe": {"rounds": 2, "local_steps": 1, "expected_batch_size": 16, "heads_only": False},
        "evaluation": {"epsilon": 2.0, "min_count": 1},
        "sites": [
            {"name": "north", "data": CHEST},
            {"name": "south", "data": {**CHEST, "kind": "histology"}},
        ],
    }
    fedmedformer.simulate(scenario, out=out, engine="local", quiet=True, seed=3)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may spoil."""
    return shutil.copytree(finished, tmp_path / "run")


def wrong(findings: list[Finding]) -> list[str]:
    return [one.text for one in findings if one.verdict == "WRONG"]


def change(run: Path, edit: Callable[[dict[str, Any]], object], *, sealed: bool = True) -> Path:
    """Change a report as somebody would who knows how its checksum is made."""
    path = run / "report.json"
    report = json.loads(path.read_bytes())
    edit(report)
    path.write_text(json.dumps(seal(report) if sealed else report))
    return path


def test_an_untouched_run_has_nothing_wrong(finished: Path, capsys: pytest.CaptureFixture[str]):
    """Signatures, hashes, epsilons and ledgers, and what cannot be told without a telephone."""
    assert main(["verify", str(finished)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "north: epsilon" in text
    assert "other accountants: PRV (Opacus)" in text
    assert "model.safetensors" in text or "model-" in text
    assert "2 of 2 rounds trained, 0 repeated" in text
    assert "nobody has signed the report" in text
    assert "WRONG" not in text
    for name in ("report.json", "sites/north", *(p.name for p in finished.glob("*.safetensors"))):
        assert main(["verify", str(finished / name), "--report", str(finished / "report.json"),
                     "--site", "north"]) == 0, name  # fmt: skip
    assert "it is a model of the report's run" in " ".join(capsys.readouterr().out.split())


def test_a_site_that_sits_out_a_phase_is_right(tmp_path: Path):
    """Without labels it is asked in rounds in which it takes no step, and pays for none."""
    scenario = {
        "name": "unlabelled",
        "phases": [
            {"name": "pretext", "rounds": 1, "objectives": {"inpainting": 1}},
            {"name": "labels", "rounds": 1, "objectives": {"supervised": 1}},
        ],
        "sites": [
            {"name": "north", "data": CHEST},
            {"name": "east", "data": {**CHEST, "seed": 5}, "labelled": 0},
        ],
    }
    fedmedformer.simulate(scenario, out=tmp_path / "run", engine="local", quiet=True)
    every = verify(tmp_path / "run")
    assert [wrong(findings) for findings in every.values()] == [[], [], []]
    report = json.loads((tmp_path / "run" / "report.json").read_bytes())
    assert {s["name"]: s["rounds_trained"] for s in report["sites"]} == {"north": 2, "east": 1}


def test_every_changed_digit_of_a_report_is_found_and_no_rewriting_of_it(run: Path):
    """200 seeded digits, each replaced by another; and 200 reports with the same content."""
    path = run / "report.json"
    text = path.read_text()
    places = [i for i, letter in enumerate(text) if letter.isdigit()]
    for seed in range(200):
        chance = random.Random(seed)
        place = chance.choice(places)
        other = chance.choice([d for d in "0123456789" if d != text[place]])
        path.write_text(text[:place] + other + text[place + 1 :])
        try:
            assert wrong(verify_report(path)), (seed, text[place - 40 : place + 20])
        except MedFormerError:
            continue  # no report any more
    items = list(json.loads(text).items())
    for seed in range(200):
        chance = random.Random(seed)
        chance.shuffle(items)
        path.write_text(json.dumps(dict(items), indent=chance.choice([None, 1, 4])))
        assert wrong(verify_report(path)) == [], seed


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda s: s.update(epsilon=0.1), "than the signed receipt: epsilon"),
        (lambda s: s.update(delta=1e-9), "delta"),
        (lambda s: s.update(noise_multiplier=99.0), "noise_multiplier"),
        (lambda s: s["phases"][0].update(noise_multiplier=99.0), "phases"),
        (lambda s: s["phases"][0].update(steps=7), "phases"),
        (lambda s: s["curve"][3].__setitem__(1, 0.1), "curve"),
        (lambda s: s["detected"][1].__setitem__(1, 0.011), "detected"),
        (lambda s: s["roc"][5].__setitem__(1, 0.1), "roc"),
        (lambda s: s.update(mu=0.01), "mu"),
        (lambda s: s["progress"][0].__setitem__(1, 0.0), "progress"),
        (lambda s: s["others"].pop(), "others"),
        (lambda s: s.update(steps_trained=10_000), "more than its budget was reserved for"),
        (lambda s: s.update(participated=False), "took no part"),
    ],
)
def test_a_number_that_was_changed_with_its_checksum_is_found_by_the_guards_signature(
    run: Path, edit: Callable[[dict[str, Any]], object], said: str
):
    """The checksum is no secret; what the guard signed is."""
    path = change(run, lambda report: edit(report["sites"][0]))
    found = wrong(verify_report(path))
    # Other noise is not that of the counts either.
    assert len(found) == 1 or "its counts state noise" in found.pop()
    assert said in " ".join(found)


def test_every_epsilon_of_a_tenth_is_found(run: Path):
    """As an officer might be shown it: all epsilons 0.1, sealed again."""
    path = change(run, lambda report: [site.update(epsilon=0.1) for site in report["sites"]])
    assert len(wrong(verify_report(path))) == 2


def forged(run: Path, edit: Callable[[dict[str, Any]], object], key: Path) -> Path:
    """Change a receipt and all that is shown of it, and sign it with another key."""

    def rewrite(report: dict[str, Any]) -> None:
        voucher = Voucher(**report["vouchers"]["north"])
        receipt = json.loads(voucher.receipt)
        edit(receipt)
        fresh = replace(voucher, receipt=json.dumps(receipt))
        report["vouchers"]["north"] = asdict(fresh.signed(vouch(key, fresh)))
        site = next(site for site in report["sites"] if site["name"] == "north")
        site.update({name: receipt[name] for name in site if name in receipt and name != "phases"})
        site["noise_multiplier"] = min(p["noise_multiplier"] for p in receipt["phases"])
        shown = site["phases"][0].keys()
        site["phases"] = [{name: p[name] for name in shown} for p in receipt["phases"]]

    return change(run, rewrite)


def test_a_receipt_of_a_forger_has_to_follow_from_its_steps(run: Path, tmp_path: Path):
    """A smaller epsilon for the same steps is found by whoever can compute."""
    path = forged(run, lambda receipt: receipt.update(epsilon=0.1), tmp_path)
    (found,) = wrong(verify_report(path))
    assert "north: promises more than its steps keep: epsilon (it is" in found

    def fewer(receipt: dict[str, Any]) -> None:
        receipt["phases"][1].update(rounds=5, steps=5)
        receipt["steps"] = sum(phase["steps"] for phase in receipt["phases"])

    def oftener(receipt: dict[str, Any]) -> None:
        receipt["phases"][0].update(rounds=5, steps=5)
        receipt["steps"] = sum(phase["steps"] for phase in receipt["phases"])

    path = forged(run, oftener, tmp_path)
    assert "phase 'evaluation' has other steps" in " ".join(wrong(verify_report(path)))
    path = forged(run, fewer, tmp_path)
    assert "are not those of the schedule" in " ".join(wrong(verify_report(path)))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda ps: ps[0].update(noise_multiplier=1.0), "less noise than its own epsilon asks"),
        (lambda ps: ps[0].update(sample_rate=0.5), "is not one count of all records"),
        (lambda ps: ps.append(ps[0]), "is not one count of all records"),
        (lambda ps: ps[0].update(name="statistics"), "which the schedule does not ask for"),
    ],
)
def test_a_single_count_is_the_one_that_the_schedule_asks_for(
    run: Path, tmp_path: Path, edit: Callable[[list[dict[str, Any]]], object], said: str
):
    """Once, over all records, with the noise of its own epsilon: the sum alone would not tell."""

    def other(receipt: dict[str, Any]) -> None:
        assert receipt["phases"][0]["name"] == "evaluation"
        edit(receipt["phases"])
        receipt["steps"] = sum(phase["steps"] for phase in receipt["phases"])

    assert said in " ".join(wrong(verify_report(forged(run, other, tmp_path))))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda p: p.update(noise_multiplier=0.001), "noise or steps that nobody plans"),
        (lambda p: p.update(noise_multiplier=0.02), "epsilon (it is infinite)"),
        (lambda p: p.update(noise_multiplier=1e300), "noise or steps that nobody plans"),
        (lambda p: p.update(sample_rate=1e-300), "noise or steps that nobody plans"),
        (lambda p: p.update(steps=5), "has other steps"),
        (lambda p: p.update(honest=9), "has other steps"),
    ],
)
def test_noise_that_protects_nobody_confirms_no_claim(
    run: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], object], said: str
):
    """A hospital's own key can sign anything; the arithmetic does not depend on it."""

    def weak(receipt: dict[str, Any]) -> None:
        for phase in receipt["phases"]:
            if phase["rounds"]:
                edit(phase)
        receipt.update(epsilon=0.1, curve=[], roc=[], detected=[], mu=None, others=[])
        receipt["steps"] = sum(phase["steps"] for phase in receipt["phases"])

    found = " ".join(wrong(verify_report(forged(run, weak, run / "sites" / "north"))))
    assert said in found


def test_claims_that_are_weaker_than_the_steps_are_true(run: Path, tmp_path: Path):
    """An older accountant was less tight; its receipts stay right."""

    def looser(receipt: dict[str, Any]) -> None:
        receipt["epsilon"] *= 1.01
        receipt["curve"] = [[d, 1.01 * e] for d, e in receipt["curve"]]
        receipt["mu"] *= 1.01
        receipt["accountant"] = "an older one"

    assert wrong(verify_report(forged(run, looser, tmp_path))) == []


def test_a_named_guard_has_to_have_signed(run: Path):
    """Without its signature, without its site, or under another name, the check fails."""
    own = fingerprint(public_text(load_identity(run / "sites" / "north")), "signer")

    def away(report: dict[str, Any]) -> None:
        del report["vouchers"]["north"]
        report["sites"][0]["epsilon"] = 0.1

    def absent(report: dict[str, Any]) -> None:
        del report["vouchers"]["north"]
        report["sites"][0].update(NOTHING, participated=False)

    for edit in (away, absent, lambda r: r["sites"].pop(0), lambda r: r.update(sites=[])):
        report = (run / "report.json").read_bytes()
        assert wrong(verify_report(change(run, edit), guards={"north": own}))
        (run / "report.json").write_bytes(report)
    assert wrong(verify_report(run / "report.json", guards={"nroth": own}))


def first_count(report: dict[str, Any], more: float) -> None:
    """Change one count of a measurement, as a coordinator who wants better figures might."""
    output = report["measurement"]["counts"]["north"]["outputs"][0]
    output["shown"][0] = round(output["shown"][0] + more, 2)


def renamed(counts: dict[str, Any]) -> None:
    counts["east"] = counts.pop("north")


def signed_again(run: Path, report: dict[str, Any], **changes: Any) -> None:
    """Let the guard sign its voucher with other contents."""
    voucher = replace(Voucher(**report["vouchers"]["north"]), **changes)
    report["vouchers"]["north"] = asdict(voucher.signed(vouch(run / "sites" / "north", voucher)))


def test_a_signature_from_before_the_last_round_is_found(run: Path):
    """Rows of the ledger, and what they cost, would be missing behind it."""
    path = change(run, lambda r: signed_again(run, r, attempts=1))
    assert "it shows an old signature" in " ".join(wrong(verify_report(path)))


def test_an_attempt_that_no_answer_tells_of_is_said(run: Path):
    """The coordinator cannot know of it, and the site has paid for it."""
    path = change(run, lambda r: signed_again(run, r, attempts=3))
    text = " ".join(f.text for f in verify_report(path) if f.verdict == "unknown")
    assert "north: its guard has charged 1 attempts at a round whose answers did not arrive" in text


def without_attempts(run: Path, report: dict[str, Any], sources: str) -> None:
    """Put a voucher of an earlier version into a report."""
    signed_again(run, report, attempts=0, counts="")
    del report["vouchers"]["north"]["attempts"], report["vouchers"]["north"]["counts"]
    report["source_hash"] = sources


def test_a_guard_that_signs_no_attempts_is_of_an_earlier_version(run: Path):
    """Reports from before are no forgeries; whoever leaves the number out confirms nothing."""
    found = verify_report(change(run, lambda r: without_attempts(run, r, "0" * 64)))
    assert wrong(found) == []
    text = " ".join(f.text for f in found if f.verdict == "unknown")
    assert "north: its guard is of an earlier version" in text


def test_a_guard_of_this_version_signs_its_attempts(run: Path):
    """To leave the number out would hide rounds that it has charged."""
    path = change(run, lambda r: without_attempts(run, r, r["source_hash"]))
    assert "it shows an old signature" in " ".join(wrong(verify_report(path)))


def test_counts_that_a_guard_has_signed_cannot_be_left_out(run: Path):
    """Unless the coordinator says that it refused them, which is in the report."""

    def edit(report: dict[str, Any]) -> None:
        shown = report["measurement"]
        shown["counts"].pop("north")
        shown["figures"] = [f for f in shown["figures"] if f["site"] == "south"]

    path = change(run, edit)
    said = "north: its guard has signed counts that the report does not show"
    assert said in wrong(verify_report(path))
    event = {"round": 2, "site": "north", "kind": "refusal", "text": "measurement: bad-answer: x"}
    path = change(run, lambda r: r["events"].append(event))
    assert said not in wrong(verify_report(path))


def test_unsigned_counts_are_the_coordinators_word(run: Path):
    """That is said; whoever has no key can change nothing else of it."""
    path = change(run, lambda r: signed_again(run, r, counts=""))
    text = " ".join(f.text for f in verify_report(path) if f.verdict == "unknown")
    assert "north: nobody but the coordinator vouches for its counts" in text


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda r: r.update(unit="patient"), "unit is not that of the signed receipts"),
        (lambda r: r.update(masked=True), "phases that the report shows"),
        (lambda r: r["promise"]["post_processing"].update(average_last=0.9), "post-processing is"),
        (lambda r: r["promise"].update(max_colluders=1), "more sites may collude by the report"),
        (lambda r: r["promise"]["randomness"].update(key="operating-system"), "disagrees with"),
        (lambda r: r["schedule"][0].update(sends=False), "phases that the report shows"),
        (lambda r: r.update(rounds=99), "phases that the report shows"),
        (lambda r: r["sites"].append(r["sites"][0]), "is in the report twice"),
        (lambda r: r["sites"][0].update(rounds_trained=1), "fewer rounds than it lists"),
        (lambda r: r["vouchers"].update(east=r["vouchers"]["north"]), "is no site of the report"),
        (lambda r: r.update(schedule_text="{}"), "schedule in the report cannot be read"),
        (lambda r: r["vouchers"]["north"].update(receipt="\ud800"), "signature does not fit"),
        (lambda r: r["measurement"]["figures"][0].update(shown=9_999), "follow from the counts"),
        (lambda r: r["measurement"]["counts"].pop("north"), "that the report does not show"),
        (lambda r: r["measurement"]["counts"]["north"].update(std=0.5), "its counts state noise"),
        (lambda r: first_count(r, 1.0), "not those that its guard has signed"),
        (lambda r: renamed(r["measurement"]["counts"]), "east: has counts and is no site"),
        (lambda r: r["measurement"]["figures"][0].update(kind="ct_liver_2d-1"), "another kind"),
        (lambda r: r["vouchers"]["north"].update(attempts=1), "signature does not fit"),
        (lambda r: r["measurement"].update(epsilon=0.1), "not the one that the sites admitted"),
        (lambda r: r.update(measurement=None), "disagree whether the model was measured"),
    ],
)
def test_what_follows_from_receipts_and_schedule_is_compared(
    run: Path, edit: Callable[[dict[str, Any]], object], said: str
):
    """A reader relies on the unit and on what was sent; both follow from what is signed."""
    assert said in " ".join(wrong(verify_report(change(run, edit))))


def test_a_number_that_is_there_twice_is_found(run: Path):
    """Readers differ in which of two values they take."""
    path = run / "report.json"
    path.write_text(path.read_text().replace('"epsilon":', '"epsilon": 0.1, "epsilon":', 1))
    with pytest.raises(MedFormerError, match="has the key 'epsilon' twice"):
        verify_report(path)


def test_digits_beyond_a_floats_are_found(run: Path):
    """A last digit that changes no value would still be another text under the same signature."""
    path = run / "report.json"
    text = path.read_text()
    number = next(n for n in re.findall(r"\d\.\d{15,}", text))
    path.write_text(text.replace(number, f"{number}1", 1))
    with pytest.raises(MedFormerError, match="whose digits are not those of a float64"):
        verify_report(path)
    path.write_text(text.replace('"delta": 1e-05', '"delta": 0.00001'))
    assert wrong(verify_report(path)) == []


def test_an_earlier_report_is_neither_true_nor_false(run: Path):
    """Nobody had signed anything: that is said, and is wrong only if somebody had to sign."""
    path = change(run, lambda r: r.update(schema_version=1))
    assert wrong(verify_report(path)) == []
    assert wrong(verify_report(path, signer="0"))


def test_a_ledger_or_model_is_held_against_a_true_report_only(
    run: Path, capsys: pytest.CaptureFixture[str]
):
    """A forged report confirms nothing, whatever is held against it."""
    change(run, lambda r: r["sites"][0].update(epsilon=0.1))
    report = ["--report", str(run / "report.json"), "--site", "north"]
    model = next(iter(run.glob("*.safetensors")))
    for path in (run / "sites" / "north", model):
        assert main(["verify", str(path), *report]) == 1
    change(run, lambda r: r.update(files=[]), sealed=False)
    assert main(["verify", str(model), *report]) == 1
    capsys.readouterr()


def test_text_of_strangers_reaches_no_terminal(run: Path, capsys: pytest.CaptureFixture[str]):
    """A name with control characters cannot wipe the line above it."""
    change(run, lambda r: r["files"].update({"x\x1b[2K\x1b[1Aok": "0" * 64, "\ud800": "0" * 64}))
    main(["verify", str(run / "report.json")])
    assert "\x1b" not in capsys.readouterr().out


def test_a_forgers_key_is_found_by_its_fingerprint(run: Path, tmp_path: Path):
    """A report that is consistent in itself needs the hospital's word for whose key it is."""
    own = fingerprint(public_text(load_identity(run / "sites" / "north")), "signer")
    path = run / "report.json"
    assert wrong(verify_report(path, guards={"north": own})) == []
    path = forged(run, lambda receipt: None, tmp_path)
    assert wrong(verify_report(path)) == []
    (found,) = wrong(verify_report(path, guards={"north": own}))
    assert f"is not {own}" in found
    assert main(["verify", str(path), "--guard", f"north={own}"]) == 1
    assert main(["verify", str(path), "--guard", "north"]) == 1


def test_the_coordinators_signature_covers_everything(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Results have no other witness: only the coordinator's key keeps them."""
    key, path = tmp_path / "bundle.key", run / "report.json"
    new_signer(key)
    shown = fingerprint(signer_of(key), "signer")
    assert wrong(verify_report(path, signer=shown)) == [
        "nobody has signed the report, and whoever changes it can make a new checksum"
    ]
    sign_report(run, signer_of(key), partial(signed_with, key))
    assert wrong(verify_report(path, signer=shown)) == []
    assert "is not" in wrong(verify_report(path, signer="0000 " * 7 + "0000"))[0]
    assert main(["report", str(run), "--sign-with", str(key)]) == 0
    assert main(["verify", str(path), "--signer", shown]) == 0
    # The same content keeps its signature, another has none.
    assert main(["report", str(run)]) == 0
    assert wrong(verify_report(path, signer=shown)) == []
    summary = json.loads((run / "summary.json").read_bytes())
    (run / "summary.json").write_text(json.dumps({**summary, "ended_at": "2026-12-01T00:00:00"}))
    assert main(["report", str(run)]) == 0
    assert "the new report is not signed" in capsys.readouterr().err
    assert main(["report", str(run), "--sign-with", str(key)]) == 0
    signed = json.loads(path.read_bytes())["seal"]

    def better(report: dict[str, Any]) -> None:
        report["results"][0]["value"] = 0.999

    change(run, better)
    report = json.loads(path.read_bytes())
    report["seal"] |= {name: signed[name] for name in ("identity", "signature")}
    path.write_text(json.dumps(report))
    assert wrong(verify_report(path)) == ["the coordinator's signature does not fit"]
    report["seal"]["sha256"] = signed["sha256"]
    path.write_text(json.dumps(report))
    assert "was changed after it was made" in wrong(verify_report(path))[0]
    with pytest.raises(MedFormerError, match="was changed since it was made"):
        sign_report(run, signer_of(key), partial(signed_with, key))


@pytest.mark.parametrize("pattern", ["report.html", "*.safetensors"])
def test_another_page_or_model_beside_the_report_is_found(run: Path, pattern: str):
    """People read and use the files that the report vouches for."""
    file = next(iter(sorted(run.glob(pattern))))
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert wrong(verify_report(run / "report.json")) == [
        f"{file.name} is not the file that the report names"
    ]


def rewritten(rows: list[Row], edit: Callable[[Row], Row]) -> list[Row]:
    """Return a ledger with a chain of its own, as a forger would make it."""
    found: list[Row] = []
    for row in rows:
        last = found[-1] if found else None
        changed = edit(row)
        found.append(Row.after(last, changed.time, changed.kind, changed.run_id, changed.body))
    return found


def test_a_ledger_whose_end_is_gone_is_found_by_report_and_anchor(run: Path, tmp_path: Path):
    """Its chain is intact: only what is kept elsewhere shows that rows are missing."""
    state, report = run / "sites" / "north", run / "report.json"
    rows = read(state)
    export(rows[:-3], tmp_path / "short.jsonl")
    assert wrong(verify_ledger(tmp_path / "short.jsonl")) == []
    (found,) = wrong(verify_ledger(tmp_path / "short.jsonl", report=report, site="north"))
    assert "lacks the row" in found
    with sqlite3.connect(state / "ledger.sqlite") as db:
        db.execute("DROP TRIGGER no_delete")
        db.execute("DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)")
    anchor = tmp_path / "newest.json"
    anchor.write_text(json.dumps(asdict(rows[-1])))
    (found,) = wrong(verify_ledger(state, anchor=anchor))
    assert "its last row is gone" in found  # or was never written: a crash between two writes
    with sqlite3.connect(state / "ledger.sqlite") as db:
        db.execute("DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)")
    assert "an old copy was put back" in wrong(verify_ledger(state, anchor=anchor))[0]


def test_a_ledger_with_a_new_chain_is_found_by_its_sums(run: Path, tmp_path: Path):
    """A forger can compute hashes, but not make a run cheaper than its steps."""
    rows, file = read(run / "sites" / "north"), tmp_path / "forged.jsonl"

    def edited(kind: str, edit: Callable[[dict[str, Any]], object]) -> list[str]:
        def one(row: Row) -> Row:
            if row.kind != kind:
                return row
            body = row.values
            edit(body)
            return replace(row, body=json.dumps(body))

        export(rewritten(rows, one), file)
        return wrong(verify_ledger(file))

    def cheaper(body: dict[str, Any]) -> None:
        plan = json.loads(body["plan"])
        body["plan"] = json.dumps({**plan, "epsilon": 0.1})
        body["epsilon"] = 0.1

    assert edited("reservation", lambda body: None) == []
    assert "promises more than its steps keep: epsilon" in edited("reservation", cheaper)[0]
    assert (
        "charged something else" in edited("reservation", lambda body: body.update(epsilon=0.1))[0]
    )
    assert (
        "beyond the lifetime budget"
        in edited("cohort", lambda body: body.update(epsilon_budget=1.0))[0]
    )
    assert "more was trained" in edited("attempt", lambda body: body.update(round=9))[0]
    assert "cannot be read" in edited("reservation", lambda body: body.pop("epsilon"))[0]
    for kind, value in (
        ("reservation", {"plan": "null"}),
        ("reservation", {"plan": "1"}),
        ("reservation", {"schedule": []}),
        ("attempt", {"round": None}),
        ("attempt", {"attempt": [1]}),
        ("cohort", {"epsilon_budget": "nine"}),
        ("cohort", {"unit": None}),
    ):
        assert edited(kind, lambda body, value=value: body.update(value)), (kind, value)
    twice = [again for row in rows for again in [row] * (1 + (row.kind == "measurement"))]
    export(rewritten(twice, lambda row: row), file)
    assert "more counts were sent than were paid for" in wrong(verify_ledger(file))[0]
    export(rewritten(rows, lambda row: replace(row, body="[" * 5000)), file)
    assert wrong(verify_ledger(file))
    edited("reservation", lambda body: body.pop("epsilon"))
    (found,) = wrong(verify_ledger(file, report=run / "report.json", site="north"))[:1]
    assert "cannot be read" in found


def test_the_draft_of_a_site_keeps_an_anchor(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It is on unless a hospital turns it off, and `verify` finds it from the site's folder."""
    init(tmp_path / "north", "north")
    site = load_site(tmp_path / "north" / "site.yaml")
    (tmp_path / "north" / "state").mkdir(mode=0o700)
    Ledger.of(site, tmp_path / "north" / "state").close()
    assert main(["verify", str(tmp_path / "north")]) == 0
    assert "it has the row that the anchor" in " ".join(capsys.readouterr().out.split())
    db = sqlite3.connect(tmp_path / "north" / "state" / "ledger.sqlite")
    with db:
        db.execute("DROP TRIGGER no_delete")
        db.execute("DELETE FROM entries")
    db.close()
    assert main(["verify", str(tmp_path / "north")]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_what_cannot_be_verified_is_named(tmp_path: Path):
    """No file, and files of another kind, end with a clear error."""
    for path, text, said in (
        ("no.json", None, "there is no such file"),
        ("list.json", "[1]", "is not the report of a run"),
        ("broken.json", "{", "cannot be read as a report"),
    ):
        if text is not None:
            (tmp_path / path).write_text(text)
        with pytest.raises(MedFormerError, match=said):
            verify(tmp_path / path)
    (tmp_path / "page.html").write_text("<html>")
    with pytest.raises(MedFormerError, match="is nothing that can be verified"):
        verify(tmp_path / "page.html")
    assert "no ledger here" in wrong(verify(tmp_path)[str(tmp_path)])[0]


def test_a_key_verifies_its_own_statement_only():
    """Every part of a statement is signed: none can be exchanged for that of another run."""
    key = Ed25519PrivateKey.generate()
    statement = ("north", "r1", "s" * 64, '{"epsilon": 1}', "l" * 64)
    voucher = Voucher(*statement, 3, "c" * 64, identity=public_text(key))
    signed = replace(voucher, signature=key.sign(voucher.statement).hex())
    assert signed.holds
    for other in (
        {"site": "south"},
        {"run_id": "r2"},
        {"schedule_hash": "t" * 64},
        {"receipt": '{"epsilon": 2}'},
        {"ledger_hash": "m" * 64},
        {"attempts": 2},
        {"attempts": 0, "counts": ""},
        {"counts": ""},
        {"identity": public_text(Ed25519PrivateKey.generate())},
        {"signature": "0" * 128},
    ):
        assert not replace(signed, **other).holds, other
    assert not voucher.signed("{}").holds
