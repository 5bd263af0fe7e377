#!/usr/bin/env bash
# pydicom and native pixels whose High Bit is not Bits Stored - 1: 12 bits in the upper part of a 16-bit word.
# Expected (PS3.5, 8.1.1 and its note: "12 bits stored, and bit 15 specified as the high bit"): the upper 12 bits.
# Seen with pydicom 3.0.2: High Bit is not looked at. The unused-bits correction keeps the lowest 12 bits instead,
# so that the 4 most significant bits of every pixel are lost, without a warning.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

true = np.arange(4096, dtype="<u2").reshape(64, 64)
image = Dataset()
image.file_meta = FileMetaDataset()
image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
image.Rows = image.Columns = 64
image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 15, 0
image.PixelData = (true << 4).tobytes()
seen = image.pixel_array
print("pydicom", pydicom.__version__, "numpy", np.__version__)
print("expected", true[0, [1, 63]].tolist(), true[63, 63])
print("seen    ", seen[0, [1, 63]].tolist(), seen[63, 63])
assert (seen == (true << 4) % 4096).all()
PYTHON
