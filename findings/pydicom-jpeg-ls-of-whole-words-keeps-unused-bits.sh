#!/usr/bin/env bash
# pydicom decoding JPEG-LS of 16 bits a sample with 12 bits stored, signed: what dcmtk's dcmcjpls writes by default.
# Expected (PS3.5, 8.1.1): bits above High Bit are no pixel; the same values as from the native file.
# Seen with pydicom 3.0.2, pyjpegls 1.5.1: bits are neither masked nor signs extended, because the correction uses
# the precision of the code stream (16), where native pixels are corrected by Bits Stored (12). -1 becomes 4095.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pydicom==3.0.2 numpy==2.4.6 pyjpegls==1.5.1
"$folder/venv/bin/python" - <<'PYTHON'
import jpeg_ls
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

true = np.arange(-2048, 2048).reshape(64, 64)
words = (true & 0xFFF).astype("<u2")


def image(data: bytes, syntax: str) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.Rows = made.Columns = 64
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 1
    made.PixelData = data
    return made


stream = bytes(
    jpeg_ls.encode_pixel_data(
        words.tobytes(), lossy_error=0, interleave_mode=0, rows=64, columns=64,
        samples_per_pixel=1, bits_stored=16,
    )
)
native = image(words.tobytes(), ExplicitVRLittleEndian).pixel_array
packed = image(encapsulate([stream]), JPEGLSLossless).pixel_array
print("pydicom", pydicom.__version__, "numpy", np.__version__)
print("native  ", native.min(), "to", native.max(), "wrong pixels:", int((native != true).sum()))
print("JPEG-LS ", packed.min(), "to", packed.max(), "wrong pixels:", int((packed != true).sum()))
assert (native == true).all()
assert (packed != true).sum() == 2048
PYTHON
