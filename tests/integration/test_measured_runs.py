"""Runs that measure their final model: what the server keeps, and what the report says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from client.data.records import Records
from client.guard import Guard
from client.measuring import request, scores
from client.site import Site
from medformer.config import Task
from server.measures import POOLED
from server.measures.kept import MEASUREMENTS
from server.protocol import Answer, Measure, MeasureAnswer, Refusal, Request, Schedule, TrainAnswer
from server.protocol.score_counts import BINS, Evaluation, ScoreCounts
from server.report.build import build
from server.report.files import ReportError
from server.report.html import render
from server.run.coordinate import Run
from server.run.errors import RunInterrupted
from server.run.federation import Federation, PublicSite
from server.run.fleet import Lost
from server.run.journal import outcome
from server.run.pretraining import initial_shared
from tests.conftest import CONFIG, ledger_rows
from tests.integration.test_coordinate import Harm, HarmedFleet, untouched

COUNT = 600


def knowing(model: object, site: Site, records: Records, task: Task) -> Tensor:
    """Answer as a model that has learned something would: three rounds teach nothing."""
    truth = records.joined(task.name)
    drawn = torch.Generator().manual_seed(int(truth.sum()))
    return (2.0 * truth - 1.0 + torch.randn(len(truth), generator=drawn))[:, None]


@pytest.fixture
def execute(
    open_guard: Callable[..., Guard],
    site: Site,
    schedule: Schedule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Run, or resume, a federation of two sites with a measurement, in tmp_path/run."""
    monkeypatch.setattr(scores, "predicted", knowing)
    data = {"source": "phantoms", "kind": "chest", "records": COUNT}
    sites = [
        Site.model_validate({**site.model_dump(), "name": name, "data": {**data, "seed": seed}})
        for seed, name in enumerate(("north", "south"))
    ]
    measured = schedule.model_copy(update={"evaluation": Evaluation(epsilon=4.0)})
    folder = tmp_path / "run"
    folder.mkdir()

    def execute_(harm: Harm = untouched, quorum: int | None = None, **settings: float) -> Run:
        federation = Federation(
            name="test",
            model=CONFIG,
            schedule=measured,
            pretraining=None,
            quorum=quorum,
            sites=tuple(PublicSite(name=s.name, domain=s.domain) for s in sites),
        )
        (folder / "federation.json").write_text(federation.model_dump_json())
        fleet = HarmedFleet({s.name: open_guard(s) for s in sites}, harm, dict)
        run = Run(fleet, federation, folder, retry_pause=0.01, **settings)
        with outcome(folder):
            run.execute(lambda: initial_shared(CONFIG, 0))
        return run

    return execute_


