#!/usr/bin/env bash
# pydicom.pixels.apply_color_lut: a segmented palette of 16-bit entries with an indirect segment.
# Expected (PS3.3, C.7.9.2.3): an indirect segment holds the byte offset of the first segment to be copied.
# Seen with pydicom 3.0.2: the number is used as an index of 16-bit words, so that other segments are copied,
# without a warning.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut
from pydicom.uid import ExplicitVRLittleEndian

# Discrete 10, 20; discrete 30, 40 (at byte 8, word 4); discrete 50, 60 (at byte 16, word 8); one copied from byte 8.
words = [0, 2, 10, 20, 0, 2, 30, 40, 0, 2, 50, 60, 2, 1, 8, 0]
image = Dataset()
image.file_meta = FileMetaDataset()
image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
for colour in ("Red", "Green", "Blue"):
    image.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [8, 0, 16])
    image.add_new(f"Segmented{colour}PaletteColorLookupTableData", "OW", np.array(words, "<u2").tobytes())
seen = apply_color_lut(np.arange(8, dtype=np.uint16)[None], image)[0, :, 0].tolist()
print("pydicom", pydicom.__version__, "numpy", np.__version__)
print("expected", [10, 20, 30, 40, 50, 60, 30, 40])
print("seen    ", seen)
assert seen == [10, 20, 30, 40, 50, 60, 50, 60]
PYTHON
