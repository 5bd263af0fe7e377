"""AUC and accuracy are those of medmnist.evaluator."""

import numpy as np
import pytest
from medmnist.evaluator import getACC, getAUC

from client.evaluation import accuracy, auc

RNG = np.random.default_rng(1)


def probabilities(rows: int, columns: int) -> np.ndarray:
    """With ties: scores of a small model often are equal."""
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
    """The mean over classes or labels, ties counted half."""
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
    """A small split may lack a class."""
    assert auc(truth, probabilities(len(truth), columns)) is None


def test_accuracy_of_nothing_is_none():
    """An empty split has no accuracy."""
    assert accuracy(np.zeros(0, int), probabilities(0, 1)) is None
