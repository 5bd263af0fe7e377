#!/usr/bin/env bash
# The affine that dcm2niix writes for a CT series of a gantry tilted by 15 degrees (the uncorrected file).
# dcm2niix 1.0.20260724, nibabel 5.4.2, pydicom 3.0.2, numpy 2.4.6.
# Expected (NIfTI-1, method 3): the third column of the sform is the way from a slice to the next, which is
# (0, 0, 3) by the files' Image Position (Patient).
# Seen: it runs along z but is 2.898 mm long (3 x cos 15 degrees, the distance along the normal), so that the
# last of 20 slices lies 1.9 mm off.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q dcm2niix==1.0.20260724 nibabel==5.4.2 pydicom==3.0.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from pathlib import Path
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

c, s = np.cos(np.radians(15)), np.sin(np.radians(15))
Path("series").mkdir()
study, series = generate_uid(), generate_uid()
for k in range(20):  # the table moves by 3 mm along z, planes are tilted by 15 degrees
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID = CTImageStorage
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID = generate_uid()
    d.StudyInstanceUID, d.SeriesInstanceUID, d.PatientID, d.Modality = study, series, "P", "CT"
    d.Rows, d.Columns, d.SamplesPerPixel, d.InstanceNumber = 40, 32, 1, k + 1
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 1
    d.PhotometricInterpretation, d.PixelSpacing = "MONOCHROME2", [1, 1]
    d.ImagePositionPatient = [0, 0, 3 * k]
    d.ImageOrientationPatient = [1, 0, 0, 0, round(c, 8), round(s, 8)]
    d.PixelData = np.full((40, 32), k, np.int16).tobytes()
    d.save_as(f"series/{k:02d}.dcm", enforce_file_format=True)
import subprocess, sys
import nibabel as nib
import pydicom

tool = Path(sys.executable).with_name("dcm2niix")
Path("out").mkdir()
said = subprocess.run([tool, "-b", "n", "-z", "n", "-f", "x", "-o", "out", "series"], capture_output=True, text=True)
print(said.stdout.splitlines()[0], "| nibabel", nib.__version__, "pydicom", pydicom.__version__, "numpy", np.__version__)
print(sorted(p.name for p in Path("out").iterdir()))
step = nib.load("out/x.nii").affine[:3, 2]
print("step of a slice", step.round(3), "length", float(np.linalg.norm(step).round(3)))
assert np.allclose(step[:2], 0, atol=1e-3) and abs(abs(step[2]) - 3 * c) < 1e-3, step
PYTHON
