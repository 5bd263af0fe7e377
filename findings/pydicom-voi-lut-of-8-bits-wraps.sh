#!/usr/bin/env bash
# pydicom.pixels.apply_voi with a VOI LUT of more than 256 entries of 8 bits each.
# Expected (PS3.3, C.11.2.1.1): value v becomes entry v - first mapped, clipped to the ends of the table.
# Seen with pydicom 3.0.2, numpy 2.4.6: the index array has the type of the entries (uint8), so that the
# index wraps at 256: a ramp of 4096 entries becomes sixteen ramps, without a warning.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi

table = (np.arange(4096) * 255 // 4095).astype(np.uint16)
item = Dataset()
item.add_new("LUTDescriptor", "US", [4096, 0, 8])
item.add_new("LUTData", "US", table.tolist())
image = Dataset()
image.VOILUTSequence = [item]
values = np.array([0, 255, 256, 2048, 4095])
seen = apply_voi(values, image).tolist()
print("pydicom", pydicom.__version__, "numpy", np.__version__)
print("expected", table[values].tolist())
print("seen    ", seen)
assert seen == table[values % 256].tolist()
PYTHON
