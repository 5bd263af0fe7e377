"""With `freeze_own`, sites train together nothing but what they share."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from client.guard import Guard
from client.policy import Policy
from client.site import Site
from client.trainable import planned
from client.training import site_model, trained_names
from medformer.config import ModelConfig, Task
from medformer.errors import ConfigError
from medformer.sharing import is_concept, is_local
from server.protocol import AdmitAnswer, Phase, Refusal, Schedule, TrainAnswer
from server.run.recipes import kinds, labels
from server.run.recipes.declared import Declared, Sites
from server.run.recipes.recipe import Recipe
from tests.conftest import CELLS, CHEST, CONFIG, admit, ledger_rows, train

Open = Callable[..., Guard]
SHARED: ModelConfig = CONFIG.between([CHEST, CHEST])


def frozen(schedule: Schedule, **changes: Any) -> Schedule:
    (phase,) = (p.model_copy(update={"freeze_own": True, **changes}) for p in schedule.phases[:1])
    return schedule.model_copy(update={"phases": (phase,)})


def test_no_tensor_of_the_sites_own_is_trained(site: Site, schedule: Schedule):
    """Neither where everything is trained nor where heads are; all else is trained as before."""
    model = site_model(SHARED, site.tasks)
    (usual,) = schedule.phases[:1]
    before = trained_names(model, site, usual)
    assert any(map(is_local, before))
    names = trained_names(model, site, frozen(schedule).phases[0])
    assert names == [name for name in before if not is_local(name)]
    heads = trained_names(model, site, frozen(schedule, trains="heads").phases[0])
    assert heads
    assert all(map(is_concept, heads))


def test_a_round_leaves_the_sites_state_as_it_was(open_guard: Open, site: Site, schedule: Schedule):
    """The guard sends exactly what it trained."""
    guard = open_guard(site)
    asked = frozen(schedule)
    assert isinstance(guard.handle(admit(asked, config=SHARED)), AdmitAnswer)
    answer = guard.handle(train(asked, 1, config=SHARED))
    assert isinstance(answer, TrainAnswer), answer
    model = site_model(SHARED, site.tasks)
    assert sorted(answer.tensors) == sorted(trained_names(model, site, asked.phases[0]))


@pytest.mark.parametrize(("config", "concepts"), [(CONFIG, True), (SHARED, False)])
def test_a_site_that_would_learn_no_answer_refuses(
    config: ModelConfig, concepts: bool, site: Site, schedule: Schedule
):
    """Without concepts its own heads answer, and these are frozen."""
    planned(site, config, schedule, concepts=concepts)
    with pytest.raises(ConfigError, match=r"freeze_own.*nothing would learn to answer"):
        planned(site, config, frozen(schedule), concepts=concepts)


def test_a_site_with_dense_tasks_alone_refuses(site: Site, schedule: Schedule):
    """Concepts do not answer per pixel, and the head that does is frozen."""
    outline = Task(name="outline", kind="dense", classes=2)
    dense = site.model_copy(update={"tasks": (outline,)})
    planned(dense, SHARED, schedule)
    with pytest.raises(ConfigError, match=r"has tasks per pixel alone.*leave freeze_own out"):
        planned(dense, SHARED, frozen(schedule, trains="heads"))
    both = site.model_copy(update={"tasks": (*site.tasks, outline)})
    planned(both, SHARED, frozen(schedule, trains="heads"))


def test_a_policy_that_changes_leaves_nothing_to_train(
    open_guard: Open, site: Site, schedule: Schedule
):
    """The round is refused before its attempt is charged."""
    guard = open_guard(site)
    asked = frozen(schedule)
    assert isinstance(guard.handle(admit(asked, config=SHARED)), AdmitAnswer)
    policy = Policy(objectives=("supervised",), max_epsilon_per_run=50, concepts="own-heads")
    answer = replace(guard, policy=policy).handle(train(asked, 1, config=SHARED))
    assert isinstance(answer, Refusal)
    assert (answer.code, "nothing would learn to answer" in answer.reason) == ("policy", True)
    assert not [row for row in ledger_rows(guard.folder) if row["kind"] == "attempt"]


def test_the_guard_refuses_it_before_a_reservation(
    open_guard: Open, site: Site, schedule: Schedule
):
    """Nothing is charged for a run that would not learn."""
    guard = open_guard(site)
    answer = guard.handle(admit(frozen(schedule), config=CONFIG))
    assert isinstance(answer, Refusal)
    assert not [row for row in ledger_rows(guard.folder) if row["kind"] == "reservation"]


@pytest.mark.parametrize("changes", [{"shared_with": "nobody"}, {"trains": "own-heads"}])
def test_it_needs_something_that_is_sent(changes: dict[str, str]):
    """Nothing would be left to train in a phase that sends nothing."""
    values = {"name": "p", "rounds": 1, "objectives": {"supervised": 1.0}, "freeze_own": True}
    Phase.model_validate(values)
    with pytest.raises(ValidationError, match="freeze_own leaves what sites share"):
        Phase.model_validate(values | changes)


def test_a_recipe_freezes_in_all_phases_that_send():
    """Own heads are trained at the end all the same, and so is a copy of everything alone."""
    alike = Sites(declared=(Declared(domain=CHEST), Declared(domain=CHEST)))
    course = labels.phases(Recipe(freeze_own=True), alike)
    assert {p.name: p.freeze_own for p in course} == {
        "heads": True, "together": True, "heads-again": True, "own-heads": False
    }  # fmt: skip
    apart = Sites(declared=(Declared(domain=CHEST), Declared(domain=CELLS)))
    alone = [p for p in kinds.phases(Recipe(freeze_own=True), apart) if not p.sends]
    assert alone
    assert not any(p.freeze_own for p in alone)
