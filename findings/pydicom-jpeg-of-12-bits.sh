#!/usr/bin/env bash
# pydicom 3.0.2 with python-gdcm 3.2.6, and JPEG Extended of 12 bits (1.2.840.10008.1.2.4.51, made by
# libjpeg-turbo). Expected: what GDCM reads, pydicom reads with it. Seen: pydicom refuses ("GDCM does
# not support 'JPEG Extended' for samples with 12-bit precision"), and GDCM's own reader gives the
# values that were encoded, to 2 of 3,100 (it prints "Unsupported JPEG data precision 12" meanwhile).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    pydicom==3.0.2 python-gdcm==3.2.6 numpy==2.4.6
cd "$folder"
cat > try.py <<'EOF'
import base64

import gdcm
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, JPEGExtended12Bit, generate_uid

Y, X = np.mgrid[0:16, 0:16]
VALUES = 1000 + 8 * X * Y + 20 * X
STREAM = base64.b85decode(
    r"|JeWF01!$>Nk#wx0RR9200961|JwjV009930RaI40RaI40RaI40s#R50RaL50RaL60s;a80s;a90|WyD0|Ns"
    r"B0s{mC0|W#F1Ox&D1qB2I1q1{H1pmPR3k(1d01yEI5di<h02TlN0RaF200000000000000D3k?6n045Ls00R"
    r"XG0{{R3000000000J6czvh3mH)f3KAC>CMZQlVPpT=00;pA002J#5&q<*fHO?WJ(QzSk?YL}E)P$uYyi0_1<"
    r"GleN5usijE{wy5L_QO)usOc02;s<rf8>SDAZ~GywHM|^!l@a5CNdMO*2J2P*JGU{uXFKOZ?wf|Je"
)
print("pydicom", pydicom.__version__, "GDCM", gdcm.Version.GetVersion())
file = Dataset()
file.file_meta = FileMetaDataset()
file.file_meta.TransferSyntaxUID = JPEGExtended12Bit
file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, generate_uid()
file.Rows, file.Columns, file.SamplesPerPixel = 16, 16, 1
file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
file.PhotometricInterpretation = "MONOCHROME2"
file.PixelData = encapsulate([STREAM])
file["PixelData"].VR = "OB"
file.save_as("a.dcm", enforce_file_format=True)
try:
    pydicom.dcmread("a.dcm").pixel_array
except RuntimeError as error:
    print("pydicom:", str(error).splitlines()[-1].strip())
else:
    raise SystemExit("pydicom reads it now")
reader = gdcm.ImageReader()
reader.SetFileName("a.dcm")
assert reader.Read()
data = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
off = np.abs(np.frombuffer(data, np.uint16).reshape(16, 16).astype(int) - VALUES).max()
print("GDCM: off by at most", off)
assert off <= 2
EOF
venv/bin/python try.py
