#!/usr/bin/env bash
# pydicom.pixels.apply_color_lut: a palette of 8-bit entries on 16-bit pixels.
# Expected (PS3.3, C.7.6.3.1.5): values beyond the table are mapped to its last entry; one of more than 256 entries
# (a real one has 1024 or 65536) is looked up by its index.
# Seen with pydicom 3.0.2, numpy 2.4.6: the index has the type of the entries, so that 256 is looked up as 0.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

ramp = np.arange(256, dtype=np.uint8)
image = Dataset()
for colour in ("Red", "Green", "Blue"):
    image.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 8])
    image.add_new(f"{colour}PaletteColorLookupTableData", "OW", ramp.tobytes())
values = np.array([[0, 255, 256, 4095]], np.uint16)
seen = apply_color_lut(values, image)[0, :, 0].tolist()
print("pydicom", pydicom.__version__, "numpy", np.__version__)
print("expected", [0, 255, 255, 255])
print("seen    ", seen)
assert seen == [0, 255, 0, 255]
PYTHON
