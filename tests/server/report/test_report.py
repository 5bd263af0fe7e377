"""The report is true to its sources, valid, readable and safe."""

import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from client import release
from client.privacy.meaning import FALSE_ALARMS
from client.privacy.plan import solve
from client.site import Privacy
from medformer.common.rounding import percent_up
from medformer.errors import MedFormerError
from server.protocol import Phase, Schedule
from server.report import plots
from server.report.build import VOLATILE, build
from server.report.files import ReportError
from server.report.html import render
from server.report.numbers import rounded_up, scientific
from server.report.schema import SCHEMA, schema_json
from server.report.write import check, write_report
from server.run.federation import Federation, PublicSite
from tests.conftest import CHEST, CONFIG, OPACITY

SCHEDULE = Schedule(
    phases=(
        Phase(name="warm-up", rounds=1, local_steps=3, objectives={"inpainting": 1}),
        Phase(name="supervised", rounds=2, local_steps=2, objectives={"supervised": 1}),
    ),
    spare_rounds=1,
)
PLAN = solve(SCHEDULE, Privacy(epsilon=5, n_public=2000))


def result(site: str, metric: str, value: float, model: str | None = None) -> dict[str, Any]:
    row = {"site": site, "task": "chest", "metric": metric, "split": "test", "value": value}
    return row | ({"model": model} if model else {})


def trained(round_: int, site: str, attempt: int = 0, seconds: float = 0.5) -> dict[str, Any]:
    phase = SCHEDULE.phase_of(round_).name
    return {"event": "round", "round": round_, "rounds": 3, "phase": phase, "site": site,
            "attempt": attempt, "exact_loss": 0.7, "epsilon_progress": 1.0,
            "seconds": seconds}  # fmt: skip


def refused(round_: int, site: str, kind: str, text: str) -> dict[str, Any]:
    return {"round": round_, "site": site, "kind": kind, "text": text}


def write(folder: Path, name: str, value: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps(value))


def write_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def change(folder: Path, name: str, edit: Callable[[Any], object]) -> None:
    value = json.loads((folder / f"{name}.json").read_text())
    edit(value)
    write(folder, name, value)


