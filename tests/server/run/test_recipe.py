"""Recipes: the training of a run that lists no phases."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from client.node.joining import init
from client.policy import load_policy
from client.site import Privacy
from medformer.errors import ConfigError
from server.consortium.declarations import RunFile, load_run
from server.protocol import Phase
from server.run.recipes import few_labels, heads_only, kinds, labels, new_scanner
from server.run.recipes.choice import BUILDERS, choose
from server.run.recipes.declared import Declared, Sites
from server.run.recipes.heads_only import STEPS, THRESHOLD
from server.run.recipes.recipe import Recipe
from server.run.recipes.situation import situation_of
from server.run.recipes.training import AVERAGE_LAST
from simulations.scenario import Scenario
from simulations.scenario_file import load_scenario
from tests.conftest import CELLS, CHEST

CHEST_ELSEWHERE = CHEST.model_copy(update={"name": "chest-b"})


SITES = Sites(declared=(Declared(domain=CHEST), Declared(domain=CHEST_ELSEWHERE)))
UNLIKE = Sites(declared=(Declared(domain=CHEST), Declared(domain=CELLS)))
"""Every site has a kind of image to itself."""


def rounds(phases: tuple[Phase, ...]) -> dict[str, int]:
    return {phase.name: phase.rounds for phase in phases}


def named(situation: str) -> Recipe:
    return Recipe.model_validate({"for": situation})


def site(domain: Any = CHEST, **numbers: Any) -> Declared:
    return Declared(domain=domain, **numbers)


def test_all_end_with_heads_and_sites_of_several_kinds_go_on_alone_before():
    """Each phase trains, sends and learns from labels as the recipe describes."""
    alike, unlike = labels.phases(Recipe(), SITES), kinds.phases(Recipe(), UNLIKE)
    last = {"heads-again": 22, "own-heads": 8}
    assert rounds(alike) == {"heads": 45, "together": 75, **last}
    assert rounds(unlike) == {"heads": 45, "together": 15, "alone": 60, "heads-again": 30}
    assert [(p.trains, p.shared_with) for p in alike] == [
        ("heads", "all"), ("all", "all"), ("heads", "all"), ("own-heads", "all")
    ]  # fmt: skip
    assert [(p.trains, p.shared_with) for p in unlike] == [
        ("heads", "all"), ("all", "all"), ("all", "nobody"), ("heads", "nobody"),
    ]  # fmt: skip
    assert [p.name for p in alike if not p.sends] == ["own-heads"]
    assert {p.noise_floor for p in alike if p.trains != "all"} == {4e-5}
    assert {p.noise_floor for p in (*alike, *unlike) if p.trains == "all"} == {1e-6}
    own = rounds(labels.phases(Recipe(alone_last=0.4, heads_last=0.0), SITES))
    assert own == {"heads": 45, "together": 45, "alone": 60}
    bare = Recipe(heads_last=0.0, heads_first=0, alone_last=0.0)
    assert rounds(kinds.phases(bare, UNLIKE)) == {"together": 150}


@pytest.mark.parametrize("situation", ["labels", "kinds", "few-labels", "new-scanner"])
def test_own_heads_are_trained_where_sites_share_concepts(situation: str):
    """They take the last of the rounds of heads, and none where heads are trained anyway: without
    concepts, or where every site has a kind of image to itself."""
    build = BUILDERS[named(situation).situation or "labels"]
    *_, again, own = build(Recipe(), SITES)
    assert (again.name, own.name, own.trains) == ("heads-again", "own-heads", "own-heads")
    assert (own.noise_floor, own.shared_with) == (again.noise_floor, again.shared_with)
    without = build(Recipe(own_heads_last=0.0), SITES)
    assert sum(p.rounds for p in without) == 150
    assert abs(without[-1].rounds - again.rounds - own.rounds) <= 1  # rounding
    apart = Sites(declared=(Declared(domain=CHEST), Declared(domain=CELLS)))
    for sites in (apart, SITES.model_copy(update={"concepts": False})):
        assert build(Recipe(), sites)[-1].trains == "heads"
    assert build(Recipe(heads_last=0.0), SITES)[-1].trains == "all"


def test_sites_of_one_kind_share_with_each_other_all_the_way():
    """After rounds of all kinds, if the recipe says so, each kind goes on by itself, heads
    included. Where every site has a kind to itself, nothing changes."""
    course = kinds.phases(Recipe(together_first=0.1), SITES)
    last = {"heads-again": 22, "own-heads": 8}
    assert rounds(course) == {"heads": 45, "together": 15, "kind": 60, **last}
    assert [(p.trains, p.shared_with) for p in course] == [
        ("heads", "all"), ("all", "all"), ("all", "kind"), ("heads", "kind"),
        ("own-heads", "kind"),
    ]  # fmt: skip
    default = kinds.phases(Recipe(), SITES)
    assert rounds(default) == {"heads": 45, "kind": 75, **last}
    assert default == kinds.phases(Recipe(together_first=0.0), SITES)
    assert kinds.phases(Recipe(together_first=0.1), UNLIKE) == kinds.phases(Recipe(), UNLIKE)
    with pytest.raises(ValidationError, match="leave none"):
        Recipe(heads_last=0.3, together_first=0.4)
    with pytest.raises(ValidationError, match="leave one out"):
        Recipe(together_first=0.1, alone_last=0.4)


def test_few_labels_begin_with_all_images():
    """The other phases are those of sites with labels."""
    silent, moments, *others = few_labels.phases(Recipe(), SITES)
    assert (silent.name, silent.trains, silent.needs_labels) == ("self-supervised", "all", False)
    assert (moments.name, moments.rounds, moments.needs_labels) == ("moments", 4, False)
    assert [p.name for p in others] == [p.name for p in labels.phases(Recipe(), SITES)]


def test_a_new_scanner_is_prepared_for_in_every_phase():
    """The phases are those of `labels`, with half of the images retaken."""
    usual, again = labels.phases(Recipe(), SITES), new_scanner.phases(Recipe(), SITES)
    assert rounds(usual) == rounds(again)
    assert [p.objectives for p in again] == [{"half_rescanned": 1.0}] * 4


@pytest.mark.parametrize("situation", [None, "labels", "new-scanner"])
def test_a_site_that_would_train_in_no_phase_is_refused_with_the_remedy(situation: str | None):
    """It would add noise and teach nothing. Phases that need no label have work for it."""
    recipe = named(situation) if situation else Recipe()
    silent = Sites(declared=(site(), site(n_public=900, n_labelled=0)))
    with pytest.raises(ValueError, match=r"one site declares no labels.*joins: at-end"):
        choose(recipe, silent)
    asked = recipe.model_copy(update={"objectives": {"half_rescanned": 1.0, "alignment": 0.003}})
    takes_part = [
        Privacy(n_public=900, n_labelled=0).takes_part_in(p) for p in choose(asked, silent).phases
    ]
    assert takes_part == [False, True, False, False]
    assert choose(named("few-labels"), silent).situation == "few-labels"


def test_heads_only_trains_heads_and_then_own_heads():
    """The encoder stays as public pre-training made it, and no site's own heads stay zero."""
    shared, own = heads_only.phases(Recipe(rounds=30), SITES)
    assert (shared.rounds, shared.trains, shared.objectives) == (28, "heads", {"supervised": 1.0})
    assert (own.rounds, own.trains, own.objectives) == (2, "own-heads", {"supervised": 1.0})
    (phase,) = heads_only.phases(Recipe(rounds=30, own_heads_last=0.0), SITES)
    assert (phase.rounds, phase.trains) == (30, "heads")
    *_, own = few_labels.heads_alone(Recipe(rounds=30), SITES)
    assert (own.rounds, own.trains) == (2, "own-heads")
    assert choose(Recipe(heads_only=True), SITES).phases[0].trains == "heads"


