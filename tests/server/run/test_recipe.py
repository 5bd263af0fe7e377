"""The default recipe: the training of a run that lists no phases."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from medformer.errors import ConfigError
from server.consortium.declarations import RunFile, load_run
from server.protocol import Phase
from server.run.recipe import AVERAGE_LAST, Recipe
from simulations.scenario import Scenario
from simulations.scenario_file import load_scenario
from tests.conftest import CELLS, CHEST

CHEST_ELSEWHERE = CHEST.model_copy(update={"name": "chest-b"})


def rounds(phases: tuple[Phase, ...]) -> dict[str, int]:
    return {phase.name: phase.rounds for phase in phases}


def test_all_end_with_heads_and_sites_of_several_kinds_go_on_alone_before():
    """Each phase trains, sends and learns from labels as the recipe describes."""
    alike, unlike = (Recipe().phases(alike=a) for a in (True, False))
    assert rounds(alike) == {"heads": 45, "together": 75, "heads-again": 30}
    assert rounds(unlike) == {"heads": 45, "together": 15, "alone": 60, "heads-again": 30}
    assert [(p.trains, p.shared_with) for p in alike] == [
        ("heads", "all"), ("all", "all"), ("heads", "all"),
    ]  # fmt: skip
    assert [(p.trains, p.shared_with) for p in unlike] == [
        ("heads", "all"), ("all", "all"), ("all", "nobody"), ("heads", "nobody")
    ]  # fmt: skip
    assert {p.noise_floor for p in alike if p.trains == "heads"} == {4e-5}
    assert {p.noise_floor for p in (*alike, *unlike) if p.trains == "all"} == {1e-6}
    own = rounds(Recipe(alone_last=0.4).phases(alike=True))
    assert own == {"heads": 45, "together": 45, "alone": 60}
    assert rounds(Recipe(heads_last=0.0, heads_first=0).phases(alike=False)) == {"together": 150}


def test_every_number_of_rounds_is_divided_without_rest():
    """At least one round is left in which all sites train together."""
    for count in range(1, 60):
        for alike in (True, False):
            for more in ({}, {"heads_first": 0.01, "heads_last": 0.49, "alone_last": 0.49}):
                recipe = Recipe(**{"rounds": count, "heads_first": 0.45, **more})
                phases = recipe.phases(alike=alike)
                assert sum(p.rounds for p in phases) == count
                assert any(p.sends for p in phases)


def test_each_phase_takes_the_objectives_that_it_can_learn_from():
    """Heads need labels; a site alone has no other sites to be told apart from."""
    mix: dict[Any, float] = {"supervised": 1, "inpainting": 0.5, "domain_adversarial": 0.1}
    heads, together, alone, again = Recipe(local_steps=1, objectives=mix).phases(alike=False)
    assert heads.objectives == again.objectives == {"supervised": 1}
    assert together.objectives == mix
    assert alone.objectives == {"supervised": 1, "inpainting": 0.5}
    silent = Recipe(objectives={"inpainting": 1})
    assert rounds(silent.phases(alike=True)) == {"together": 150}
    adversarial = Recipe(local_steps=1, objectives={"domain_adversarial": 1})
    assert rounds(adversarial.phases(alike=False)) == {"together": 150}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"heads_first": 0.6, "alone_last": 0.5}, "leave none"),
        ({"heads_last": 0.3, "alone_last": 0.4}, "leave none"),
        ({"objectives": {"domain_adversarial": 1}}, "needs local_steps: 1"),
    ],
)
def test_what_makes_no_schedule_is_refused_when_it_is_read(values: dict[str, Any], text: str):
    """It is not refused as late as when the first site is asked."""
    with pytest.raises(ValidationError, match=text):
        Recipe(**values)


def run_file(folder: Path, **values: Any) -> RunFile:
    domains = {"north": CHEST, "south": CHEST_ELSEWHERE}
    sites = {name: domain.model_dump() for name, domain in domains.items()}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"name": "r", "pretraining": False, "sites": sites} | values))
    return load_run(path)


def test_a_run_of_real_sites_trains_by_it_too(tmp_path: Path):
    """It has the same phases, average and server rate as a simulation; the kinds of image decide
    how it ends."""
    federation = run_file(tmp_path).federation()
    assert federation.schedule.phases == Recipe().phases(alike=True)
    assert federation.schedule.average_last == AVERAGE_LAST
    assert federation.server_learning_rate == "sites"
    mixed = {"north": CHEST.model_dump(), "cells": CELLS.model_dump()}
    short = run_file(tmp_path, sites=mixed, recipe={"rounds": 10}).federation()
    assert rounds(short.schedule.phases) == {
        "heads": 3,
        "together": 1,
        "alone": 4,
        "heads-again": 2,
    }
    own = [{"name": "own", "rounds": 4, "objectives": {"supervised": 1}}]
    assert rounds(run_file(tmp_path, phases=own).federation().schedule.phases) == {"own": 4}
    with pytest.raises(ConfigError, match="either `recipe` or `phases`"):
        run_file(tmp_path, phases=own, recipe={"rounds": 10})


def test_a_scenario_without_phases_trains_by_it():
    """A divided data set is of one kind; listed sites are of the kinds of their sources."""
    divided = load_scenario("pneumonia")
    assert divided.schedule.phases == Recipe().phases(alike=True)
    listed = load_scenario("quickstart", ["recipe.rounds=10"])
    assert rounds(listed.schedule.phases) == {
        "heads": 3,
        "together": 1,
        "alone": 4,
        "heads-again": 2,
    }
    with pytest.raises(ValidationError, match="either `recipe` or `phases`"):
        Scenario.model_validate(
            {"name": "x", "recipe": {}, "split": {"dataset": "bloodmnist"},
             "phases": [{"name": "own", "rounds": 4, "objectives": {"supervised": 1}}]}
        )  # fmt: skip
