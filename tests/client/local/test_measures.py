"""Measures and intervals of a local evaluation, against other ways to compute them."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from client.evaluation import accuracy, auc
from client.evaluation import dice as federated_dice
from client.local.bootstrap import Bootstrap, mean, share
from client.local.calibration import Calibration
from client.local.measures import (
    GRID,
    calibration_error,
    classified,
    outlined,
    overlaps,
)
from client.ranking import Ranking
from medformer.config import Task
from medformer.tasks import probabilities

RNG = np.random.default_rng(5)
TASKS = {
    "binary-class": Task(name="t", kind="binary-class", classes=2),
    "multi-class": Task(name="t", kind="multi-class", classes=4),
    "ordinal-regression": Task(name="t", kind="ordinal-regression", classes=4),
    "multi-label": Task(name="t", kind="multi-label", classes=3),
}


def measured(kind: str, rows: int = 150):
    """A result, and labels and probabilities that it is about."""
    task = TASKS[kind]
    logits = torch.randn(rows, task.outputs, generator=torch.Generator().manual_seed(1))
    shape = (rows, 3) if kind == "multi-label" else (rows,)
    labels = torch.from_numpy(RNG.integers(0, 2 if kind == "multi-label" else task.classes, shape))
    bootstrap = Bootstrap([str(i) for i in range(rows)], 200, 0)
    scale = Calibration(temperature=1.0, bias=(0.0,) * task.outputs)
    names = [f"c{i}" for i in range(task.classes)]
    found = classified(task, names, logits, labels, scale, bootstrap)
    return found, labels.numpy(), probabilities(logits, task).double().numpy()


@pytest.mark.parametrize("kind", TASKS)
def test_auc_and_accuracy_are_those_of_the_federation(kind: str):
    """They agree with the federation's measures, which are those of medmnist."""
    found, labels, given = measured(kind)
    assert found.measures["auc"].value == pytest.approx(auc(labels, given), abs=1e-12)
    assert found.measures["accuracy"].value == pytest.approx(accuracy(labels, given), abs=1e-12)
    for interval in found.measures.values():
        assert interval.low <= interval.value <= interval.high
        assert interval.low < interval.high


@pytest.mark.parametrize("kind", ["binary-class", "multi-class", "ordinal-regression"])
def test_the_confusion_matrix_and_the_table_agree(kind: str):
    """Rows are truths and columns answers; sensitivity, specificity and predictive value follow
    from them."""
    found, labels, given = measured(kind)
    table = np.array(found.confusion)
    chances = np.hstack([1 - given, given]) if kind == "binary-class" else given
    for truth, answer in ((0, 1), (1, 1), (1, 0)):
        assert table[truth, answer] == ((labels == truth) & (chances.argmax(1) == answer)).sum()
    for k, row in enumerate(found.classes):
        assert row.count == table[k].sum()
        assert row.measures["sensitivity"].value == pytest.approx(table[k, k] / table[k].sum())
        assert row.measures["positive predictive value"].value == pytest.approx(
            table[k, k] / table[:, k].sum()
        )
        others = np.delete(table, k, 0)
        assert row.measures["specificity"].value == pytest.approx(
            np.delete(others, k, 1).sum() / others.sum()
        )


def test_brier_kappa_and_distance_of_grades_by_hand():
    """Kappa with quadratic weights, written out over all pairs."""
    found, labels, given = measured("ordinal-regression")
    hot = np.eye(4)[labels]
    assert found.measures["brier"].value == pytest.approx(((given - hot) ** 2).sum(1).mean() / 2)
    answers = given.argmax(1)
    assert found.measures["mean distance of grades"].value == pytest.approx(
        np.abs(labels - answers).mean()
    )
    chance = np.mean([(a - b) ** 2 for a in labels for b in answers])
    kappa = 1 - ((labels - answers) ** 2).mean() / chance
    assert found.measures["weighted kappa"].value == pytest.approx(kappa)


