"""Divisions of one data set over sites."""

import pytest

from medformer.errors import ConfigError
from simulations.partition import fingerprint, partition
from simulations.scenario import Split

LABELS = [i % 5 for i in range(1000)]


@pytest.mark.parametrize("method", ["iid", "dirichlet"])
@pytest.mark.parametrize("sites", [2, 5])
def test_parts_cover_every_row_exactly_once(method: str, sites: int):
    """And the same seed gives the same parts."""
    split = Split(dataset="x", sites=sites, method=method, alpha=0.5)  # type: ignore[arg-type]
    parts = partition(LABELS, split, 3)
    assert len(parts) == sites
    assert sorted(row for part in parts for row in part) == list(range(1000))
    assert [fingerprint(p) for p in parts] == [fingerprint(p) for p in partition(LABELS, split, 3)]
    assert parts != partition(LABELS, split, 4)


def test_a_smaller_alpha_is_more_skewed():
    """The largest share of one label at a site grows."""

    def skew(alpha: float) -> float:
        split = Split(dataset="x", sites=4, method="dirichlet", alpha=alpha)
        shares = []
        for part in partition(LABELS, split, 0):
            counts = [sum(LABELS[r] == label for r in part) for label in range(5)]
            shares.append(max(counts) / len(part))
        return sum(shares) / len(shares)

    assert skew(0.3) > skew(100) + 0.1


def test_impossible_divisions_are_refused():
    """Too few rows for the sites; the message counts those of the split that it names."""
    said = "x: val has 100 images, too few for 40 sites of at least 16: at most 6 sites"
    with pytest.raises(ConfigError, match=said):
        partition(LABELS[:100], Split(dataset="x", sites=40), 0, "val")