@pytest.mark.parametrize("situation", sorted(BUILDERS))
def test_every_number_of_rounds_is_divided_without_rest(situation: str):
    """At least one round is left in which all sites train together."""
    for count in range(1, 60):
        for more in ({}, {"heads_first": 0.01, "heads_last": 0.49, "alone_last": 0.49}):
            recipe = Recipe(**{"rounds": count, "heads_first": 0.35, **more})
            phases = BUILDERS[situation](recipe, SITES)
            assert sum(p.rounds for p in phases) == count
            assert any(p.name in ("together", "kind") and p.sends for p in phases)


def test_each_phase_takes_the_objectives_that_it_can_learn_from():
    """Heads need labels; a site alone has no other sites to be told apart from."""
    mix: dict[Any, float] = {"supervised": 1, "inpainting": 0.5, "domain_adversarial": 0.1}
    course = kinds.phases(Recipe(local_steps=1, objectives=mix), UNLIKE)
    heads, together, alone, again = course
    assert heads.objectives == again.objectives == {"supervised": 1}
    assert together.objectives == mix
    assert alone.objectives == {"supervised": 1, "inpainting": 0.5}
    silent = Recipe(objectives={"inpainting": 1})
    assert rounds(labels.phases(silent, SITES)) == {"together": 150}
    adversarial = Recipe(local_steps=1, objectives={"domain_adversarial": 1})
    assert rounds(kinds.phases(adversarial, UNLIKE)) == {"together": 150}
    assert rounds(kinds.phases(adversarial, SITES)) == {"kind": 150}
    # Two chest sites tell their domains apart; the cells have one domain, so that all begin.
    recipe = Recipe(local_steps=1, objectives=mix)
    three = Sites(declared=(*SITES.declared, Declared(domain=CELLS)))
    together, kind = (p for p in kinds.phases(recipe, three) if p.trains == "all")
    assert (together.rounds, together.objectives) == (15, mix)
    assert (kind.shared_with, kind.objectives) == ("kind", {"supervised": 1, "inpainting": 0.5})
    (kind,) = (p for p in kinds.phases(recipe, SITES) if p.trains == "all")
    assert kind.objectives == mix
    assert rounds(kinds.phases(adversarial, three)) == {"together": 150}


