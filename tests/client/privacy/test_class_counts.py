"""Class weights come from a differentially private count that is charged, drawn once and never
sent."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from client.admitted import CLASS_COUNT, NoiseFor
from client.data.records import Records, Stack
from client.guard import Guard
from client.ledger.ledger import Ledger, Reservation
from client.privacy.accounting import Steps, epsilon, gaussian_epsilon
from client.privacy.counts.classes import (
    MAX_WEIGHT,
    MIN_WEIGHT,
    histogram,
    noisy_counts,
    weighted,
)
from client.privacy.noise import NoiseSource, SeededNoise
from client.privacy.plan import (
    ALLOWANCE,
    ARITHMETIC_EPSILON,
    BALANCE,
    SPARE,
    count_sensitivity,
    solve,
)
from client.round import RoundResult, one_round
from client.site import Privacy, Site
from medformer.config import UNLABELLED, Task
from medformer.model import Medformer
from server.protocol import (
    AdmitAnswer,
    Answer,
    Phase,
    Refusal,
    Schedule,
    TrainAnswer,
    metadata,
)
from tests.conftest import CHEST, OPACITY, admit, ledger_rows, train

SIGNS = Task(name="signs", kind="multi-label", classes=3)
STAGE = Task(name="stage", kind="multi-class", classes=4)
PLACE = Task(name="place", kind="dense", classes=2, labels="masks")
TASKS = (STAGE, SIGNS, PLACE)
COUNTED = Privacy(epsilon=8, n_public=64, epsilon_budget=20, class_balance_noise=20)

Open = Callable[..., Guard]


def labelled(count: int) -> Records:
    """Return records with every task: the first is invalid, the second unlabelled, the third has
    all labels."""
    generator = torch.Generator().manual_seed(0)
    stage = torch.randint(0, 4, (count,), generator=generator)
    signs = torch.randint(0, 2, (count, 3), generator=generator)
    stage[1], signs[1], signs[2] = UNLABELLED, UNLABELLED, 1
    labels = {"stage": stage, "signs": signs, "place": torch.zeros(count, 16, 16).long()}
    valid = torch.arange(count) > 0
    return Records((Stack(torch.zeros(count, 1, 16, 16), labels, valid),))


def joint(records: Records) -> torch.Tensor:
    return torch.cat([histogram(records, task) for task in (STAGE, SIGNS)])


def test_one_image_moves_the_counts_by_at_most_the_sensitivity():
    """An image moves one count of a single-label task and up to three of three labels; outlines are
    not counted."""
    whole = labelled(30)
    moved = []
    for i in range(30):
        rows = torch.tensor([j for j in range(30) if j != i])
        moved.append(float((joint(whole) - joint(Records((whole.stacks[0][rows],)))).norm()))

    assert max(moved) == pytest.approx(count_sensitivity(TASKS)) == 2
    assert moved[:2] == [0, 0]


def test_noise_has_the_stated_standard_deviation():
    """Each count has independent noise."""
    records, std = labelled(40), 20 * count_sensitivity(TASKS)
    source = SeededNoise("balance")
    draws = torch.stack(
        [
            torch.cat([torch.tensor(v) for v in noisy_counts(records, TASKS, std, source).values()])
            for _ in range(4000)
        ]
    )
    noise = draws - joint(records)

    assert noise.std(0).tolist() == pytest.approx([std] * 7, rel=0.05)
    assert noise.mean(0).abs().max() < 4 * std / 4000**0.5
    assert (torch.corrcoef(noise.T) - torch.eye(7)).abs().max() < 0.08


def test_the_count_is_a_phase_of_its_own_and_charged_with_all_steps(schedule: Schedule):
    """The count is one step without sampling, and the training noise grows to make room for it."""
    privacy = Privacy(epsilon=8, n_public=64, class_balance_noise=4)
    with_ = solve(schedule, privacy, TASKS)
    without = solve(schedule, privacy.model_copy(update={"class_balance_noise": None}), TASKS)
    counted = with_.balance
    assert counted is not None
    assert [p.name for p in with_.phases] == [BALANCE, "supervised", SPARE]
    assert (counted.rounds, counted.steps, counted.sample_rate) == (0, 1, 1.0)
    assert (counted.noise_multiplier, counted.max_grad_norm) == (4, 2)
    assert without.balance is None

    steps = [p.mechanism() for p in with_.phases]
    assert with_.epsilon == epsilon(steps, with_.delta) + ARITHMETIC_EPSILON
    assert epsilon(steps[1:], with_.delta) < with_.epsilon <= 8  # at equal training noise
    assert with_.phases[1].noise_multiplier > without.phases[0].noise_multiplier
    assert with_.progress[0][1] > epsilon([with_.phases[1].mechanism(2)], with_.delta)


def test_a_count_and_unsampled_steps_compose_as_gaussians_do():
    """Precisions add up, by the closed form of Balle and Wang 2018."""
    ours = epsilon([Steps(1.0, 20, 1), Steps(1.0, 4, 3)], 1e-5)

    joined = (1 / 20**2 + 3 / 4**2) ** -0.5
    assert ours == pytest.approx(gaussian_epsilon(joined, 1, 1e-5), rel=1e-3)


def test_what_cannot_be_planned_is_said(schedule: Schedule):
    """Refusals name a count that costs more than the run, a count without a task, and a phase with
    the name of the count."""
    dear = Privacy(epsilon=0.5, n_public=64, class_balance_noise=1)
    with pytest.raises(ValueError, match=r"cost epsilon .* of 0\.5: raise"):
        solve(schedule, dear, TASKS)
    with pytest.raises(ValueError, match="no task to count"):
        solve(schedule, COUNTED, [PLACE])
    named = Schedule(phases=(Phase(name=BALANCE, rounds=1, objectives={"supervised": 1}),),
                     spare_rounds=0)  # fmt: skip
    with pytest.raises(ValueError, match="may not be named 'class-balance'"):
        solve(named, COUNTED.model_copy(update={"class_balance_noise": None}))


def test_weights_balance_the_classes_within_public_bounds():
    """Rare classes weigh more, and no noise moves a weight beyond the bounds."""
    counts = {"stage": [400.0, 200.0, 100.0, -7.0], "signs": [500.0, 100.0, 1e9]}
    stage, signs, place = weighted(TASKS, counts, 25.0, 1000)

    assert stage.class_weights == pytest.approx((725 / 1600, 725 / 800, 725 / 400, MAX_WEIGHT))
    assert signs.class_weights == pytest.approx((1.0, MAX_WEIGHT, MIN_WEIGHT))
    assert place is PLACE


def test_declared_and_counted_weights_exclude_each_other(site: Site):
    """A site cannot have both, nor a count without classes."""

    def declare(task: Task) -> None:
        Site.model_validate({**site.model_dump(), "tasks": [task], "privacy": COUNTED})

    declare(OPACITY)
    with pytest.raises(ValidationError, match=r"declares class_weights.*leave one of the two out"):
        declare(OPACITY.model_copy(update={"class_weights": (1.0, 2.0)}))
    with pytest.raises(ValidationError, match="needs a task whose classes can be counted"):
        declare(PLACE)


@pytest.fixture
def counting(site: Site) -> Site:
    return site.model_copy(update={"privacy": COUNTED})


@pytest.fixture
def guard(open_guard: Open, counting: Site, schedule: Schedule) -> Guard:
    """Return a guard that has admitted the run and trained nothing."""
    guard = open_guard(counting)
    assert isinstance(guard.handle(admit(schedule)), AdmitAnswer)
    return guard


def kinds(guard: Guard) -> list[object]:
    return [row["kind"] for row in ledger_rows(guard.folder)]


def counts_file(guard: Guard) -> Path:
    return guard.folder / "runs" / "run-1" / "class-counts"


def test_budget_comes_before_the_count_and_the_count_before_its_use(
    guard: Guard, schedule: Schedule
):
    """The attempt is on the ledger before the noise of the count is drawn. The counts are on the
    disk, and their hash on the ledger, before the first gradient."""
    seen: list[tuple[str, object, bool]] = []

    def noise_for(reservation: Reservation, round_: int, attempt: int) -> NoiseSource:
        event = "count" if round_ == CLASS_COUNT else "noise of the round"
        seen.append((event, kinds(guard)[2:], counts_file(guard).exists()))
        return guard.noise_for(reservation, round_, attempt)

    def spy(*given: Any) -> RoundResult:
        seen.append(("training", kinds(guard)[2:], counts_file(guard).exists()))
        return one_round(*given)

    spied = replace(guard, noise_for=noise_for, train=spy)
    assert isinstance(spied.handle(train(schedule)), TrainAnswer)

    assert seen == [
        ("count", ["attempt"], False),
        ("noise of the round", ["attempt", "class-balance"], True),
        ("training", ["attempt", "class-balance"], True),
    ]


def test_the_counts_have_noise_for_their_joint_sensitivity(
    open_guard: Open, counting: Site, schedule: Schedule
):
    """An image enters the counts of two tasks, so the noise is sqrt(2) times the declared one, plus
    the allowance for arithmetic."""
    second = OPACITY.model_copy(update={"name": "second"})
    guard = open_guard(counting.model_copy(update={"tasks": (OPACITY, second)}))
    asked: list[float] = []

    class Recorded(SeededNoise):
        def noised(self, total: torch.Tensor, std: float) -> torch.Tensor:
            asked.append(std)
            return super().noised(total, std)

    guard = replace(guard, noise_for=lambda _, round_, attempt: Recorded(round_, attempt))
    assert isinstance(guard.handle(admit(schedule)), AdmitAnswer)
    assert isinstance(guard.handle(train(schedule)), TrainAnswer)
    assert asked[:2] == [pytest.approx(20 * 2**0.5 * (1 + ALLOWANCE), rel=1e-12)] * 2


def test_classes_are_not_counted_where_patients_are_the_units(tmp_path: Path):
    """A patient may have any number of images, and the noise of a count hides one image."""
    folder = {"source": "folder", "path": str(tmp_path)}
    privacy = {**COUNTED.model_dump(), "unit": "patient"}
    with pytest.raises(ValidationError, match="class_balance_noise counts images"):
        Site.model_validate(
            {"name": "north", "domain": CHEST, "tasks": [OPACITY], "data": folder,
             "privacy": privacy}
        )  # fmt: skip


def test_the_loss_is_weighed_by_the_counts_on_the_disk(guard: Guard, schedule: Schedule):
    """Counts in memory are not used."""
    used: list[object] = []

    def spy(model: Medformer, *_: object) -> RoundResult:
        used.append(model.tasks["chest"].class_weights)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(guard, train=spy).handle(train(schedule))
    counts = json.loads(counts_file(guard).read_text())
    assert used == [weighted([OPACITY], counts, 20.0, 64)[0].class_weights]


def counted_once(guard: Guard) -> NoiseFor:
    """Return the guard's noise for rounds; a second class count fails the test."""

    def noise_for(reservation: Reservation, round_: int, attempt: int) -> NoiseSource:
        assert round_ != CLASS_COUNT, "the classes were counted again"
        return guard.noise_for(reservation, round_, attempt)

    return noise_for


