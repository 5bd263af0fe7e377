"""Baselines that leave a part of a run out: their schedules follow from the run's own."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.privacy.plan import solve
from client.site import Privacy
from medformer.errors import ConfigError
from server.protocol import Aggregation, Phase, Schedule
from server.run.recipes.recipe import Recipe
from simulations.baselines.derived import HEADS, leaves_something_out, schedule_of
from simulations.cli import main
from simulations.prepare.prepare import examine
from simulations.scenario import BASELINES, Scenario


def phase(name: str, rounds: int, objectives: dict[str, float], **more: Any) -> Phase:
    values = {"name": name, "rounds": rounds, "objectives": objectives, **more}
    return Phase.model_validate({"expected_batch_size": 64, **values})


SELF = phase("self", 4, {"inpainting": 1.0, "orientation": 0.5})
HEADS_FIRST = phase("heads", 3, {"supervised": 1.0}, trains="heads", local_steps=5)
TOGETHER = phase(
    "together", 9, {"supervised": 0.5, "rescanned": 0.5, "domain_adversarial": 0.1,
                    "alignment": 0.01, "inpainting": 0.2}, lambda_schedule="ramp",
)  # fmt: skip
AGAIN = phase("heads-again", 4, {"supervised": 1.0}, trains="heads")
SCHEDULE = Schedule(phases=(SELF, HEADS_FIRST, TOGETHER, AGAIN), spare_rounds=2)


def left(baseline: Any, schedule: Schedule = SCHEDULE) -> dict[str, dict[str, float]]:
    return {p.name: dict(p.objectives) for p in schedule_of(baseline, schedule).phases}


@pytest.mark.parametrize("baseline", BASELINES)
def test_no_baseline_masks_its_answers(baseline: Any):
    """Sites without privacy have no guard, and a site alone has nobody to hide among."""
    masked = SCHEDULE.model_copy(update={"aggregation": Aggregation(secure=True)})
    assert schedule_of(baseline, masked) == schedule_of(baseline, SCHEDULE)


def test_heads_only_is_the_first_phase_of_heads():
    """Alone and together; the encoder stays that of the public start."""
    for baseline in ("heads-only-dp", "local-heads-only-dp"):
        assert schedule_of(baseline, SCHEDULE).phases == (HEADS_FIRST,)  # type: ignore[arg-type]


def test_a_run_without_a_phase_of_heads_has_one_in_its_baseline():
    """It is as long as phases of heads usually are."""
    (found,) = schedule_of("heads-only-dp", Schedule(phases=(TOGETHER,), spare_rounds=1)).phases
    assert (found.trains, dict(found.objectives)) == ("heads", {"supervised": 1.0})
    assert (found.rounds, found.local_steps) == (HEADS["rounds"], HEADS["local_steps"])
    assert HEADS["noise_floor"] == Recipe().heads_noise_floor


def test_without_self_supervision_only_labels_and_adaptation_teach():
    """A phase of nothing else is gone."""
    found = left("without-self-supervision-dp")
    assert list(found) == ["heads", "together", "heads-again"]
    assert "inpainting" not in found["together"]
    assert "rescanned" in found["together"]


def test_without_adaptation_the_labels_teach_as_much():
    """The weight of the images as another scanner takes them goes to those as they are."""
    assert left("without-adaptation-dp") == {
        "self": {"inpainting": 1.0, "orientation": 0.5},
        "heads": {"supervised": 1.0},
        "together": {"supervised": 1.0, "inpainting": 0.2},
        "heads-again": {"supervised": 1.0},
    }


def test_a_site_alone_has_no_other_domain_to_be_told_apart_from():
    """All else is the run's own schedule."""
    found = left("local-dp")
    assert "domain_adversarial" not in found["together"]
    assert list(found) == [p.name for p in SCHEDULE.phases]
    plain = Schedule(phases=(HEADS_FIRST, AGAIN), spare_rounds=1)
    assert schedule_of("local-dp", plain) is plain


def test_the_noise_is_solved_anew_for_the_same_epsilon():
    """Fewer steps have less noise each: what is left out is not paid for."""
    privacy = Privacy(epsilon=8, n_public=1_000)
    whole, shorter = (
        solve(s, privacy) for s in (SCHEDULE, schedule_of("without-self-supervision-dp", SCHEDULE))
    )
    assert shorter.phases[0].noise_multiplier < whole.phases[0].noise_multiplier
    assert 7.9 < shorter.epsilon <= 8
    assert shorter.spare_rounds == 2


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_baseline_without_a_difference_is_none(baseline: Any):
    """A run of labels alone has neither self-supervision nor adaptation to leave out."""
    plain = Schedule(phases=(HEADS_FIRST, phase("all", 5, {"supervised": 1.0})), spare_rounds=1)
    assert leaves_something_out(baseline, SCHEDULE)
    assert leaves_something_out(baseline, plain) == (not baseline.startswith("without"))


CHEST = {"source": "phantoms", "kind": "chest", "records": 64}
SMALL = {
    "name": "small",
    "phases": [
        {"name": "mixed", "rounds": 1, "expected_batch_size": 32,
         "objectives": {"supervised": 1.0, "inpainting": 1.0, "rescanned": 1.0}},
    ],
    "sites": [
        {"name": "north", "data": CHEST},
        {"name": "south", "data": {**CHEST, "seed": 2}},
        {"name": "east", "joins": "at-end", "head": {"labelled": 16}, "data": {**CHEST, "seed": 3}},
    ],
}  # fmt: skip


def test_a_scenario_cannot_ask_for_a_baseline_that_is_the_run_itself(tmp_path: Path):
    """The error names it."""
    labels = {**SMALL["phases"][0], "objectives": {"supervised": 1.0}}  # type: ignore[index]
    wanted = Scenario.model_validate(
        {**SMALL, "phases": [labels], "baselines": ["without-adaptation-dp"]}
    )
    with pytest.raises(ConfigError, match="without-adaptation-dp leaves out what this run does"):
        examine(wanted, tmp_path, data_root=None, states=tmp_path)


@pytest.mark.slow
def test_every_part_has_its_column_also_for_who_joins_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Each baseline trains at the run's epsilon, and the hospital fits a head on each of them."""
    parts = ["heads-only-dp", "without-self-supervision-dp", "without-adaptation-dp"]
    file, out = tmp_path / "small.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump({**SMALL, "baselines": [*parts, "local-heads-only-dp"]}))
    assert main(["simulate", str(file), "--engine", "local", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert {row["model"] for row in report["results"]} == {
        "federated-dp", "local-heads-only-dp", *parts,
    }  # fmt: skip
    assert {row["model"] for row in report["fitted_heads"]} == {"federated-dp", *parts}
    receipts = out.glob("baselines/*/*/receipts.json")
    epsilons = [site["epsilon"] for f in receipts for site in json.loads(f.read_text()).values()]
    assert len(epsilons) == 8
    assert all(7.9 < epsilon <= 8 for epsilon in epsilons)
    lines = capsys.readouterr().out.splitlines()
    (east, *_) = [line.split() for line in lines if line.startswith("east *")]
    assert east[2] == "-"  # nobody trains with it, so it has no head of a site alone
    assert "-" not in east[3:-1]