@pytest.mark.parametrize(
    "values", [{"heads_first": 0.6, "alone_last": 0.5}, {"heads_last": 0.3, "alone_last": 0.4}]
)
def test_shares_that_leave_no_round_are_refused_when_they_are_read(values: dict[str, Any]):
    """It is not refused as late as when the first site is asked."""
    with pytest.raises(ValidationError, match="leave none"):
        Recipe(**values)


def test_an_impossible_phase_is_refused_when_the_scenario_is_read():
    """The error names the phase and what it needs."""
    mix = ["recipe.objectives.domain_adversarial=1", "recipe.objectives.supervised=1"]
    with pytest.raises(ConfigError, match="'together': domain_adversarial needs local_steps: 1"):
        load_scenario("pneumonia", mix)


@pytest.mark.parametrize(
    ("sites", "situation", "because"),
    [
        ([], "labels", "one kind of image"),
        ([site(), site()], "labels", "one kind of image"),
        ([site(), site(CELLS)], "kinds", "2 kinds of image"),
        ([site(n_public=1000, n_labelled=100)] * 2, "few-labels", "labels for 10 % of their"),
        ([site(n_public=1000, n_labelled=100), site()], "labels", "labels for 55 % of their"),
        ([site(n_public=1000), site(n_labelled=0)], "new-scanner", "one site declares no labels"),
        ([site(), site(n_labelled=0), site(n_labelled=0)], "new-scanner", "2 sites declare no"),
        ([site(n_labelled=0)], "few-labels", "labels for 0 %"),
        (
            [site(n_public=1000, n_labelled=100)] * 3 + [site(n_labelled=0)],
            "few-labels",
            "labels for 8 % of their",
        ),
        # Several kinds decide first: what shares an encoder is the larger question.
        ([site(), site(CELLS, n_labelled=0)], "kinds", "2 kinds of image"),
        # A number of labels without a number of units says nothing.
        ([site(n_labelled=10)], "labels", "one kind of image"),
        # A fraction does, before any file is read.
        ([site(fraction_labelled=0.1)] * 4 + [site(n_labelled=0)], "few-labels", "labels for 8 %"),
    ],
)
def test_the_situation_follows_from_what_sites_declare(
    sites: list[Declared], situation: str, because: str
):
    """The reason names the declarations that decided."""
    found, reason = situation_of(Sites(declared=tuple(sites)))
    assert found == situation
    assert because in reason