@pytest.mark.parametrize("died", ["before the ledger row", "in the training", "never"])
def test_a_run_counts_once_in_all_its_rounds_attempts_and_processes(
    died: str,
    guard: Guard,
    open_guard: Open,
    counting: Site,
    schedule: Schedule,
    monkeypatch: pytest.MonkeyPatch,
):
    """Counts on the disk are reused, wherever the process died after they were written."""

    def die(*_: object) -> RoundResult:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if died == "before the ledger row":
            patch.setattr(Ledger, "record_count", die)
        dying = replace(guard, train=die) if died == "in the training" else guard
        with nullcontext() if died == "never" else pytest.raises(KeyboardInterrupt):
            dying.handle(train(schedule))
    before = counts_file(guard).read_bytes()
    again = replace(open_guard(counting, seed=2), noise_for=counted_once(guard))
    number, attempt = (2, 0) if died == "never" else (1, 1)
    assert isinstance(again.handle(train(schedule, number, attempt)), TrainAnswer)
    assert counts_file(guard).read_bytes() == before
    assert kinds(guard).count("class-balance") == 1


@pytest.mark.parametrize("harm", ["deleted", "changed"])
def test_counts_that_were_lost_are_not_drawn_again(harm: str, guard: Guard, schedule: Schedule):
    """A second draw would cost budget a second time."""
    guard.handle(train(schedule))
    if harm == "deleted":
        counts_file(guard).unlink()
    else:
        counts_file(guard).write_text('{"chest": [1.0, 2.0]}')
    drawn: list[int] = []

    def noise_for(reservation: Reservation, round_: int, attempt: int) -> NoiseSource:
        drawn.append(round_)
        return guard.noise_for(reservation, round_, attempt)

    answer = replace(guard, noise_for=noise_for).handle(train(schedule, 2))
    assert isinstance(answer, Refusal)
    assert answer.code == "internal-error"
    assert CLASS_COUNT not in drawn


