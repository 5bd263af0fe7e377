"""Divides one data set over sites: train rows by flwr-datasets, the other parts in proportion."""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medformer.errors import ConfigError
from medformer.extensions.code import load
from medformer.extensions.reference import is_reference
from simulations.scenario import Split

Rows = list[int]
Labels = Sequence[int] | npt.NDArray[np.generic]
"""(N,), or (N, T) of several labels an image."""
SMALLEST_PART = 16
"""Minimum number of train rows of a site. It has at least one validation row."""


def divide(labels: Mapping[str, Labels], split: Split, seed: int) -> dict[str, list[Rows]]:
    """Divide every part of a data set over the sites of a split.

    A hospital's validation images come from the same patients as its training images, so where
    labels are skewed they are skewed alike: each class of the other parts is divided by the shares
    that the sites have of that class in `train`.

    Args:
        labels: Part (`train`, `val`) -> labels, (N,) or (N, T).
        split: The data set, the number of sites and the method.
        seed: Seed of the division.
    Returns:
        Part -> rows of each site.
    Raises:
        ConfigError: There is no such division, or images of several labels are to be divided by
            label.
    """
    trained = partition(labels["train"], split, seed)
    rows = {"train": trained}
    for part, own in labels.items():
        if part == "train":
            continue
        _enough(len(own), 1, split, part)
        # By class is the rule where an image has one; a partitioner of somebody else's, too.
        if split.method == "iid" or np.asarray(labels["train"]).squeeze().ndim > 1:
            rows[part] = _drawn(_partitioner(np.zeros(len(own)), split, seed), split)
        else:
            rows[part] = _alike(_classes(own, split), _classes(labels["train"], split), trained)
    return rows


def partition(labels: Labels, split: Split, seed: int) -> list[Rows]:
    """Divide the train rows: sorted lists that hold every row exactly once.

    Raises:
        ConfigError: Too few rows, no division with at least 16 rows a site was found, several
            labels an image by label, or a partitioner of somebody else's divides otherwise.
    """
    _enough(len(labels), SMALLEST_PART, split, "train")
    if is_reference(split.method):
        return _outside(labels, split, seed)
    # An even division reads no label, so that it works for images of several labels, too.
    classes = np.zeros(len(labels)) if split.method == "iid" else _classes(labels, split)
    try:
        return _drawn(_partitioner(classes, split, seed), split)
    except ValueError as error:
        raise ConfigError(
            f"{split.dataset}: alpha {split.alpha:g} over {split.sites} sites leaves a site with "
            f"fewer than {SMALLEST_PART} of the {len(labels)} images of train, in each of ten "
            "draws: use a larger alpha, fewer sites, or another seed"
        ) from error


def _outside(labels: Labels, split: Split, seed: int) -> list[Rows]:
    """Have a partitioner from outside divide the train rows, and check its answer."""
    where = f"split.method {split.method}"
    try:
        answer = load(split.method)(np.asarray(labels).copy(), split.sites, seed)
        parts = [sorted(int(row) for row in rows) for rows in answer]
    except ConfigError:
        raise
    except Exception as error:  # somebody else's code may raise anything
        raise ConfigError(f"{where}: fails with {type(error).__name__}: {error}") from error
    # A row at two sites would be one patient under two budgets.
    rows = [row for part in parts for row in part]
    if len(parts) != split.sites or sorted(rows) != list(range(len(labels))):
        raise ConfigError(
            f"{where}: gives each of the {len(labels)} rows to exactly one of {split.sites} sites; "
            f"got {len(parts)} lists with {len(rows)} rows, {len(set(rows))} of them different"
        )
    if (least := min(map(len, parts))) < SMALLEST_PART:
        raise ConfigError(f"{where}: gives a site {least} rows, fewer than {SMALLEST_PART}")
    return parts


def _enough(count: int, least: int, split: Split, part: str) -> None:
    if count < least * split.sites:
        raise ConfigError(
            f"{split.dataset}: {part} has {count} images, too few for {split.sites} sites of at "
            f"least {least}: at most {count // least} sites can share them"
        )


def _classes(labels: Labels, split: Split) -> npt.NDArray[np.int64]:
    """Return the class of each image, (N,)."""
    classes = np.asarray(labels)
    if classes.ndim == 2 and classes.shape[1] > 1:
        raise ConfigError(
            f"{split.dataset}: an image has {classes.shape[1]} labels, so that there is no one "
            "class to divide it by: use method: iid, or list its sites"
        )
    return classes.reshape(len(classes)).astype(np.int64)


def _alike(
    classes: npt.NDArray[np.int64], trained: npt.NDArray[np.int64], sites: Sequence[Rows]
) -> list[Rows]:
    """Divide the rows of another part by the shares that the sites have of each class in `train`.

    A class that `train` lacks is divided by the sizes of the sites. Each site gets at least one
    row.
    """
    parts: list[Rows] = [[] for _ in sites]
    sizes = np.array([len(rows) for rows in sites])
    for label in np.unique(classes):
        own = np.array([int((trained[rows] == label).sum()) for rows in sites])
        shares = np.cumsum(own if own.any() else sizes)
        rows = np.flatnonzero(classes == label)
        cuts = np.rint(shares / shares[-1] * len(rows)).astype(int)[:-1]
        for part, chosen in zip(parts, np.split(rows, cuts), strict=True):
            part.extend(chosen.tolist())
    for i, part in enumerate(parts):
        if not part:  # a site of few rows: one of its commonest class that there is
            commonest = np.bincount(trained[sites[i]], minlength=int(classes.max()) + 1)
            donors = [p for p in parts if len(p) > 1]
            row = max((r for p in donors for r in p), key=lambda r: int(commonest[classes[r]]))
            next(p for p in donors if row in p).remove(row)
            part.append(row)
    return [sorted(part) for part in parts]


def _drawn(parts: Any, split: Split) -> list[Rows]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # flwr-datasets warns of each draw that it repeats
        return [sorted(parts.load_partition(i)["index"]) for i in range(split.sites)]


def _partitioner(classes: npt.NDArray[np.generic], split: Split, seed: int) -> Any:
    from datasets import Dataset, disable_progress_bars
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner

    disable_progress_bars()
    rows = {"label": [int(x) for x in classes], "index": list(range(len(classes)))}
    parts = (
        IidPartitioner(num_partitions=split.sites)
        if split.method == "iid"
        else DirichletPartitioner(
            num_partitions=split.sites,
            partition_by="label",
            alpha=split.alpha,
            min_partition_size=SMALLEST_PART,
            seed=seed,
        )
    )
    parts.dataset = Dataset.from_dict(rows).shuffle(seed=seed)
    return parts


def fingerprint(rows: Rows) -> str:
    """Return the SHA-256 of a list of rows, by which two runs show that their division is equal."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
