#!/usr/bin/env bash
# flwr-datasets 0.6.1: DirichletPartitioner with one seed gives a client other labels in each split.
# Expected: partitioners of `train` and `test` with the same alpha and seed model one client, so that its share of a
#   class is the same in both (Hsu et al. 2019, arXiv:1909.06335: a client's q ~ Dir(alpha p) describes the client).
# Seen: proportions are drawn again while a partition of that split is smaller than min_partition_size (default 10),
#   so a small test split leaves the sequence of draws at another point than train. No message names the other split.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install flwr-datasets==0.6.1 datasets==4.8.5 numpy==2.4.6
cat > "$folder/show.py" <<'PY'
import warnings
from importlib.metadata import version

import numpy as np
from datasets import Dataset, disable_progress_bars
from flwr_datasets.partitioner import DirichletPartitioner

warnings.simplefilter("ignore")
disable_progress_bars()
print({name: version(name) for name in ("flwr-datasets", "datasets", "numpy")})


def shares(count, seed):
    """Share of label 1 at each of four clients."""
    labels = [int(i % 4 > 0) for i in range(count)]
    parts = DirichletPartitioner(num_partitions=4, partition_by="label", alpha=0.3, seed=seed)
    parts.dataset = Dataset.from_dict({"label": labels})
    return np.array([np.mean(parts.load_partition(i)["label"]) for i in range(4)])


same = apart = 0
for seed in range(20):
    try:
        train, test = shares(4000, seed), shares(200, seed)
    except ValueError:  # ten draws were not enough
        continue
    worst = np.abs(train - test).max()
    same, apart = same + (worst < 0.1), apart + (worst > 0.5)
    print(seed, "train", train.round(2), "test", test.round(2), f"largest difference {worst:.2f}")
print(f"alike at {same} seeds, more than .5 apart at {apart}")
assert same and apart, "the behaviour has changed"
PY
"$folder/venv/bin/python" "$folder/show.py"
