"""Divides one data set over sites, with flwr-datasets' partitioners."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from medformer.errors import ConfigError
from simulations.scenario import Split

Rows = list[int]
SMALLEST_PART = 16


def partition(labels: Sequence[int], split: Split, seed: int, part: str = "train") -> list[Rows]:
    """Rows of each site, sorted; together they are every row exactly once.

    Args:
        part: train or val, whose labels these are; for messages.
    Raises:
        ConfigError: Too few rows, or no division with at least 16 rows a site was found.
    """
    if len(labels) < SMALLEST_PART * split.sites:
        raise ConfigError(
            f"{split.dataset}: {part} has {len(labels)} images, too few for {split.sites} sites of "
            f"at least {SMALLEST_PART}: at most {len(labels) // SMALLEST_PART} sites can share them"
        )
    try:
        parts = _partitioner(labels, split, seed)
        return [sorted(parts.load_partition(i)["index"]) for i in range(split.sites)]
    except ValueError as error:
        raise ConfigError(
            f"alpha {split.alpha:g} over {split.sites} sites leaves a site with fewer than "
            f"{SMALLEST_PART} of the {len(labels)} images of {part}: use a larger alpha or fewer "
            "sites"
        ) from error


def _partitioner(labels: Sequence[int], split: Split, seed: int) -> Any:
    from datasets import Dataset, disable_progress_bars
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner

    disable_progress_bars()
    rows = {"label": [int(x) for x in labels], "index": list(range(len(labels)))}
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
    """SHA-256 of a list of rows, so that two runs can show that they used the same division."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
