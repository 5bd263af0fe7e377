"""Axes and neighbours of a map of images, against another way to compute them."""

import numpy as np
import pytest

from simulations.judging.maps import NEIGHBOURS, neighbours_agree, principal


def test_axes_are_eigenvectors_of_the_covariance():
    """Variances along them are its largest eigenvalues, whatever the sign of an axis."""
    rng = np.random.default_rng(0)
    embedded = rng.normal(size=(40, 6)) * [3, 2, 1, 1, 0.5, 0.1] + 7
    points, explained = principal(embedded)
    values, axes = np.linalg.eigh(np.cov(embedded.T))
    assert explained == pytest.approx((values[-1] / values.sum(), values[-2] / values.sum()))
    along = (embedded - embedded.mean(0)) @ axes[:, [-1, -2]]
    assert np.abs(points) == pytest.approx(np.abs(along))
    assert principal(-embedded)[0] == pytest.approx(-points)  # the axes themselves stay


def test_equal_embeddings_have_one_place():
    """A constant model explains nothing, and nothing is divided by zero."""
    points, explained = principal(np.ones((9, 3)))
    assert not points.any()
    assert explained == (0.0, 0.0)


@pytest.mark.parametrize(("apart", "share"), [(9.0, 1.0), (0.0, None)])
def test_neighbours_agree_where_classes_lie_apart(apart: float, share: float | None):
    """An image is no neighbour of itself; each vote is counted by hand."""
    rng = np.random.default_rng(1)
    labels = np.arange(30) % 3
    embedded = rng.normal(size=(30, 4)) + apart * np.eye(4)[labels]
    right = 0
    for i in range(30):
        order = sorted((np.linalg.norm(embedded[i] - e), j) for j, e in enumerate(embedded))
        votes = [labels[j] for _, j in order if j != i][:NEIGHBOURS]
        counts = [votes.count(label) for label in range(3)]
        right += counts.index(max(counts)) == labels[i]
    assert neighbours_agree(embedded, labels) == right / 30
    assert share is None or right == 30 * share
