#!/usr/bin/env bash
# Hugging Face `imagefolder`: split folders are found by their names in lower case alone.
# Versions: datasets 4.8.5, Pillow 12.0.0.
# Expected, by the guide "Create an image dataset": folders of splits become splits, as `training/`
# and `testing/` do. Seen: below `Training/` and `Testing/`, as Kaggle's brain tumour MRI set has
# them, everything is one split `train`, with the right labels and without a warning: the official
# test images train.
set -euo pipefail
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
python3 -m venv "$top/venv"
"$top/venv/bin/pip" install -q datasets==4.8.5 pillow==12.0.0
cd "$top"
HF_HUB_OFFLINE=1 HF_HOME="$top/home" HF_DATASETS_DISABLE_PROGRESS_BARS=1 "$top/venv/bin/python" - <<'PY'
from pathlib import Path

import datasets
import PIL
from PIL import Image

print("datasets", datasets.__version__, "Pillow", PIL.__version__)


def splits(*names: str) -> dict[str, int]:
    top = Path("-".join(names))
    for name in names:
        for label in ("glioma", "healthy"):
            for i in range(3):
                file = top / name / label / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (8, 8), i).save(file)
    found = datasets.load_dataset("imagefolder", data_dir=str(top), cache_dir="cache")
    assert all(part.features["label"].names == ["glioma", "healthy"] for part in found.values())
    return {name: len(part) for name, part in found.items()}


small, large = splits("training", "testing"), splits("Training", "Testing")
print("training, testing:", small)
print("Training, Testing:", large)
assert small == {"train": 6, "test": 6}, small
assert large == {"train": 12}, large
PY
