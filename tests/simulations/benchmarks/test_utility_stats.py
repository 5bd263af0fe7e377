"""Intervals of the utility benchmark: they use the usual AUC, and cover as they claim."""

import numpy as np
import pytest

from client.evaluation import auc
from simulations.benchmarks.utility.stats import Difference, Side, areas, weighted_auc
from simulations.benchmarks.utility.stats import difference as difference_of


def answers(classes: int, skill: float, seed: int = 0, count: int = 300):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(99).integers(0, classes, count)
    columns = 1 if classes == 2 else classes
    own = truth[:, None] == (np.arange(columns) if columns > 1 else 1)
    return truth, np.round(skill * own + rng.normal(0, 1, (count, columns)), 1)  # with ties


def sides(truth, *both, resamples: int = 2_000) -> tuple[Side, Side]:  # type: ignore[no-untyped-def]
    ours, theirs = (
        {s: [areas(truth, one, resamples) for one in sites] for s, sites in side.items()}
        for side in both
    )
    return ours, theirs


def difference(truth, ours, theirs, resamples: int = 2_000) -> Difference:  # type: ignore[no-untyped-def]
    return difference_of([sides(truth, ours, theirs, resamples=resamples)])


@pytest.mark.parametrize("classes", [2, 5])
def test_a_resample_has_the_auc_of_its_images(classes: int):
    """A weight equals the number of copies of an image."""
    truth, scores = answers(classes, 1.0)
    drawn = np.random.default_rng(1).integers(0, len(truth), (4, len(truth)))
    weights = np.stack([np.bincount(d, minlength=len(truth)) for d in drawn]).astype(float)
    expected = [auc(truth[d], scores[d]) for d in drawn]
    assert weighted_auc(truth, scores, weights) == pytest.approx(expected, abs=1e-12)


def test_a_verdict_is_what_the_interval_allows():
    """A large difference is a gain or a loss; equal models are no worse with enough seeds."""
    truth, _ = answers(5, 0)
    weak = {s: [answers(5, 0.8, s)[1]] for s in range(8)}
    strong = {s: [answers(5, 1.6, 100 + s)[1]] for s in range(8)}
    gain = difference(truth, strong, weak, resamples=300)
    assert gain.verdict == "gain"
    assert gain.lower < gain.mean < gain.upper
    assert gain.pairs == 8
    assert difference(truth, weak, strong, resamples=300).verdict == "loss"
    same = difference(truth, strong, strong, resamples=300)
    assert (same.mean, same.verdict) == (0.0, "no worse")
    few = {s: [answers(2, 0.3, s, 40)[1]] for s in range(2)}
    other = {s: [answers(2, 0.3, 50 + s, 40)[1]] for s in range(2)}
    assert difference(answers(2, 0, count=40)[0], few, other).verdict == "unresolved"


def test_seeds_are_paired():
    """Only seeds that both sides have count; having none in common is an error."""
    truth, scores = answers(2, 1.0)
    own, none = [scores], [0 * scores]
    assert difference(truth, {0: own, 1: own}, {1: own}, resamples=10).pairs == 1
    half = difference(truth, {0: [scores, 0 * scores]}, {0: none}, resamples=10).mean
    assert half == pytest.approx(difference(truth, {0: own}, {0: none}, resamples=10).mean / 2)
    with pytest.raises(ValueError, match="no seed in common"):
        difference(truth, {0: own}, {1: own})


def test_the_mean_over_sets_is_of_seeds_that_all_have():
    """The mean uses seeds that all sets have, and its interval is narrower than each set's."""
    pairs = []
    for k, c in enumerate((2, 5)):
        both = [{s: [answers(c, skill, s + 10 * k)[1]] for s in range(5 + k)} for skill in (1.2, 1)]
        pairs.append(sides(answers(c, 0)[0], *both, resamples=400))
    together = difference_of(pairs)
    shared = [{s: v for s, v in side.items() if s < 5} for side in pairs[1]]
    alone = [difference_of([pairs[0]]), difference_of([(shared[0], shared[1])])]
    assert together.pairs == 5
    assert together.mean == pytest.approx(np.mean([one.mean for one in alone]))
    width = together.upper - together.lower
    assert width < max(one.upper - one.lower for one in alone)


def test_an_interval_covers_the_true_difference_about_as_often_as_it_says():
    """With varying seeds and test images, the interval holds the true difference as often as it
    claims."""
    true = None
    held = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        size = 20_000 if true is None else 150
        truth = rng.integers(0, 2, size)
        shared = rng.normal(0, 1, size)

        def side(skill: float, rng=rng, truth=truth, shared=shared):  # type: ignore[no-untyped-def]
            return {s: [(skill * truth + shared + rng.normal(0, 0.5, len(truth)))[:, None]]
                    for s in range(5)}  # fmt: skip

        found = difference(truth, side(1.2), side(0.9), resamples=200 if true is not None else 4)
        if true is None:
            true = found.mean
            continue
        held += found.lower <= true <= found.upper
    assert held >= 48
