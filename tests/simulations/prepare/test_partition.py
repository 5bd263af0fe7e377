"""Divisions of one data set over sites."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from medformer.errors import ConfigError
from simulations.prepare.partition import divide, fingerprint, partition
from simulations.prepare.sites import resolve_sites
from simulations.scenario import Split
from simulations.scenario_file import load_scenario

LABELS = [i % 5 for i in range(1000)]
FEWER = [i % 5 for i in range(150)]
DRAWN = {
    ("iid", 0): "7dc613f6dce73e13705006bc4672afd9bcc724f53370cea3e9f37c2a7bea3729",
    ("iid", 3): "38c789dad7cb7bb4feebed7d6f65d05dddd3fe86fcee30ede77d12337ca9f7c3",
    ("dirichlet", 0): "a9cc67c66243cdbb0d96703a77ee61f4c3e2f8eabf231291e01a1bd0231a79b1",
    ("dirichlet", 3): "febb86a158dbf9532d2d964889f71cc59bc78a32c67e201ba64f50418df557e4",
}
"""Divisions of `LABELS` over four sites at alpha .3, as reported results were made with."""


def split_of(method: str, sites: int = 4, alpha: float = 0.3) -> Split:
    return Split(dataset="x", sites=sites, method=method, alpha=alpha)  # type: ignore[arg-type]


def shares(labels: npt.NDArray[np.int64], rows: list[int]) -> npt.NDArray[np.float64]:
    """Return the share of each class among these rows."""
    return np.bincount(labels[rows], minlength=int(labels.max()) + 1) / len(rows)


@pytest.mark.parametrize("method", ["iid", "dirichlet"])
@pytest.mark.parametrize("sites", [2, 5])
def test_parts_cover_every_row_exactly_once(method: str, sites: int):
    """And the same seed gives the same parts."""
    split = split_of(method, sites, 0.5)
    labels = {"train": LABELS, "val": FEWER}
    divided = divide(labels, split, 3)
    for part, own in labels.items():
        assert len(divided[part]) == sites
        assert sorted(row for rows in divided[part] for row in rows) == list(range(len(own)))
        assert all(rows == sorted(rows) for rows in divided[part])
    assert divided == divide(labels, split, 3)
    assert divided["train"] == partition(LABELS, split, 3)
    assert divided["train"] != partition(LABELS, split, 4)


@pytest.mark.parametrize(("method", "seed"), DRAWN)
def test_train_is_divided_as_when_results_were_reported(method: str, seed: int):
    """Another draw would be another experiment under the same seed."""
    parts = partition(LABELS, split_of(method), seed)
    assert fingerprint([fingerprint(rows) for rows in parts]) == DRAWN[method, seed]  # type: ignore[misc]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("alpha", [0.1, 0.5, 5.0])
def test_a_site_has_the_same_labels_in_val_as_in_train(seed: int, alpha: float):
    """A class's images lie at the sites in the same shares, to a row; they were drawn apart, and
    one site had .23 of a label in one and 1.0 in the other."""
    rng = np.random.default_rng(seed)
    train, val = rng.choice(3, 3000, p=[0.6, 0.3, 0.1]), rng.choice(3, 500, p=[0.6, 0.3, 0.1])
    divided = divide({"train": train, "val": val}, split_of("dirichlet", alpha=alpha), seed)
    for label in range(3):
        whole = int((train == label).sum()), int((val == label).sum())
        for mine, own in zip(divided["train"], divided["val"], strict=True):
            expected = (train[mine] == label).sum() / whole[0] * whole[1]
            assert abs((val[own] == label).sum() - expected) <= 1.0 + 1e-9
    for mine, own in zip(divided["train"], divided["val"], strict=True):
        if len(own) >= 50:
            assert np.abs(shares(train, mine) - shares(val, own)).max() < 0.1


def test_a_class_that_train_lacks_is_divided_by_size_and_no_site_is_without_val():
    """Each site has validation rows, however few rows the class has."""
    train = np.array([0] * 900 + [1] * 100)
    val = np.array([0] * 20 + [1] * 3 + [2] * 10)
    for seed in range(10):
        rows = divide({"train": train, "val": val}, split_of("dirichlet"), seed)["val"]
        assert min(map(len, rows)) >= 1
        assert sorted(r for part in rows for r in part) == list(range(33))


def test_an_even_division_asks_for_no_label():
    """Several labels an image, as ChestMNIST has, are divided as one is."""
    many = {"train": np.zeros((80, 14), np.uint8), "val": np.ones((40, 14), np.uint8)}
    one = {"train": [0] * 80, "val": [1] * 40}
    assert divide(many, split_of("iid", 2), 0) == divide(one, split_of("iid", 2), 0)
    with pytest.raises(ConfigError, match=r"x: an image has 14 labels, .* use method: iid"):
        divide(many, split_of("dirichlet", 2), 0)


def test_a_smaller_alpha_is_more_skewed():
    """The largest share of one label at a site grows."""

    def skew(alpha: float) -> float:
        parts = partition(LABELS, split_of("dirichlet", alpha=alpha), 0)
        return float(np.mean([shares(np.array(LABELS), part).max() for part in parts]))

    assert skew(0.3) > skew(100) + 0.1


def test_impossible_divisions_are_refused():
    """The message names the set, its part, their sizes and what would do."""
    with pytest.raises(ConfigError, match="x: train has 100 images, too few for 40 sites of at le"):
        partition(LABELS[:100], split_of("iid", 40), 0)
    with pytest.raises(ConfigError, match="of at least 16: at most 6 sites can share them"):
        partition(LABELS[:100], split_of("iid", 40), 0)
    with pytest.raises(ConfigError, match="val has 3 images, too few for 4 sites of at least 1"):
        divide({"train": LABELS, "val": [0, 1, 0]}, split_of("dirichlet"), 0)
    with pytest.raises(ConfigError, match=r"alpha 0\.01 over 8 sites .* 16 of the 546 images of t"):
        partition([0] * 147 + [1] * 399, split_of("dirichlet", 8, 0.01), 0)


def test_validation_is_not_held_to_the_limit_of_training(tmp_path: Path):
    """BreastMNIST has 546 training images and 78 of validation: five sites are enough for it."""
    parts = {"train": 546, "val": 78, "test": 156}
    arrays = {f"{p}_images": np.zeros((n, 28, 28), np.uint8) for p, n in parts.items()}
    arrays |= {f"{p}_labels": (np.arange(n) % 4 > 0).astype(np.uint8) for p, n in parts.items()}
    np.savez_compressed(tmp_path / "breastmnist.npz", **arrays)
    (tmp_path / "s.yaml").write_text("name: b\nsplit: {dataset: breastmnist, sites: 5}\n")
    scenario = load_scenario(str(tmp_path / "s.yaml"))
    assert len(resolve_sites(scenario, tmp_path / "out", tmp_path)) == 5
