"""ROC curves of the final models: points that a threshold reaches, and no others."""

import numpy as np
import pytest

from simulations.judging.roc import GRID, _curve, sensitivities


def by_hand(shown: np.ndarray, scores: np.ndarray, rate: float) -> float:
    """The best threshold whose false-positive rate is not above `rate`, tried one by one."""
    best = 0.0
    for threshold in [np.inf, *scores]:
        called = scores >= threshold
        if called[~shown].mean() <= rate + 1e-9:
            best = max(best, called[shown].mean())
    return best


@pytest.mark.parametrize(("seed", "distinct"), [(0, 1_000), (1, 5), (2, 1)])
def test_each_point_is_the_best_threshold(seed: int, distinct: int):
    """With ties of many sizes, up to all images alike."""
    rng = np.random.default_rng(seed)
    shown, scores = rng.random(37) < 0.4, rng.integers(0, distinct, 37).astype(float)
    wanted = [by_hand(shown, scores, rate) for rate in GRID]
    assert sensitivities(shown, scores) == pytest.approx(wanted)


def test_rates_of_the_grid_are_met():
    """Five false alarms of a hundred are 5 %, however a fraction is rounded."""
    shown = np.r_[np.ones(10, bool), np.zeros(100, bool)]
    scores = np.r_[np.arange(10) + 94.4, np.arange(100)].astype(float)
    found = sensitivities(shown, scores)[list(GRID).index(0.05)]
    assert found == by_hand(shown, scores, 0.05)
    assert found > sensitivities(shown, scores)[list(GRID).index(0.045)]


@pytest.mark.parametrize("shown", [[True, True], [False, False]])
def test_a_class_without_a_contrast_has_no_curve(shown: list[bool]):
    """Nor has one whose scores are NaN."""
    none = {"auc": None, "rates": None}
    assert _curve(np.array(shown), np.array([0.1, 0.2])) == none
    assert _curve(np.array([True, False]), np.array([np.nan, 0.2])) == none
