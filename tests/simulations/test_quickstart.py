"""The quickstart, which a newcomer sees first: its losses fall, and it shows every part."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from client.simulated import open_guard
from server.run.coordinate import Run
from server.run.metrics import read_metrics
from simulations.baselines.derived import LEAVES_OUT, leaves_something_out
from simulations.baselines.jobs import LocalFleet
from simulations.prepare.prepare import prepare
from simulations.scenario_file import load_scenario
from simulations.start.public import start_of


def test_it_shows_every_part_of_the_design():
    """Self-supervision, adaptation, sharing with all and then within a kind, heads at home, and a
    hospital that joins at the end; each part can be left out in a baseline."""
    scenario = load_scenario("quickstart")
    phases = scenario.schedule.phases
    assert [phase.shared_with for phase in phases] == sorted(
        (phase.shared_with for phase in phases), key=["all", "kind", "nobody"].index
    )
    assert {phase.shared_with for phase in phases} == {"all", "kind", "nobody"}
    assert any(not phase.needs_labels for phase in phases)
    assert phases[-1].trains == "own-heads"
    assert all(leaves_something_out(baseline, scenario.schedule) for baseline in LEAVES_OUT)
    (joining,) = (site for site in scenario.sites if site.joins == "at-end")
    assert joining.head is not None
    assert joining.head.labelled == 64


@pytest.mark.slow
def test_its_losses_fall_while_heads_train(tmp_path: Path):
    """The two chest sites, by the quickstart's own settings. A step that momentum lengthens tenfold
    makes the loss of the iterates rise from the third round on, whatever their average is worth."""
    scenario = load_scenario("quickstart")
    heads = tuple(phase for phase in scenario.schedule.phases if phase.trains == "heads")
    chests = tuple(site for site in scenario.members if site.name.startswith("chest"))
    short = scenario.model_copy(update={"phases": heads, "recipe": None, "sites": chests})
    prepared = prepare(short, tmp_path, data_root=None, state_dir=None)
    guards = {site.name: open_guard(tmp_path, i) for i, site in enumerate(prepared.sites)}
    run = Run(LocalFleet(guards), prepared.federation, tmp_path)
    run.execute(lambda: start_of(prepared.federation, tmp_path, None))
    assert json.loads((tmp_path / "summary.json").read_text())["rounds"] == heads[0].rounds
    rows = [row for row in read_metrics(tmp_path) if row["event"] == "round"]
    for name in guards:
        losses = [row["exact_loss"] or 0.0 for row in rows if row["site"] == name]
        # Each round is measured on other images, under noise: a tenth is the size of that.
        assert max(after - before for before, after in pairwise(losses)) < 0.1, losses
        assert losses[-1] < losses[0], losses
