#!/usr/bin/env bash
# flwr-datasets 0.6.1: IidPartitioner on a data set of one's own gives contiguous shards, not random ones.
# Expected: "Partitioner creates each partition sampled randomly from the dataset" (its docstring), also where it is
#   used without FederatedDataset, as the documentation does for local data (`partitioner.dataset = dataset`).
# Seen: it takes no seed and calls shard(contiguous=True), so a file sorted by label, which tables often are, is
#   divided into clients of one label each. FederatedDataset hides it by shuffling first.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install flwr-datasets==0.6.1 datasets==4.8.5
cat > "$folder/show.py" <<'PY'
from importlib.metadata import version

from datasets import Dataset
from flwr_datasets.partitioner import IidPartitioner

print({name: version(name) for name in ("flwr-datasets", "datasets")})
print("says:", IidPartitioner.__doc__.splitlines()[0])
parts = IidPartitioner(num_partitions=4)
parts.dataset = Dataset.from_dict({"label": [i // 100 for i in range(400)]})
labels = [sorted(set(parts.load_partition(i)["label"])) for i in range(4)]
print("labels of each client:", labels)
assert "randomly" in IidPartitioner.__doc__
assert labels == [[0], [1], [2], [3]], "the behaviour has changed"
PY
"$folder/venv/bin/python" "$folder/show.py"
