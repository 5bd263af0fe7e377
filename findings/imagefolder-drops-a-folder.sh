#!/usr/bin/env bash
# Hugging Face `imagefolder`: one folder with a split's name makes all others disappear.
# Versions: datasets 4.8.5, Pillow 12.0.0.
# Expected: every picture is in some split, or a warning says which are not (the guide names no
# folder that is left out). Seen: of `train/` and `holdout/`, `holdout/` is not read, nor are
# pictures in class folders beside `test/`; nothing is said. Alone, the same folders are read.
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


def splits(name: str, *folders: str) -> dict[str, int]:
    top = Path(name)
    for folder in folders:
        for i in range(3):
            file = top / folder / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), i).save(file)
    found = datasets.load_dataset("imagefolder", data_dir=name, cache_dir="cache")
    return {split: len(part) for split, part in found.items()}


alone = splits("alone", "holdout/glioma", "holdout/healthy")
beside = splits("beside", "train/glioma", "train/healthy", "holdout/glioma", "holdout/healthy")
mixed = splits("mixed", "glioma", "healthy", "test/glioma", "test/healthy")
print("holdout alone, 6 pictures:          ", alone)
print("train and holdout, 12 pictures:     ", beside)
print("classes and test beside them, 12:   ", mixed)
assert alone == {"train": 6}, alone
assert beside == {"train": 6}, beside
assert mixed == {"test": 6}, mixed
PY