def test_a_weight_is_a_repetition():
    """The AUC of weighted images is that of the images repeated, ties counted half."""
    positive, scores = RNG.integers(0, 2, 60) == 1, RNG.integers(0, 8, 60) / 8
    weights = RNG.integers(0, 4, (5, 60)).astype(float)
    ranking = Ranking(positive, scores)
    for row, found in zip(weights.astype(int), ranking.auc(weights), strict=True):
        again = auc(positive.repeat(row).astype(int), scores.repeat(row)[:, None])
        assert found == pytest.approx(again, abs=1e-12)


def test_the_area_under_the_curve_is_the_auc():
    """And the curve rises from 0 to 1."""
    positive, scores = RNG.integers(0, 2, 400) == 1, RNG.normal(size=400)
    scores = scores + positive
    ranking, ones = Ranking(positive, scores), np.ones((1, 400))
    curve = ranking.curve(ones, GRID)[0]
    assert np.trapezoid(curve, GRID) == pytest.approx(ranking.auc(ones)[0], abs=5e-3)
    assert curve[-1] == 1
    assert (np.diff(curve) >= 0).all()
    perfect = Ranking(positive, positive.astype(float)).curve(ones, GRID)[0]
    assert (perfect == 1).all()


def test_patients_are_drawn_not_images():
    """The interval is no narrower if each patient's image is there ten times."""
    values = RNG.normal(size=80)
    alone = Bootstrap([str(i) for i in range(80)], 2000, 0).interval(mean(values))
    many = np.repeat(values, 10)
    units = np.repeat(np.arange(80), 10).astype(str).tolist()
    patients = Bootstrap(units, 2000, 0).interval(mean(many))
    images = Bootstrap([str(i) for i in range(800)], 2000, 0).interval(mean(many))
    width = [x.high - x.low for x in (alone, patients, images)]
    assert width[1] == pytest.approx(width[0], rel=0.05)
    assert width[2] == pytest.approx(width[0] / 10**0.5, rel=0.1)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    """Coverage is counted over 300 samples of 100 from a known distribution."""
    covered = 0
    for seed in range(300):
        values = np.random.default_rng(seed).normal(3, 1, 100)
        found = Bootstrap([str(i) for i in range(100)], 300, seed).interval(mean(values))
        covered += found.low <= 3 <= found.high
    assert 0.91 <= covered / 300 <= 0.98


def test_chunks_of_resamples_change_nothing():
    """Memory is bounded by them."""
    values, units = RNG.normal(size=50), [str(i % 20) for i in range(50)]
    whole = Bootstrap(units, 300, 4).interval(mean(values))
    parts = Bootstrap(units, 300, 4, chunk=7 * 50).interval(mean(values))
    assert parts.model_dump() == pytest.approx(whole.model_dump(), rel=1e-12)