def report(folder: Path) -> dict:
    """Return the report of a deployment, which holds no exact value."""
    for file in folder.glob("metrics.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        text = "".join(json.dumps({**row, "exact_loss": None}) + "\n" for row in rows)
        file.write_text(text)
    return build(folder, simulation=False, generated_at="now")


def test_a_report_has_figures_with_intervals_and_nothing_exact(execute, tmp_path: Path):
    """Each site's, and those of both together, from counts that the report holds, too."""
    execute()
    found = report(tmp_path / "run")
    assert found["results"] == []
    measurement = found["measurement"]
    assert set(measurement["counts"]) == {"north", "south"}
    assert [f["site"] for f in measurement["figures"]] == ["north", "south", POOLED]
    pooled = measurement["figures"][-1]
    # Normal scores whose means are two standard deviations apart have the AUC .921.
    assert pooled["auc"]["low"] < 0.921 < pooled["auc"]["high"]
    assert pooled["auc"]["high"] - pooled["auc"]["low"] < 0.1
    assert len(measurement["counts"]["north"]["outputs"][0]["shown"]) == BINS
    site = found["sites"][0]
    # Three rounds of two steps, and the measurement.
    assert site["steps_trained"] == 7
    assert [p["name"] for p in site["phases"]] == ["evaluation", "supervised", "spare"]
    page = " ".join(render(found).split())
    assert "Measured at the sites, with noise" in page
    assert f"{pooled['auc']['value']:.3f}" in page
    assert "Metrics stayed at the sites" not in page


def test_a_lost_answer_is_sent_again_and_charged_once(execute, tmp_path: Path):
    """The run goes on where it stopped: the site has kept what it sent."""
    lost: list[MeasureAnswer] = []

    def lose(name: str, request: Request, answer: Answer) -> Answer | Lost:
        if isinstance(answer, MeasureAnswer) and name == "south" and not lost:
            lost.append(answer)
            return Lost("its node is gone")
        return answer

    with pytest.raises(RunInterrupted, match="south: its node is gone"):
        execute(lose)
    execute(lose)
    kept = json.loads((tmp_path / "run" / MEASUREMENTS).read_text())
    assert kept["south"] == json.loads(lost[0].counts)
    rows = [row["kind"] for row in ledger_rows(tmp_path / "south")]
    assert rows.count("measurement") == 1


def test_with_a_quorum_a_site_that_is_away_is_asked_again_and_then_left_out(
    execute, tmp_path: Path
):
    """The run is complete without its figures, and the report says so."""
    asked = []

    def away(name: str, request: Request, answer: Answer) -> Answer | Lost:
        if isinstance(request, Measure) and name == "south":
            asked.append(name)
            return Lost("its node is not there")
        return answer

    execute(away, quorum=1)
    assert len(asked) == 3
    found = report(tmp_path / "run")
    assert set(found["measurement"]["counts"]) == {"north"}
    (event,) = found["events"]
    assert (event["site"], event["kind"]) == ("south", "absent")
    assert event["text"] == "measurement: its node is not there"
    # Its records were not measured.
    assert [s["steps_trained"] for s in found["sites"]] == [7, 6]


def test_a_site_whose_hours_are_over_is_waited_for(execute, tmp_path: Path):
    """As in rounds, as long as the run waits for approvals."""
    times = []

    def closed(name: str, request: Request, answer: Answer) -> Answer | Lost:
        if isinstance(request, Measure) and name == "south" and len(times) < 5:
            times.append(name)
            return Refusal("closed-now", "this site trains at 20:00-06:00, local time", name)
        return answer

    execute(closed, quorum=1, approval_wait=60)
    assert set(json.loads((tmp_path / "run" / MEASUREMENTS).read_text())) == {"north", "south"}


@pytest.mark.parametrize("spoil", ["counts", "signature", "kind", "refusal"])
def test_a_bad_answer_costs_the_site_its_figures_alone(execute, tmp_path: Path, spoil: str):
    """Whatever a hostile site sends, the run ends with those of the others."""
    bad: dict[str, Callable[[MeasureAnswer], Answer]] = {
        "counts": lambda a: MeasureAnswer(a.site, "{}", a.ledger_hash, a.signed),
        "signature": lambda a: MeasureAnswer(a.site, a.counts, "c" * 64, a.signed),
        "kind": lambda a: TrainAnswer(a.site, 1, 0, {}),
        "refusal": lambda a: Refusal("attempt-lost", "it was charged", a.site),
    }

    def spoiled(name: str, request: Request, answer: Answer) -> Answer | Lost:
        if isinstance(answer, MeasureAnswer) and name == "north":
            return bad[spoil](answer)
        return answer

    execute(spoiled)
    found = report(tmp_path / "run")
    assert set(found["measurement"]["counts"]) == {"south"}
    assert [e["text"].split(":")[0] for e in found["events"]] == ["measurement"]
    assert found["events"][0]["site"] == "north"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"std": 0.5}, "its counts state noise of"),
        ({"std": 1e-200}, "are not those of an evaluation"),
        ({"outputs": ()}, "are of 0 outputs, and it has admitted 1"),
    ],
)
def test_a_site_cannot_state_another_noise_than_it_has_admitted(
    execute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object],
    said: str,
):
    """Its guard may sign what it likes: intervals and pooled figures rest on the stated noise."""

    def hostile(model: object, site: Site, *rest: Any) -> ScoreCounts:
        counts = scores.score_counts(model, site, *rest)
        return counts.model_copy(update=change) if site.name == "north" else counts

    monkeypatch.setattr(request, "score_counts", hostile)
    execute()
    found = report(tmp_path / "run")
    assert set(found["measurement"]["counts"]) == {"south"}
    assert said in found["events"][0]["text"]


def test_counts_are_taken_in_the_one_way_that_is_signed(
    execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Their digest has to be computed again from a report, which keeps no spaces."""
    plain = ScoreCounts.model_dump_json

    def spaced(counts: ScoreCounts) -> str:
        return json.dumps(json.loads(plain(counts)))

    with monkeypatch.context() as patch:
        patch.setattr(request, "score_counts", lambda *a: _Spaced(scores.score_counts(*a), spaced))
        execute()
    found = report(tmp_path / "run")
    assert found["measurement"]["counts"] == {}
    assert "not written in the one way" in found["events"][0]["text"]


class _Spaced:
    """Counts that are written otherwise."""

    def __init__(self, counts: ScoreCounts, write: Callable[[ScoreCounts], str]) -> None:
        self.model_dump_json = lambda: write(counts)


def test_a_damaged_file_is_named(execute, tmp_path: Path):
    """And no report is made of it."""
    execute()
    (tmp_path / "run" / MEASUREMENTS).write_text('{"north": {"std": -1}}')
    with pytest.raises(ReportError, match=r"measurements\.json: cannot be read"):
        report(tmp_path / "run")
