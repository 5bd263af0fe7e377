#!/usr/bin/env bash
# medmnist 3.0.2 with numpy 2.4.6: mmap_mode='r' reads all images of a split into memory.
# Expected: "If not None, read image arrays from the disk directly. This is useful to set `mmap_mode='r'` to save memory
#   usage when the dataset is large (e.g., PathMNIST-224)" (docstring of MedMNIST): 12.6 GiB of train images there.
# Seen: numpy.load ignores mmap_mode for .npz files, whose members it unpacks; the images are an ordinary array.
# torch is a stand-in with the one class that medmnist inherits from; nothing else of it is used.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install numpy==2.4.6 pandas==3.1.1 scikit-learn==1.9.1 scikit-image==0.26.0 \
    tqdm==4.70.1 pillow==13.0.0 fire==0.7.1
"$folder/venv/bin/pip" -q install --no-deps medmnist==3.0.2
mkdir -p "$folder/torch/utils/data"
touch "$folder/torch/__init__.py" "$folder/torch/utils/__init__.py"
echo 'class Dataset: pass' > "$folder/torch/utils/data/__init__.py"
cat > "$folder/show.py" <<'PY'
import sys
import tracemalloc
from importlib.metadata import version
from pathlib import Path

import numpy as np
from medmnist.dataset import BreastMNIST, MedMNIST

root = Path(sys.argv[1])
counts = {"train": 546, "val": 78, "test": 156}
arrays = {f"{s}_images": np.zeros((n, 224, 224), np.uint8) for s, n in counts.items()}
arrays |= {f"{s}_labels": np.zeros((n, 1), np.uint8) for s, n in counts.items()}
np.savez(root / "breastmnist_224.npz", **arrays)
del arrays
print({name: version(name) for name in ("medmnist", "numpy")})
print("says:", " ".join(MedMNIST.__init__.__doc__.split("mmap_mode (str, optional): ")[1].split()[:11]), "...")
tracemalloc.start()
images = BreastMNIST(split="train", root=str(root), size=224, mmap_mode="r").imgs
peak = tracemalloc.get_traced_memory()[1]
print(type(images).__name__, f"images of {images.nbytes >> 20} MiB, {peak >> 20} MiB taken")
assert not isinstance(images, np.memmap), "the behaviour has changed"
assert peak >= images.nbytes, "the behaviour has changed"
PY
PYTHONPATH="$folder" "$folder/venv/bin/python" "$folder/show.py" "$folder"
