"""A site measures the final model once a run: it is charged first, and answers the same again."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from client import release
from client.commands.consent import summary
from client.guard import Guard
from client.ledger import export as ledger_file
from client.privacy.plan import solve
from client.site import Site
from client.trainable import planned
from medformer.config import Task
from server.protocol import (
    AdmitAnswer,
    Answer,
    Measure,
    MeasureAnswer,
    Phase,
    Refusal,
    Schedule,
    source_hash,
)
from server.protocol.record_counts import Statistics
from server.protocol.score_counts import BINS, Evaluation, read_score_counts
from server.run.pretraining import initial_shared
from tests.conftest import CONFIG, OPACITY, OPEN, admit, ledger_rows, train

Open = Callable[..., Guard]
OUTLINE = Task(name="outline", kind="dense", classes=2)


@pytest.fixture
def measured(schedule: Schedule) -> Schedule:
    """Return the schedule of other tests with a measurement at its end."""
    return schedule.model_copy(update={"evaluation": Evaluation(epsilon=2.0, min_count=1)})


def measure(schedule: Schedule, scale: float = 1.0) -> Measure:
    """Return the request for a measurement, with seeded shared tensors."""
    tensors = {k: np.float32(scale) * v for k, v in initial_shared(CONFIG, 0).items()}
    return Measure("run-1", source_hash(), schedule_hash=schedule.hash(), tensors=tensors)


def refused(answer: Answer, code: str, words: str) -> None:
    """Check a refusal."""
    assert isinstance(answer, Refusal), answer
    assert answer.code == code
    assert words in answer.reason


def test_a_site_measures_once_and_sends_the_same_counts_again(
    open_guard: Open, site: Site, measured: Schedule
):
    """The answer is signed, fits the plan, and a lost one is sent again byte for byte."""
    guard = open_guard(site)
    admitted = guard.handle(admit(measured))
    assert isinstance(admitted, AdmitAnswer)
    for number in (1, 2, 3):
        guard.handle(train(measured, number))
    answer = guard.handle(measure(measured))
    assert isinstance(answer, MeasureAnswer), answer
    counts = read_score_counts(answer.counts)
    plan = solve(measured, site.privacy, site.tasks).evaluation
    assert plan is not None
    assert counts.std == plan.noise_std
    assert [(one.task, one.output) for one in counts.outputs] == [("chest", 1)]
    assert len(counts.outputs[0].shown or ()) == BINS
    assert answer.signed
    assert open_guard(site).handle(measure(measured)) == answer
    kinds = [row.kind for row in ledger_file.read(guard.folder)]
    assert kinds[-2:] == ["measurement", "measurement-answer"]
    # The row that the server learns is that of the charge, before a record was read.
    rows = {row.hash: row.kind for row in ledger_file.read(guard.folder)}
    assert rows[answer.ledger_hash] == "measurement"
    assert release.check(answer, exact=False) is answer


def test_a_second_model_is_refused(open_guard: Open, site: Site, measured: Schedule):
    """Two models would be two draws for one charge."""
    guard = open_guard(site)
    guard.handle(admit(measured))
    assert isinstance(guard.handle(measure(measured)), MeasureAnswer)
    refused(guard.handle(measure(measured, 0.9)), "bad-request", "measures one model, once")


def test_a_measurement_is_charged_before_a_record_is_read_and_never_drawn_twice(
    open_guard: Open, site: Site, measured: Schedule
):
    """A site that dies while it measures has spent its measurement."""
    guard = open_guard(site)
    guard.handle(admit(measured))

    def dies(_: Site, split: str):
        assert split == "test"
        assert ledger_rows(guard.folder)[-1]["kind"] == "measurement"
        raise OSError("the disk is gone")

    assert isinstance(replace(guard, read=dies).handle(measure(measured)), Refusal)
    refused(guard.handle(measure(measured)), "attempt-lost", "no second one")


def test_counts_that_were_changed_or_lost_do_not_leave(
    open_guard: Open, site: Site, measured: Schedule
):
    """The ledger holds the hash of what was charged."""
    guard = open_guard(site)
    guard.handle(admit(measured))
    assert isinstance(guard.handle(measure(measured)), MeasureAnswer)
    kept = guard.folder / "runs" / "run-1" / "measurement"
    kept.write_text(kept.read_text().replace("0", "1"))
    refused(guard.handle(measure(measured)), "attempt-lost", "no answer to give")


def test_a_run_without_a_measurement_measures_nothing(
    open_guard: Open, site: Site, schedule: Schedule
):
    """Nothing was charged for it."""
    guard = open_guard(site)
    guard.handle(admit(schedule))
    refused(guard.handle(measure(schedule)), "bad-request", "measures nothing")


def test_more_tasks_than_were_admitted_are_refused(
    open_guard: Open, site: Site, measured: Schedule
):
    """The noise of the plan is that of the tasks at admission."""
    guard = open_guard(site)
    guard.handle(admit(measured))
    second = Task(name="second", kind="binary-class", classes=2)
    grown = replace(guard, site=site.model_copy(update={"tasks": (OPACITY, second)}))
    refused(grown.handle(measure(measured)), "policy", "not those of the admitted counts")


@pytest.mark.parametrize(
    ("update", "sensitivity"), [({"n_labelled": 0}, None), ({}, pytest.approx(2**0.5))]
)
def test_a_site_without_labels_measures_nothing(
    site: Site, measured: Schedule, update: dict[str, int], sensitivity: float | None
):
    """Its plan has no measurement, so that it costs nothing. Outlines are measured, too."""
    tasks = (OPACITY, OUTLINE)
    phase = Phase(name="all", rounds=1, objectives={"inpainting": 1.0}, expected_batch_size=16)
    schedule = measured.model_copy(update={"phases": (phase,)})
    plan = solve(schedule, site.privacy.model_copy(update=update), tasks)
    assert sensitivity == (plan.evaluation and plan.evaluation.max_grad_norm)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"evaluation": Evaluation(epsilon=2.0)}, "at most 1000 classes and labels"),
        ({"statistics": Statistics(epsilon=2.0)}, "at most 100 tasks with 10000 classes"),
    ],
)
def test_more_counts_than_an_answer_holds_are_refused_before_they_cost(
    site: Site, schedule: Schedule, counts: dict[str, Any], said: str
):
    """A message has a limit, and a count that cannot be sent would be charged all the same."""
    many = [Task(name=f"t{i}", kind="multi-class", classes=9_000) for i in range(2)]
    if "statistics" in counts:
        counts = {**counts, "phases": (), "spare_rounds": 0}
    with pytest.raises(ValueError, match=said):
        solve(schedule.model_copy(update=counts), site.privacy, many)


def test_the_plan_pays_for_the_measurement(site: Site, schedule: Schedule, measured: Schedule):
    """By itself it costs its epsilon; with it the training has more noise, and the run's epsilon
    stays. Adding the two epsilons would cost far more."""
    plan = planned(site, CONFIG, measured)
    without = planned(site, CONFIG, schedule)
    assert plan.evaluation is not None
    alone = solve(
        measured.model_copy(update={"evaluation": Evaluation(epsilon=2.0)}),
        site.privacy,
        site.tasks,
    ).evaluation
    assert alone == plan.evaluation
    training = [p.noise_multiplier for p in plan.phases if p.rounds]
    before = [p.noise_multiplier for p in without.phases if p.rounds]
    assert before < training
    assert max(training) < 1.1 * max(before)
    assert plan.epsilon <= site.privacy.epsilon
    assert plan.evaluation.noise_multiplier == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        (Evaluation(epsilon=9.0), "lower the epsilon of the run's `evaluation`"),
        (Evaluation(epsilon=1e-7), "which the arithmetic of the noise may cost"),
    ],
)
def test_an_impossible_measurement_is_refused_before_a_record_is_read(
    open_guard: Open, site: Site, schedule: Schedule, evaluation: Evaluation, words: str
):
    """The refusal names what to change."""
    schedule = schedule.model_copy(update={"evaluation": evaluation})
    refused(open_guard(site).handle(admit(schedule)), "policy", words)


def test_a_phase_may_not_have_the_name_of_the_measurement(site: Site, schedule: Schedule):
    """Plan and report tell phases apart by name."""
    phase = schedule.phases[0].model_copy(update={"name": "evaluation"})
    with pytest.raises(ValueError, match="may not be named 'evaluation'"):
        solve(schedule.model_copy(update={"phases": (phase,)}), site.privacy)


@pytest.mark.parametrize(
    ("limit", "words"), [(None, "set max_epsilon_evaluation"), (1.0, "(1, max_epsilon_evaluation)")]
)
def test_the_policy_decides_whether_figures_leave(
    open_guard: Open, site: Site, measured: Schedule, limit: float | None, words: str
):
    """Without leave the whole run is refused, before its budget is reserved."""
    policy = OPEN.model_copy(update={"max_epsilon_evaluation": limit})
    guard = replace(open_guard(site), exact=False, policy=policy)
    refused(guard.handle(admit(measured)), "policy", words)
    assert "reservation" not in [row["kind"] for row in ledger_rows(guard.folder)]
    allowed = replace(guard, policy=policy.model_copy(update={"max_epsilon_evaluation": 2.0}))
    assert isinstance(allowed.handle(admit(measured)), AdmitAnswer)
    assert isinstance(allowed.handle(measure(measured)), MeasureAnswer)


def test_the_sites_own_minimum_counts_too(open_guard: Open, site: Site, measured: Schedule):
    """A class with fewer records than policy.yaml asks for is left out."""
    policy = OPEN.model_copy(update={"max_epsilon_evaluation": 5.0, "min_evaluated": 100_000})
    guard = replace(open_guard(site), exact=False, policy=policy)
    guard.handle(admit(measured))
    answer = guard.handle(measure(measured))
    assert isinstance(answer, MeasureAnswer)
    assert read_score_counts(answer.counts).outputs[0].shown is None


def test_who_approves_reads_what_is_measured(site: Site, measured: Schedule):
    """And no longer that no count leaves."""
    text = summary(site, measured, CONFIG, planned(site, CONFIG, measured), 0.0, 20.0)
    assert "measured once on this site's test records" in " ".join(text.split())
    assert "but for the counts below" in " ".join(text.split())


def test_the_schedule_of_a_run_that_measures_nothing_is_that_of_earlier_versions(
    schedule: Schedule, measured: Schedule
):
    """Ledgers and signed reports hold its hash."""
    assert "evaluation" not in json.loads(schedule.canonical())
    assert Schedule.model_validate_json(measured.canonical()) == measured
    assert measured.hash() != schedule.hash()
