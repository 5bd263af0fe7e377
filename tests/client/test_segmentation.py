"""A site with two tasks, one of them dense: through the guard, under DP, and in the scenario."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.data.errors import DataError
from client.data.load import check, read
from client.data.records import empty
from client.evaluation import evaluate
from client.guard import Guard
from client.site import Site
from client.state import Store
from client.training import site_model
from medformer.config import Task
from server.protocol import Schedule
from server.run.coordinate import Run
from server.run.federation import Federation, PublicSite
from server.run.pretraining import initial_shared
from simulations.baselines.jobs import LocalFleet
from simulations.commands.results import result_table
from simulations.prepare.sites import resolve_sites
from simulations.scenario_file import load_scenario
from tests.conftest import CONFIG

LESION = Task(name="lesion", kind="binary-class", classes=2)
OUTLINE = Task(name="outline", kind="dense", classes=2, labels="masks")


@pytest.fixture
def outlining(site: Site) -> Site:
    return site.model_copy(update={"tasks": (LESION, OUTLINE)})


def test_a_split_without_images_has_no_scores(outlining: Site, tmp_path: Path):
    """Metrics of both tasks are None for an empty split."""
    model = site_model(CONFIG, outlining.tasks)
    rows = evaluate(model, outlining, empty(outlining.domain, outlining.tasks), "test")
    assert {(r["task"], r["metric"]) for r in rows} == {
        ("lesion", "auc"), ("lesion", "accuracy"), ("outline", "dice"), ("outline", "accuracy"),
    }  # fmt: skip
    assert all(r["value"] is None for r in rows)


def test_phantoms_offer_masks_beside_labels(outlining: Site):
    """Each pixel has a class; a kind of phantom without a finding is refused with the kinds that
    have one."""
    records = read(outlining, "test")
    masks, labels = records.joined("outline"), records.joined("lesion")
    assert masks.shape == (32, 28, 28)
    assert not masks[labels == 0].any()
    assert masks[labels == 1].any()

    data = outlining.data.model_copy(update={"kind": "chess"})
    with pytest.raises(DataError, match="no phantoms 'chess'; there are chest, ultrasound"):
        read(outlining.model_copy(update={"data": data}), "test")
    data = outlining.data.model_copy(update={"kind": "histology"})
    with pytest.raises(DataError, match="histology phantoms have no 'masks'; they have labels"):
        read(outlining.model_copy(update={"data": data}), "test")


def test_a_site_trains_both_tasks_under_dp_and_keeps_both_heads(
    open_guard: Callable[..., Guard], outlining: Site, schedule: Schedule, tmp_path: Path
):
    """A site trains both tasks through the guard, and Dice and AUC are measured."""
    federation = Federation(
        name="test", model=CONFIG, schedule=schedule, pretraining=None,
        sites=(PublicSite(name="north", domain=outlining.domain),),
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    start = initial_shared(CONFIG, 0)
    run = Run(LocalFleet({"north": open_guard(outlining)}), federation, tmp_path / "run", True)
    state = run.execute(lambda: start)

    assert not [name for name in state.shared if name.startswith("output.heads.")]
    assert not np.array_equal(state.shared["output.key.weight"], start["output.key.weight"])
    kept = Store(tmp_path / "north", run.journal.run_id).get_state(4)
    assert kept is not None
    for head in ("output.heads.lesion.weight", "output.heads.outline.2d-3.out.weight"):
        assert kept.parameters[head].any()  # both start at zero
    rows = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
    found = {(r["task"], r["metric"]) for r in rows if r["split"] == "test"}
    assert found == {("lesion", "auc"), ("lesion", "accuracy"), ("outline", "dice"),
                     ("outline", "accuracy")}  # fmt: skip


def test_the_shipped_scenario_declares_two_tasks_a_site():
    """Each site of the scenario `segmentation` has a dense task and one for whole images."""
    pairs = resolve_sites(load_scenario("segmentation"), None, None)
    assert [[t.kind for t in site.tasks] for _, site in pairs] == [["multi-class", "dense"]] * 2
    small = {"records": 40}
    for _, site in pairs:
        check(site.model_copy(update={"data": site.data.model_copy(update=small)}))


def test_the_printed_table_has_a_line_a_task():
    """The table shows Dice for dense tasks, AUC and accuracy for the others."""
    rows = [
        {"site": "north", "task": task, "metric": metric, "split": "test", "value": value,
         "model": "federated-dp"}
        for task, metric, value in (("lesion", "auc", 0.75), ("lesion", "accuracy", 0.5),
                                    ("outline", "dice", 0.25), ("outline", "accuracy", 0.96))
    ]  # fmt: skip
    site = {"name": "north", "epsilon": 7.5, "delta": 1e-5}
    report = {"results": rows, "sites": [site], "unit": "image"}
    lines = [" ".join(line.split()) for line in result_table(report).splitlines()]
    assert lines[:4] == [
        "test images auc dice accuracy epsilon",
        "north lesion 0.750 - 0.500 7.500",
        "north outline - 0.250 - 7.500",
        "mean 0.750 0.250 0.500",
    ]
