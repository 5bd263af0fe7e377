"""AUC and accuracy equal those of medmnist.evaluator."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from medmnist.evaluator import getACC, getAUC

from client.data.records import Records, Stack
from client.evaluation import accuracy, auc, classified
from medformer.config import Task
from medformer.tasks import log_odds

RNG = np.random.default_rng(1)


def probabilities(rows: int, columns: int) -> np.ndarray:
    """Draw probabilities with ties, because scores of a small model are often equal."""
    return RNG.integers(0, 20, (rows, columns)) / 20


@pytest.mark.parametrize(
    ("kind", "truth", "columns"),
    [
        ("binary-class", RNG.integers(0, 2, 301), 1),
        ("multi-class", RNG.integers(0, 5, 301), 5),
        ("multi-class", RNG.integers(0, 2, 301), 2),
        ("ordinal-regression", RNG.integers(0, 4, 301), 4),
        ("multi-label, binary-class", RNG.integers(0, 2, (301, 6)), 6),
    ],
)
def test_values_are_those_of_medmnist(kind: str, truth: np.ndarray, columns: int):
    """AUC is the mean over classes or labels, and ties count half."""
    predicted = probabilities(len(truth), columns)
    assert auc(truth, predicted) == pytest.approx(getAUC(truth, predicted, kind), abs=1e-12)
    assert accuracy(truth, predicted) == pytest.approx(getACC(truth, predicted, kind), abs=1e-12)


@pytest.mark.parametrize(
    ("truth", "columns"),
    [
        (np.zeros(9, int), 1),
        (np.ones(9, int), 1),
        (np.array([0, 1, 0, 1]), 3),
        (np.array([[1, 0], [1, 1]]), 2),
        (np.zeros(0, int), 1),
    ],
)
def test_auc_of_a_missing_class_is_not_a_number_but_none(truth: np.ndarray, columns: int):
    """AUC is None for a split that lacks a class."""
    assert auc(truth, probabilities(len(truth), columns)) is None


def test_accuracy_of_nothing_is_none():
    """Accuracy is None for an empty split."""
    assert accuracy(np.zeros(0, int), probabilities(0, 1)) is None


def of_pairs(truth: np.ndarray, scores: np.ndarray) -> float:
    """Compute AUC by its definition: over all pairs of a positive and a negative, ties half."""
    ours, theirs = scores[truth == 1][:, None], scores[truth == 0][None]
    return float(((ours > theirs) + (ours == theirs) / 2).mean())


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 5, 40]))
def test_auc_is_the_share_of_pairs_in_the_right_order(seed: int, levels: int):
    """AUC equals the count over all pairs, with many ties or none, for each class."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(3), rng.integers(0, 3, 20)])
    scores = rng.integers(0, levels, (23, 3)).astype(np.float64)
    each = [of_pairs(truth == k, scores[:, k]) for k in range(3)]
    assert auc(truth, scores) == pytest.approx(np.mean(each), abs=1e-12)


def test_auc_of_a_model_that_diverged_is_none():
    """AUC is None if a score is NaN."""
    assert auc(np.array([0, 1, 0]), np.array([[0.1], [np.nan], [0.3]])) is None


KINDS = {
    "binary-class": 2,
    "multi-label": 3,
    "multi-class": 4,
}


def measured(task: Task, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float | None]:
    stack = Stack(
        torch.zeros(len(logits), 1, 16, 16),
        {task.name: labels},
        torch.ones(len(logits), dtype=torch.bool),
    )
    return classified(Records((stack,)), task, logits)


@given(
    kind=st.sampled_from(list(KINDS)),
    constant=st.integers(-(2**13), 2**13),
    spread=st.sampled_from([2.0**-3, 1.0, 2.0**5]),
    seed=st.integers(0, 1000),
)
def test_a_constant_added_to_a_heads_bias_changes_no_auc(
    kind: str, constant: int, spread: float, seed: int
):
    """A constant added to the logit of a binary task or label, or to all logits of a multi-class
    task, changes no AUC. Logits are multiples of 2^-7, so that the sum is exact in float32."""
    task = Task(name="t", kind=kind, classes=KINDS[kind])
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(np.round(rng.normal(0, spread * 64, (40, task.outputs))) / 64).float()
    shape = (40, task.outputs) if kind == "multi-label" else (40,)
    labels = torch.from_numpy(rng.integers(0, 2 if kind == "multi-label" else task.classes, shape))
    assert measured(task, logits + constant, labels)["auc"] == pytest.approx(
        measured(task, logits, labels)["auc"], abs=1e-12
    )


def test_one_class_of_several_against_the_others_may_move():
    """A constant added to one logit of several is another model: its AUC can change. Only the AUC
    of that class stays the same."""
    task = Task(name="t", kind="multi-class", classes=3)
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    before, after = log_odds(logits, task), log_odds(logits + torch.tensor([50.0, 0, 0]), task)
    assert torch.equal(before[:, 0].argsort(), after[:, 0].argsort())
    assert torch.allclose(after[:, 0] - before[:, 0], torch.tensor(50.0).double(), atol=1e-5)
    assert not torch.equal(before[:, 1].argsort(), after[:, 1].argsort())