def test_a_share_without_an_error_still_has_an_interval():
    """The exact one, of as many trials as there are units: no resample could show an error."""
    hits = np.ones(30, dtype=bool)
    units = [str(i // 3) for i in range(30)]
    found = Bootstrap(units, 200, 0).share(hits, hits)
    exact = binomtest(10, 10).proportion_ci(0.95, "exact")
    assert (found.value, found.low, found.high) == (1, exact.low, exact.high)
    assert found.low < 0.75
    none = Bootstrap(units, 200, 0).share(hits, ~hits)
    assert none.value is none.low is None


def test_a_measure_that_most_resamples_lack_has_no_interval():
    """One positive image is not drawn by a third of them."""
    positive = np.arange(40) == 0
    found = Bootstrap([str(i) for i in range(40)], 300, 0).interval(
        Ranking(positive, RNG.normal(size=40)).auc
    )
    assert found.value is not None
    assert found.low is None


def test_a_class_that_nobody_has_leaves_the_auc_undefined():
    """As the federation has it; the others' rows stay."""
    task = TASKS["multi-class"]
    logits = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(40) % 3
    bootstrap = Bootstrap([str(i) for i in range(40)], 100, 0)
    scale = Calibration(bias=(0.0,) * 4)
    found = classified(task, list("abcd"), logits, labels, scale, bootstrap)
    assert found.measures["auc"].value is None
    assert found.classes[3].measures["auc"].value is None
    assert found.classes[3].roc is None
    assert found.classes[0].measures["auc"].low is not None


def test_the_calibration_error_by_hand():
    """One bin states 0.9 where 0.5 is observed, and another 0.2 where 0 is observed."""
    stated = np.array([[0.9], [0.9], [0.2], [0.2], [0.2], [0.2]])
    correct = np.array([[True], [False], [False], [False], [False], [False]])
    assert calibration_error(stated, correct) == pytest.approx((2 * 0.4 + 4 * 0.2) / 6)
    assert calibration_error(np.array([[1.0], [0.0]]), np.array([[True], [False]])) == 0


def test_the_reliability_bins_hold_every_answer_and_show_the_gain():
    """A head that is three times too sure is compared with its calibration."""
    task = TASKS["binary-class"]
    true = 2 * torch.randn(3000, 1, generator=torch.Generator().manual_seed(2))
    labels = (
        torch.rand(3000, generator=torch.Generator().manual_seed(3)) < true.sigmoid()[:, 0]
    ).long()
    bootstrap = Bootstrap([str(i) for i in range(3000)], 100, 0)
    found = classified(
        task, ["0", "1"], true, labels, Calibration(temperature=3, bias=(0.0,)), bootstrap
    )
    assert sum(b.count for b in found.reliability) == 3000
    assert found.calibration_error < 0.03
    assert found.calibration_error_before > 3 * found.calibration_error
    assert all(abs(b.stated - b.observed.value) < 0.08 for b in found.reliability)


def test_dice_is_the_federations():
    """Dice is computed over all images together, without unlabelled pixels."""
    task = Task(name="t", kind="dense", classes=3)
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(-1, 3, (20, 8, 8), generator=generator)
    logits = torch.randn(20, 3, 8, 8, generator=generator)
    counts = overlaps(logits, truth, 3)
    found = outlined(task, list("abc"), counts, Bootstrap([str(i) for i in range(20)], 200, 0))
    known = truth != -1
    wanted = federated_dice(truth[known], logits.argmax(1)[known], 3)
    assert found.measures["dice"].value == pytest.approx(wanted)
    right = float((truth == logits.argmax(1))[known].double().mean())
    assert found.measures["accuracy"].value == pytest.approx(right)
    assert found.measures["dice"].low < wanted < found.measures["dice"].high
    assert [row.name for row in found.classes] == ["b", "c"]


def test_a_share_is_weighted():
    """Hits among those asked about."""
    hits, among = np.array([True, True, False]), np.array([True, False, True])
    assert share(hits, among)(np.array([[3.0, 9.0, 1.0]]))[0] == 0.75


@pytest.mark.parametrize("kind", TASKS)
def test_a_head_that_is_very_sure_is_measured_as_well(kind: str):
    """At logits around 40, float32 probabilities would all be 0 or 1."""
    task = TASKS[kind]
    logits = torch.randn(60, task.outputs, generator=torch.Generator().manual_seed(1))
    shape = (60, 3) if kind == "multi-label" else (60,)
    labels = torch.from_numpy(RNG.integers(0, 2 if kind == "multi-label" else task.classes, shape))
    bootstrap = Bootstrap([str(i) for i in range(60)], 20, 0)
    scale = Calibration(bias=(0.0,) * task.outputs)
    names = [str(i) for i in range(task.classes)]

    def area(values: torch.Tensor) -> float | None:
        return classified(task, names, values, labels, scale, bootstrap).measures["auc"].value

    shifted = logits + (0 if kind == "ordinal-regression" else 40)
    assert area(shifted) == pytest.approx(area(logits), abs=1e-3)
