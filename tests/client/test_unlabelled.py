"""A site without any label trains with the others where images alone teach something, and sits out
the phases that learn from labels alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from client.data.card.content import data_card
from client.data.sources import Npz
from client.guard import Guard
from client.policy import Policy
from client.privacy.plan import solve
from client.site import Privacy, Site
from client.state import Store
from client.trainable import ALWAYS_TRAINABLE, planned
from client.training import as_torch, site_model, trained_names
from medformer.config import UNLABELLED
from medformer.sharing import is_local
from server.protocol import AdmitAnswer, Phase, Refusal, Schedule, TrainAnswer
from server.protocol.receipt import read_receipt
from server.run.errors import UpdateRefused
from server.run.strategy import State, apply, check_update
from tests.conftest import CHEST, CONFIG, OPACITY, admit, ledger_rows, train

Open = Callable[..., Guard]
IMAGES = Phase(
    name="images", rounds=1, local_steps=2, objectives={"orientation": 1.0, "inpainting": 0.5},
    expected_batch_size=16, noise_floor=1e-4,
)  # fmt: skip
LABELS = Phase(name="labels", rounds=2, objectives={"supervised": 1.0}, expected_batch_size=16)
SCHEDULE = Schedule(phases=(IMAGES, LABELS), spare_rounds=1, average_last=0.5)


@pytest.fixture
def unlabelled(site: Site) -> Site:
    """Return a site that declares no label."""
    return site.model_copy(
        update={"privacy": Privacy(epsilon=8, n_public=64, n_labelled=0, epsilon_budget=20)}
    )


@pytest.fixture
def few_without_labels(tmp_path: Path) -> Site:
    """Return a site whose file has no label, and which does not say so."""
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.full((4, 28, 28), range(28), np.uint8)
        arrays[f"{split}_labels"] = np.full((4, 1), UNLABELLED if split == "train" else 1)
    np.savez(tmp_path / "none.npz", **arrays)
    task = OPACITY.model_copy(update={"labels": "labels"})
    data = Npz(source="npz", path=tmp_path / "none.npz")
    privacy = Privacy(epsilon=8, n_public=4)
    return Site(name="north", domain=CHEST, tasks=(task,), data=data, privacy=privacy)


def test_the_plan_charges_for_the_phases_with_images_alone(unlabelled: Site):
    """A phase that the site sits out has rounds and no step, so all of epsilon buys less noise for
    the other phases. The running epsilon stays where it is in these rounds."""
    plan = solve(SCHEDULE, unlabelled.privacy)
    assert [(p.name, p.rounds, p.steps) for p in plan.phases] == [
        ("images", 1, 2), ("labels", 2, 0), ("spare", 1, 2),
    ]  # fmt: skip
    assert plan.rounds == SCHEDULE.rounds
    labelled = unlabelled.privacy.model_copy(update={"n_labelled": None})
    assert plan.phases[0].noise_multiplier < solve(SCHEDULE, labelled).phases[0].noise_multiplier
    assert plan.progress[0][1] == pytest.approx(plan.progress[-1][1], abs=0.05)
    assert read_receipt(plan.to_json())["steps"] == 4


def test_running_epsilon_begins_at_nothing(unlabelled: Site):
    """Before its first step a site has spent no epsilon, or what arithmetic may cost."""
    late = Schedule(phases=(LABELS, IMAGES), spare_rounds=0)
    plan = solve(late, unlabelled.privacy)
    assert plan.progress[0][1] < 1e-3 < plan.progress[-1][1] <= plan.epsilon


def test_much_noise_refuses_no_phase_that_the_site_sits_out(unlabelled: Site):
    """Large noise makes admission look at the limits of the engine: of phases that it trains."""
    strict = unlabelled.privacy.model_copy(update={"epsilon": 0.05})
    plan = planned(unlabelled.model_copy(update={"privacy": strict}), CONFIG, SCHEDULE)
    assert plan.phases[0].noise_multiplier > ALWAYS_TRAINABLE


def test_a_run_with_labels_alone_has_no_use_for_the_site(unlabelled: Site, open_guard: Open):
    """It is refused before anything is reserved, in words that say what to do."""
    guard = open_guard(unlabelled)
    answer = guard.handle(admit(Schedule(phases=(LABELS,), spare_rounds=1)))
    assert isinstance(answer, Refusal)
    assert "add a phase with a self-supervised objective" in answer.reason
    assert not [row for row in ledger_rows(guard.folder) if row["kind"] == "reservation"]


def test_every_parameter_that_images_train_takes_the_private_step(
    unlabelled: Site, open_guard: Open
):
    """The self-supervised round sends each shared tensor that its objectives train, all of them
    with noise; the rounds that need labels send nothing and change nothing."""
    guard = open_guard(unlabelled)
    assert isinstance(guard.handle(admit(SCHEDULE)), AdmitAnswer)
    images = guard.handle(train(SCHEDULE, 1))
    assert isinstance(images, TrainAnswer)
    model = site_model(CONFIG, unlabelled.tasks)
    names = [n for n in trained_names(model, unlabelled, IMAGES) if not is_local(n)]
    assert set(images.tensors) == set(names)
    start = as_torch(train(SCHEDULE, 1).tensors)
    # Noise moves every single value: what no noise reached would be released as it is.
    for name, value in as_torch(images.tensors).items():
        assert bool((value != start[name]).all()), name
    for number in (2, 3):
        labels = guard.handle(train(SCHEDULE, number))
        assert isinstance(labels, TrainAnswer)
        assert labels.tensors == {}
        assert labels.exact_loss is None


def test_moments_take_the_private_step_and_nothing_else_moves(unlabelled: Site, open_guard: Open):
    """The phase releases the moments of every part of the features, each value with noise."""
    moments = Phase(
        name="moments", rounds=1, local_steps=2, objectives={"moments": 1.0},
        expected_batch_size=16, noise_floor=1e-4,
    )  # fmt: skip
    schedule = Schedule(phases=(moments, LABELS), spare_rounds=1)
    guard = open_guard(unlabelled)
    assert isinstance(guard.handle(admit(schedule)), AdmitAnswer)
    answer = guard.handle(train(schedule, 1))
    assert isinstance(answer, TrainAnswer)
    kinds = ("weight", "bias")
    assert set(answer.tensors) == {f"pretext.moments.{p}.{k}" for p in range(4) for k in kinds}
    assert all((value != 0).all() for value in answer.tensors.values())


def test_nothing_of_the_site_changes_in_a_round_that_it_sits_out(
    unlabelled: Site, open_guard: Open
):
    """Its own tensors after the last round are those that the images left."""
    guard = open_guard(unlabelled)
    guard.handle(admit(SCHEDULE))
    kept = []
    for number in (1, 2, 3):
        guard.handle(train(SCHEDULE, number))
        state = Store(guard.folder, "run-1").get_state(number + 1)
        assert state is not None
        kept.append(state.parameters)
    assert kept[0].keys() == kept[2].keys()
    assert all(torch.equal(kept[0][name], kept[2][name]) for name in kept[0])


def test_the_server_takes_no_update_for_an_answer_where_labels_are_needed():
    """The average is that of the sites that trained. Where images alone are enough, an empty answer
    is refused as before."""
    empty = TrainAnswer("east", 1, 0, {})
    shared = dict(train(SCHEDULE, 1).tensors)
    name = "encoder.norm.weight"
    given = {"site": "east", "round_": 1, "attempt": 0}
    check_update(empty, shared, 10.0, phase=LABELS, **given)
    with pytest.raises(UpdateRefused, match="holds no tensor"):
        check_update(empty, shared, 10.0, phase=IMAGES, **given)
    state = State(0, shared, {}, {})
    updates = {"east": {}, "north": {name: shared[name] + 1}}
    after = apply(
        state, updates, {"east": 1.0, "north": 1.0}, momentum=0.0, averages=False,
        learning_rate="sites",
    )  # fmt: skip
    assert after.shared[name] == pytest.approx(shared[name] + 1)


def test_a_policy_judges_the_steps_that_are_taken(unlabelled: Site):
    """A sample rate at which no step is taken exceeds no limit."""
    large = LABELS.model_copy(update={"expected_batch_size": 64})
    schedule = Schedule(phases=(IMAGES, large), spare_rounds=1)
    plan = solve(schedule, unlabelled.privacy)
    assert plan.phases[1].sample_rate == 1.0
    policy = Policy(
        objectives=("supervised", "orientation", "inpainting"), max_epsilon_per_run=8,
        min_noise_multiplier=0.2, max_expected_share=0.5, accept_unit_image=True,
        approval="automatic",
    )  # fmt: skip
    policy.check(unlabelled, schedule, CONFIG, plan)


def test_labels_that_are_not_there_are_not_counted():
    """The count of classes would cost epsilon for nothing."""
    with pytest.raises(ValidationError, match="leave one of the two out"):
        Privacy(n_public=64, n_labelled=0, class_balance_noise=20)


def test_the_data_card_asks_for_the_declaration(few_without_labels: Site):
    """Without it, every step of the site would add noise to the average and nothing else."""
    (warning,) = [w for w in data_card(few_without_labels).warnings if "label" in w]
    assert "Declare privacy.n_labelled: 0" in warning
    declared = few_without_labels.privacy.model_copy(update={"n_labelled": 0})
    silent = data_card(few_without_labels.model_copy(update={"privacy": declared}))
    assert not [w for w in silent.warnings if "label" in w]