@pytest.mark.parametrize("situation", sorted(BUILDERS))
def test_a_named_situation_wins_over_every_declaration(situation: str):
    """Someone who knows the hospitals knows more than their declarations."""
    for sites in ([site()], [site(), site(CELLS)], [site(n_public=9, n_labelled=1)]):
        declared = Sites(declared=tuple(sites))
        choice = choose(named(situation), declared)
        assert (choice.situation, choice.phases) == (
            situation,
            BUILDERS[situation](Recipe(), declared),
        )
        assert choice.text.startswith(f"recipe for {situation}, because the run names it; ")


@pytest.mark.parametrize("situation", sorted(BUILDERS))
def test_the_page_names_the_objectives_that_a_policy_has_to_allow(situation: str, tmp_path: Path):
    """A site that allows the objectives of the table admits the recipe, and needs all of them. The
    drafted policy allows them."""
    page = Path("docs/howto/recipes.md").read_text().split("policy has to allow")[1]
    (line,) = (row for row in page.splitlines() if row.startswith("|") and f"`{situation}`" in row)
    allowed = set(re.findall("`([a-z_]+)`", line.split("|")[2]))
    declared = Sites(declared=(site(), site(CHEST_ELSEWHERE, n_public=900)))
    phases = choose(named(situation), declared).phases
    assert {name for phase in phases for name in phase.objectives} == allowed
    init(tmp_path / "north", "north")
    assert allowed <= set(load_policy(tmp_path / "north" / "policy.yaml").objectives)


def test_an_unknown_situation_is_refused_with_those_there_are():
    """`for` is the key of the file, and the errors call it so."""
    with pytest.raises(ConfigError, match=r"recipe\.for.*'labels', 'kinds', 'few-labels'"):
        load_scenario("pneumonia", ["recipe.for=scanner"])
    assert load_scenario("pneumonia", ["recipe.for=few-labels"]).choice.situation == "few-labels"
    assert load_scenario("few-labels").choice.situation == "few-labels"  # derived from fractions
    assert named("kinds").model_dump()["for"] == "kinds"


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
    assert federation.schedule.phases == labels.phases(Recipe(), SITES)
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


def test_the_numbers_that_members_declared_choose_the_recipe_and_stay_out_of_their_domains(
    tmp_path: Path,
):
    """Sites compare domains with their own site.yaml, which has these numbers elsewhere."""
    few = {"n_public": 1000, "n_labelled": 100, "epsilon": 3.0}
    members = {n: d.model_dump() | few for n, d in (("a", CHEST), ("b", CHEST_ELSEWHERE))}
    federation = run_file(tmp_path, sites=members).federation()
    assert federation.recipe == (
        "recipe for few-labels, because the sites declare labels for 10 % of their units; "
        "everything is trained, because not every site declares n_public, epsilon and delta"
    )
    assert federation.schedule.phases[0].name == "self-supervised"
    assert [s.domain for s in federation.sites] == [CHEST, CHEST_ELSEWHERE]


def test_a_scenario_without_phases_trains_by_it():
    """A divided data set is of one kind; listed sites are of the kinds of their sources."""
    divided = load_scenario("pneumonia")
    assert divided.schedule.phases == labels.phases(Recipe(), SITES)
    listed = load_scenario("modalities", ["recipe.rounds=10"])
    assert rounds(listed.schedule.phases) == {
        "heads": 3,
        "kind": 5,
        "heads-again": 2,
    }
    with pytest.raises(ValidationError, match="either `recipe` or `phases`"):
        Scenario.model_validate(
            {"name": "x", "recipe": {}, "split": {"dataset": "bloodmnist"},
             "phases": [{"name": "own", "rounds": 4, "objectives": {"supervised": 1}}]}
        )  # fmt: skip


def test_the_numbers_in_the_page_on_recipes_are_a_run(tmp_path: Path):
    """Its example declares what the text around it says."""
    page = (Path(__file__).parents[3] / "docs" / "howto" / "recipes.md").read_text()
    (text,) = re.findall(r"`declared.yaml`:\n\n```yaml\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "run.yaml"
    file.write_text(text)
    run = load_run(file)
    assert [(m.n_public, m.n_labelled, m.epsilon) for m in run.sites.values()] == [
        (900, None, 3.0), (400, 300, 3.0),
    ]  # fmt: skip
    assert run.federation().recipe.startswith("recipe for labels, because the sites declare one")
    assert f"{THRESHOLD:g} million" in page
    assert f"in {STEPS} steps" in page