def test_no_count_without_its_admission(open_guard: Open, site: Site, schedule: Schedule):
    """A site that asks for weights after a run was admitted waits for the next run. A site with new
    tasks is not counted with too little noise."""
    open_guard(site).handle(admit(schedule))
    counting = site.model_copy(update={"privacy": COUNTED})
    late = open_guard(counting)
    assert isinstance(late.handle(train(schedule)), TrainAnswer)
    assert not counts_file(late).exists()

    open_guard(counting).handle(admit(schedule, "run-2"))
    more = counting.model_copy(
        update={"tasks": (OPACITY, OPACITY.model_copy(update={"name": "second"}))}
    )
    assert isinstance(open_guard(more).handle(train(schedule, run_id="run-2")), Refusal)


def test_the_counts_noise_is_no_rounds_noise(guard: Guard, schedule: Schedule):
    """The count has a separate stream: the noise of a round, visible in its answer, must not
    uncover the counts."""
    asked: list[tuple[int, int]] = []
    first_values: set[tuple[float, ...]] = set()

    def noise_for(reservation: Reservation, round_: int, attempt: int) -> NoiseSource:
        asked.append((round_, attempt))
        values = guard.noise_for(reservation, round_, attempt).words(4)
        first_values.add(tuple(values.tolist()))
        return guard.noise_for(reservation, round_, attempt)

    spied = replace(guard, noise_for=noise_for)
    for number, attempt in ((1, 0), (1, 1), (2, 0)):
        spied.handle(train(schedule, number, attempt))
    assert asked == [(0, 0), (1, 0), (1, 1), (2, 0)]
    assert len(first_values) == 4