def write_run(folder: Path, run_id: str = "abc", seconds: float = 0.5) -> Path:
    """Write a finished simulation of three sites, one of which (west) refused."""
    folder.mkdir(exist_ok=True)
    federation = Federation(
        name="test", seed=3, model=CONFIG, schedule=SCHEDULE, pretraining=None,
        sites=tuple(PublicSite(name=n, domain=CHEST) for n in ("north", "south", "west")),
    )  # fmt: skip
    (folder / "federation.json").write_text(federation.model_dump_json())
    write(folder, "run", {"run_id": run_id, "source_hash": "0" * 64})
    write(folder, "receipts", {name: json.loads(PLAN.to_json()) for name in ("north", "south")})
    write(folder, "release", release.declaration())
    facts = {"rule": "basic", "epsilon_lifetime": 8.25, "delta_lifetime": 2e-5,
             "epsilon_budget": 10.0, "delta_budget": 4e-5, "budget_used": 0.825,
             "delta_warning": None, "n_public": 2000,
             "lifetime_detected": [[a, min(1, 9 * a)] for a in FALSE_ALARMS]}  # fmt: skip
    write(folder, "site_facts", dict.fromkeys(("north", "south", "west"), facts))
    summary = {
        "run_id": run_id,
        "rounds": 3,
        "excluded": {"west": "budget-exhausted: nothing left"},
        "events": [refused(0, "west", "refusal", "budget-exhausted: nothing left")],
        "results": [result(s, m, 0.75) for s in ("north", "south") for m in ("auc", "accuracy")],
    }
    write(folder, "summary", summary)
    write(folder, "baselines", [result("north", "auc", 0.625, "local-dp")])
    write_metrics(
        folder, [trained(n, s, seconds=seconds) for n in (1, 2, 3) for s in ("north", "south")]
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def as_deployment(folder: Path) -> Path:
    """Turn it into a deployment: nothing exact exists, and the site keeps its totals."""
    for name in ("site_facts", "baselines"):
        (folder / f"{name}.json").unlink()
    change(folder, "summary", lambda summary: summary.update(results=[]))
    rows = [trained(n, s) | {"exact_loss": None} for n in (1, 2, 3) for s in ("north", "south")]
    write_metrics(folder, rows)
    return folder


def page_of(folder: Path) -> str:
    return (folder / "report.html").read_text()


def text_of(folder: Path) -> str:
    """Return the text of the page, as a reader sees it, on one line."""
    texts: list[str] = []

    class Texts(HTMLParser):
        def handle_data(self, data: str) -> None:
            texts.append(data)

    Texts().feed(page_of(folder))
    return " ".join(unescape(" ".join(texts)).split())


def test_the_privacy_curve_is_the_plans_and_drawn(folder: Path):
    """A deployment's report has it, too; an older run has none."""
    write_report(as_deployment(folder), simulation=False)
    north, _, west = json.loads((folder / "report.json").read_text())["sites"]
    assert north["curve"] == [list(pair) for pair in PLAN.curve]
    assert west["curve"] == []
    assert "Every point of a line is a guarantee of the whole run" in text_of(folder)
    assert "Epsilon of each site's run at every delta" in unescape(page_of(folder))
    change(folder, "receipts", lambda r: [one.pop("curve") for one in r.values()])
    write_report(folder, simulation=False)
    assert "Epsilon at other deltas" not in text_of(folder)


def test_the_first_section_says_what_an_attacker_could_find(folder: Path):
    """The shares, mu and the curve are the plan's; a hospital keeps its lifetime's to itself."""
    north, _, west = write_report(folder)["sites"]
    assert north["detected"] == [list(pair) for pair in PLAN.detected]
    assert north["roc"] == [list(pair) for pair in PLAN.roc]
    assert (north["mu"], west["mu"], west["detected"]) == (PLAN.mu, None, [])
    found = " ".join(percent_up(share) for _, share in PLAN.detected)
    assert PLAN.mu is not None
    first = text_of(folder).split("2. Epsilon and")[0]
    assert f"north, south {found} {rounded_up(PLAN.mu)}" in first
    assert "all runs of its lifetime budget, a looser bound 0.9 % 9.0 % 45.0 % 90.0 %" in first
    assert 'aria-label="What the best attack on each site' in page_of(folder)
    write_report(as_deployment(folder), simulation=False)
    assert f"north, south {found}" in text_of(folder)
    assert "all runs of its lifetime budget" not in text_of(folder)
    # Receipts of earlier versions have none of it.
    for name in ("detected", "roc", "mu"):
        change(folder, "receipts", lambda r, name=name: [one.pop(name) for one in r.values()])
    assert write_report(folder, simulation=False)["sites"][0]["detected"] == []
    assert "What an attacker could find" not in text_of(folder)


def test_epsilon_is_the_receipts_and_lifetime_the_ledgers(folder: Path):
    """The guarantee is that of the admitted schedule; totals come from the site."""
    north = write_report(folder)["sites"][0]

    assert (north["epsilon"], north["delta"]) == (PLAN.epsilon, PLAN.delta)
    assert (north["epsilon_lifetime"], north["epsilon_budget"]) == (8.25, 10.0)
    assert f"ε = {rounded_up(PLAN.epsilon)}, δ = 1 × 10 -5" in text_of(folder)
    assert "83 % spent, 1.750 left" in text_of(folder)


def test_every_admitted_phase_is_listed_the_spare_rounds_too(folder: Path):
    """The steps of the phases add up to the steps charged, and all parameters are shown."""
    north = write_report(folder)["sites"][0]

    assert [(p["name"], p["rounds"], p["steps"]) for p in north["phases"]] == [
        ("warm-up", 1, 3), ("supervised", 2, 4), ("spare", 1, 3),
    ]  # fmt: skip
    assert north["steps"] == PLAN.steps == 10
    for phase, planned in zip(north["phases"], PLAN.phases, strict=True):
        for field in ("sample_rate", "noise_multiplier", "max_grad_norm", "expected_batch_size"):
            assert phase[field] == getattr(planned, field)
    assert "spare 1 3 0.256 " in text_of(folder)
    assert "progress of the plan, not a guarantee" in text_of(folder)


def test_steps_trained_count_repeated_rounds_and_refused_updates(folder: Path):
    """Both took gradients of private records. The latest row of a round and site counts."""
    rows = [trained(1, "north"), trained(2, "north"), trained(2, "north", attempt=1)]
    write_metrics(folder, rows)
    update = refused(3, "north", "refused-update", "moves too far")
    change(folder, "summary", lambda summary: summary["events"].append(update))
    north, south, _ = write_report(folder)["sites"]

    assert north["steps_trained"] == 3 + 2 * 2 + 2
    assert (north["rounds_trained"], north["rounds_repeated"]) == (3, 1)
    assert south["steps_trained"] == 0


def test_a_site_that_refused_is_named_with_its_reason(folder: Path):
    """It admitted nothing, so this run costs it nothing."""
    west = write_report(folder)["sites"][2]

    assert (west["participated"], west["epsilon"], west["phases"]) == (False, 0, [])
    assert west["refusal"] == "budget-exhausted: nothing left"
    assert "west did not take part : budget-exhausted: nothing left" in text_of(folder)


def test_the_first_section_says_unit_sum_over_sites_and_simulation(folder: Path):
    """A data-protection officer who reads only this section knows the unit of privacy and the
    cost."""
    write_report(folder)
    first = text_of(folder).split("2. Epsilon and")[0]

    assert "differential privacy for one image" in first
    assert "add or remove one image" in first
    assert "records at several sites, the epsilons of these sites add up" in first
    assert rounded_up(2 * PLAN.epsilon) in first
    assert "This is a simulation" in first
    assert "anyone who has the seed can remove" in first


def test_every_item_that_may_leave_and_every_gap_is_shown(folder: Path):
    """The whole release list is printed, with the items that nothing covers."""
    report = write_report(folder)
    shown = text_of(folder)

    for item in release.ITEMS:
        verdict = "yes" if item.covered else "not covered"
        start = shown.index(f" {item.what} ")
        assert item.name in shown[start:]
        assert f"{item.mechanism} {verdict}" in shown[start:]
    # The same thing in several answers is one line.
    assert shown.count("public: the site's name yes") == 1
    for gap in (*release.NOT_COVERED, *release.SIMULATION_NOT_COVERED):
        assert gap in shown
    uncovered = [item.name for item in release.ITEMS if not item.covered]
    assert [i["name"] for i in report["sites"][0]["released"] if not i["covered"]] == uncovered


def test_times_run_and_rounds_are_said_and_no_more(folder: Path):
    """Rounds in which nothing was sent, refusals elsewhere, and whole numbers on the axis."""
    change(folder, "run", lambda run: run.update(began_at="2026-01-01T08:00:00+00:00"))
    change(folder, "summary", lambda s: s.update(ended_at="2026-01-01T09:30:00+00:00"))
    report = write_report(folder)
    assert report["began_at"] == "2026-01-01T08:00:00+00:00"
    shown = text_of(folder)
    assert "run abc , from 2026-01-01T08:00:00+00:00 to 2026-01-01T09:30:00+00:00" in shown
    assert "one shared model in 3 rounds:" in shown
    assert 'content: "run abc"' in page_of(folder)
    ticks = re.findall(r">([\d.]+)</text>", plots.epsilon_by_round(report))
    assert {"1", "2", "3"} <= set(ticks)
    assert not {"1.5", "2.5"} & set(ticks)
    change(folder, "summary", lambda s: s.update(events=[]))
    alone = SCHEDULE.model_copy(update={"phases": (
        SCHEDULE.phases[0], SCHEDULE.phases[1].model_copy(update={"shared_with": "nobody"})
    )})  # fmt: skip
    change(folder, "federation",
           lambda f: f.update(schedule=alone.model_dump(mode="json")))  # fmt: skip
    write_report(folder)
    assert "in 3 rounds, in 1 of which anything was sent:" in text_of(folder)
    assert "stands on its own ledger" in text_of(folder)


def test_who_can_answer_the_question_is_said(folder: Path):
    """The report names the kinds of image whose answer is shared, and the sites that took part."""
    assert write_report(folder, simulation=True)["model"]["concepts"] == []
    assert "The shared model alone answers nothing" in text_of(folder)
    common = CONFIG.between([CHEST, CHEST]).model_dump(mode="json")
    change(folder, "federation", lambda value: value.update(model=common))
    shared = write_report(folder, simulation=True)
    assert shared["model"]["concepts"] == [{"kind": CHEST.kind, "sites": ["north", "south"]}]
    said = text_of(folder)
    assert f"north, south have images of the kind {CHEST.kind} " in f"{said} "
    assert "coordinator and members can answer it with the shared model" in said
    assert "About a record they learn nothing beyond" in said


def test_baselines_that_come_later_join_the_results(folder: Path):
    """The report is written again; a mean over fewer sites names their number."""
    (folder / "baselines.json").unlink()
    assert {row["model"] for row in write_report(folder)["results"]} == {"federated-dp"}
    write(folder, "baselines", [result("north", "auc", 0.625, "local-dp")])

    assert {row["model"] for row in write_report(folder)["results"]} == {"federated-dp", "local-dp"}
    assert "mean over sites 0.750 0.625 1 of 2 sites" in text_of(folder)
    assert "exact, simulation only" in text_of(folder)


def test_only_a_report_with_baselines_speaks_of_them(folder: Path):
    """Without baselines, no officer is told that records were used outside the ledger."""
    (folder / "baselines.json").unlink()
    write_report(folder)
    assert "Baselines were trained" not in text_of(folder)
    assert "are baselines" not in text_of(folder)
    write(folder, "baselines", [result("north", "auc", 0.9, "local-dp")])
    write_report(folder)
    text = text_of(folder)
    assert "Baselines were trained on the same records, outside the privacy ledger." in text
    assert "All models but the first are baselines" in text


def test_several_tasks_of_a_site_have_rows_of_their_own(folder: Path):
    """Dice has its own table, and the accuracy of pixels is not averaged with that of images."""
    outline = [
        {**result("north", metric, value), "task": "outline"}
        for metric, value in (("dice", 0.5), ("accuracy", 0.97))
    ]
    change(folder, "summary", lambda summary: summary["results"].extend(outline))
    report = write_report(folder)
    shown = text_of(folder)

    assert {r["task"] for r in report["results"] if r["metric"] == "dice"} == {"outline"}
    for row in (
        "Test AUC federated-dp local-dp north chest 0.750 0.625 south chest 0.750 –",
        "Test accuracy federated-dp local-dp north chest 0.750 – south chest 0.750 –",
        "Test Dice overlap federated-dp local-dp north outline 0.500 –",
        "Test accuracy of pixels federated-dp local-dp north outline 0.970 –",
    ):
        assert row in shown
    assert "Test Dice overlap of every model" in page_of(folder)


def test_the_page_says_why_the_schedule_is_as_it_is(folder: Path):
    """A recipe that was derived is no secret of the code."""
    write_report(folder)
    assert "reason for it" not in page_of(folder)
    change(folder, "federation", lambda f: f.update(recipe="recipe for kinds, because 2"))
    write_report(folder)
    assert "reason for it recipe for kinds, because 2" in text_of(folder)


@pytest.mark.parametrize(
    ("trains", "words"),
    [
        ("all", "All sites shared the first rounds of the encoder. After that, each site shared"),
        ("heads", "Each site shared with the sites that have its kind of image and with no other"),
    ],
)
def test_only_rounds_of_the_encoder_count_as_shared_by_all_kinds(
    folder: Path, trains: str, words: str
):
    """Heads of unlike kinds of image share no tensor, though their rounds leave no site out."""
    report = build(folder, simulation=True, generated_at="2026-01-01T00:00:00+00:00")
    report["schedule"] = [
        row | {"shared_with": "all", "trains": trains} for row in report["schedule"]
    ]
    for site in report["sites"]:
        site["model_file"] = f"model-{site['name']}.safetensors"
    text = " ".join(render(report).split())
    assert words in text
    assert ("first rounds of the encoder" in text) == (trains == "all")


def test_a_count_of_classes_is_shown_as_a_phase_without_rounds(folder: Path):
    """It adds one step, admitted and taken; the figures of the training do not change."""
    counting = Privacy(epsilon=5, n_public=2000, class_balance_noise=20)
    plan = json.loads(solve(SCHEDULE, counting, [OPACITY]).to_json())
    change(folder, "receipts", lambda receipts: receipts.update(north=plan))
    north = write_report(folder)["sites"][0]

    assert north["phases"][0]["name"] == "class-balance"
    assert (north["steps"], north["steps_trained"]) == (PLAN.steps + 1, 1 + 3 + 2 + 2)
    assert north["sample_rate"] == PLAN.phases[0].sample_rate
    assert "class-balance 0 1 1 20.000 1.000 1" in text_of(folder)
    assert "sent no count" in text_of(folder)


def test_pictures_are_embedded_and_only_those_of_the_folder(folder: Path):
    """Their captions are escaped; a name that leads out of the folder shows nothing."""
    (folder / "pictures").mkdir()
    (folder / "pictures" / "one.png").write_bytes(b"picture")
    (folder / "secret.png").write_bytes(b"secret")
    entries = [
        {"file": f, "title": "<b>", "caption": f"of {f}"} for f in ("one.png", "../secret.png")
    ]
    write(folder, "pictures", entries)
    report = write_report(folder)

    assert report["pictures"] == entries
    assert 'src="data:image/png;base64,cGljdHVyZQ=="' in page_of(folder)
    assert "c2VjcmV0" not in page_of(folder)
    assert "reveal nothing about any record" in text_of(folder)
    assert "&lt;b&gt;" in page_of(folder)
    (folder / "pictures.json").unlink()
    assert write_report(folder)["pictures"] == []
    assert "No pictures were drawn" in text_of(folder)


def test_a_deployment_keeps_totals_at_the_site_and_releases_nothing_exact(folder: Path):
    """Without site facts the fields are null; items that exist in simulations only are not
    listed."""
    report = write_report(as_deployment(folder), simulation=False)

    for site in report["sites"]:
        for field in ("epsilon_lifetime", "epsilon_budget", "delta_lifetime", "delta_budget"):
            assert site[field] is None
        assert not [item for item in site["released"] if "exact" in item["name"]]
    assert (report["noise_source"], report["exact_simulation"]) == ("secure", False)
    assert "kept at the site" in text_of(folder)
    assert "This is a simulation" not in text_of(folder)


def test_a_deployment_that_holds_exact_values_is_refused(folder: Path):
    """They left a site although no mechanism covers them: no report may hide that."""
    with pytest.raises(ReportError, match="exist in simulations only"):
        write_report(folder, simulation=False)


def test_a_site_that_declared_nothing_is_shown_as_such(folder: Path):
    """An empty list must not read as if nothing had left the site and nothing were uncovered."""
    (folder / "release.json").unlink()
    assert write_report(folder)["sites"][0]["released"] == []
    assert "The site did not declare what may leave it" in text_of(folder)
    assert "The site did not declare what is not covered" in text_of(folder)


def test_no_text_of_a_site_becomes_markup(folder: Path):
    """Sites write these texts, and the reader's browser must not run them."""
    places: list[tuple[str, Callable[[Any, str], object]]] = [
        ("summary", lambda s, text: s["excluded"].update(west=text)),
        ("summary", lambda s, text: s["events"].append(refused(1, "north", "refusal", text))),
        ("summary", lambda s, text: s["results"][-1].update(task=text)),
        ("receipts", lambda r, text: r["north"].update(unit=text)),
        ("receipts", lambda r, text: r["north"].update(adjacency=text)),
        ("receipts", lambda r, text: r["north"].update(accountant=text)),
        ("receipts", lambda r, text: r["north"]["phases"][-1].update(name=text)),
        ("site_facts", lambda f, text: f["south"].update(delta_warning=text)),
        ("release", lambda d, text: d["items"][0].update(mechanism=text)),
        ("release", lambda d, text: d["not_covered"].append(text)),
    ]
    for i, (name, edit) in enumerate(places):
        change(folder, name, lambda value, i=i, edit=edit: edit(value, f"<script>{i}</script>"))
    write_report(folder)

    assert "<script" not in page_of(folder)
    for i in range(len(places)):
        assert f"&lt;script&gt;{i}&lt;/script&gt;" in page_of(folder)


def test_the_page_loads_nothing_and_its_ids_are_unique(folder: Path):
    """It is one file that can be mailed and archived."""
    (folder / "pictures").mkdir()
    (folder / "pictures" / "one.png").write_bytes(b"picture")
    write(folder, "pictures", [{"file": "one.png", "title": "one", "caption": "a picture"}])
    write_report(folder)
    ids: list[str] = []

    class Attributes(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in {"script", "link", "iframe", "object"}
            for key, value in attrs:
                assert key not in {"onload", "onclick"}
                if key == "src":
                    assert (value or "").startswith("data:image/png;base64,")
                if key.endswith("href"):
                    assert (value or "").startswith("#")
                if key == "id":
                    ids.append(value or "")

    Attributes().feed(page_of(folder))
    assert len(ids) == len(set(ids)) > 0
    for loading in ("url(http", "@import"):
        assert loading not in page_of(folder)


def test_two_builds_give_the_same_bytes(folder: Path):
    """Plots are the same, too, if the time of writing is the same."""
    one, two = (build(folder, simulation=True, generated_at="2026-01-01") for _ in range(2))

    assert json.dumps(one) == json.dumps(two)
    assert render(one) == render(two)


def test_two_runs_with_one_seed_differ_in_volatile_fields_only(tmp_path: Path):
    """These are the run id, the time of writing, the ledger hashes and durations."""
    one = write_report(write_run(tmp_path / "one", run_id="abc", seconds=0.5))
    two = write_report(write_run(tmp_path / "two", run_id="def", seconds=0.9))
    assert one["run_id"] != two["run_id"]
    assert one["timing"] != two["timing"]
    for field in VOLATILE:
        del one[field], two[field]

    assert json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)


def test_report_and_schema_are_published_beside_the_page(folder: Path):
    """The returned report is the written one, and it is valid under the published schema."""
    report = write_report(folder)
    schema = json.loads((folder / "report.schema.json").read_text())
    Draft202012Validator.check_schema(schema)

    assert json.loads((folder / "report.json").read_text()) == report
    assert schema == SCHEMA == json.loads(schema_json())
    assert list(Draft202012Validator(schema).iter_errors(report)) == []


@pytest.mark.parametrize(
    ("edit", "where"),
    [
        (lambda r: r.pop("unit"), r"\$: 'unit' is a required"),
        (lambda r: r["sites"][0].pop("epsilon"), r"sites\[0\]: 'epsilon' is a required"),
        (lambda r: r["sites"][0]["phases"][0].pop("noise_multiplier"), "noise_multiplier"),
        (lambda r: r["sites"][0]["phases"][0].update(noise_multiplier=0), "noise_multiplier"),
        (lambda r: r["sites"][0].update(epsilon=-1), r"sites\[0\].epsilon"),
        (lambda r: r["sites"][0].update(epsilon=float("inf")), "not finite"),
        (lambda r: r["sites"][0].update(private=False), "private"),
    ],
)
def test_a_report_that_breaks_the_schema_is_not_written(
    folder: Path, edit: Callable[[Any], object], where: str
):
    """The error names a missing, impossible or unknown field."""
    report = write_report(folder)
    edit(report)
    with pytest.raises(ReportError, match=where):
        check(report)


@pytest.mark.parametrize("name", ["run", "receipts", "summary"])
def test_an_unfinished_run_is_named_with_what_to_do(folder: Path, name: str):
    """The error is one sentence, and no part of a report is written."""
    (folder / f"{name}.json").unlink()
    with pytest.raises(ReportError, match=rf"{name}\.json: missing.*no finished run.*--resume"):
        write_report(folder)
    assert not list(folder.glob("report*"))


def test_a_damaged_receipt_and_a_wrong_folder_are_named(folder: Path):
    """Sites write the receipts, which may hold anything."""
    change(folder, "receipts", lambda receipts: receipts["north"].pop("epsilon"))
    with pytest.raises(ReportError, match=r"lacks or misspells a field.*epsilon"):
        write_report(folder)
    with pytest.raises(MedFormerError, match="nowhere: is not a folder"):
        write_report(folder / "nowhere")


@pytest.mark.parametrize("value", [7.9970001, 7.997945885695303, 8.0, 0.00001, 31.9917835])
def test_shown_numbers_are_never_smaller_than_computed_ones(value: float):
    """Rounding to the nearest number would promise more than the accountant did."""
    assert value <= float(rounded_up(value)) < value + 0.001
    shown = scientific(value).replace("&nbsp;&times;&nbsp;10<sup>", "e").replace("</sup>", "")
    assert value <= float(shown) <= 1.11 * value


def test_numbers_read_well():
    """Neither 1e-05 nor 10 x 10^-6 is shown."""
    assert rounded_up(7.9971) == "7.998"
    assert scientific(1e-5) == "1&nbsp;&times;&nbsp;10<sup>-5</sup>"
    assert scientific(9.96e-6) == "1&nbsp;&times;&nbsp;10<sup>-5</sup>"
    assert scientific(3 * 1e-5) == scientific(3e-5) == "3&nbsp;&times;&nbsp;10<sup>-5</sup>"
    assert scientific(0) == "0"
