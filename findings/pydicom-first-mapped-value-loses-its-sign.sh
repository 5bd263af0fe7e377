#!/usr/bin/env bash
# pydicom: the first mapped value of a VOI LUT in a file of implicit VR whose pixels are unsigned.
# Expected (PS3.3, C.11.2.1.1): it is signed (SS) if values may be negative after Rescale Intercept, as in CT.
# Seen with pydicom 3.0.2: the sign is taken from Pixel Representation, -400 is read as 65136, and all
# values are mapped to the first entry: the image is one shade of grey, without a warning.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_voi
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian

item = Dataset()
item.add_new("LUTDescriptor", "SS", [1024, -400, 16])
item.add_new("LUTData", "OW", np.arange(1024, dtype="<u2").tobytes())
image = Dataset()
image.file_meta = FileMetaDataset()
image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = "1.2.3"
image.PixelRepresentation = 0
image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, -1024, "HU"
image.VOILUTSequence = [item]
image.save_as(f"{sys.argv[1]}/a.dcm", enforce_file_format=True)
read = pydicom.dcmread(f"{sys.argv[1]}/a.dcm")
values = np.array([-400, 0, 400])
seen = apply_voi(values, read).tolist()
print("pydicom", pydicom.__version__, "numpy", np.__version__)
print("first mapped value: written -400, read", read.VOILUTSequence[0].LUTDescriptor[1])
print("expected", (values + 400).tolist())
print("seen    ", seen)
assert read.VOILUTSequence[0].LUTDescriptor[1] == 65136
assert seen == [0, 0, 0]
PYTHON