def test_no_message_depends_on_the_labels_but_through_the_noisy_tensors(
    open_guard: Open, counting: Site, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
):
    """The receipt of a site with one class equals that of a balanced site, and no field holds
    counts."""

    class Skewed(SeededNoise):
        """Noise of a class count that finds all records in the first class."""

        def noised(self, total: torch.Tensor, std: float) -> torch.Tensor:
            counted = len(total) == OPACITY.classes
            return super().noised(torch.tensor([64.0, 0.0]) if counted else total, std)

    def answers(name: str, noise: type[SeededNoise]) -> tuple[Answer, Answer]:
        guard = open_guard(counting.model_copy(update={"name": name}))
        guard = replace(guard, noise_for=lambda run, *parts: noise(name, run.row, *parts))
        return guard.handle(admit(schedule)), guard.handle(train(schedule))

    # A row's hash covers its time, so both ledgers get the same one.
    defaults = Ledger.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "clock", lambda: "2026-01-01T00:00:00+00:00")
    receipt, answer = answers("balanced", SeededNoise)
    other_receipt, other_answer = answers("skewed", Skewed)
    assert isinstance(receipt, AdmitAnswer)
    assert isinstance(answer, TrainAnswer)
    assert isinstance(other_answer, TrainAnswer)
    assert isinstance(other_receipt, AdmitAnswer)
    # Each guard signs with its own key, over the same text.
    assert replace(receipt, site="skewed", signed="") == replace(other_receipt, signed="")
    assert set(answer.tensors) == set(other_answer.tensors)
    assert set(metadata(answer)) == {
        "site", "round", "attempt", "exact_loss", "ledger_hash", "signed", "trained"
    }  # fmt: skip
    assert (answer.trained, answer.words) == ("", None)
    assert answer.ledger_hash == other_answer.ledger_hash
