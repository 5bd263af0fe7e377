#!/usr/bin/env bash
# A CT series of a gantry tilted by 15 degrees, read by SimpleITK's ImageSeriesReader.
# SimpleITK 2.5.7, pydicom 3.0.2, numpy 2.4.6.
# Expected (PS3.3, C.7.6.2.1.1): the first pixel of the last slice lies where its Image Position (Patient) says.
# Seen: the image has the planes' own direction, and 3 mm along their normal instead of along the table: its
# last slice lies 14.9 mm off, and nothing is raised. An ITK image cannot hold a sheared grid.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6
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
import SimpleITK as sitk
import pydicom

print("SimpleITK", sitk.Version.VersionString(), "pydicom", pydicom.__version__, "numpy", np.__version__)
reader = sitk.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames("series"))
image = reader.Execute()
place = np.array(image.TransformIndexToPhysicalPoint((0, 0, 19)))
true = np.array([0, 0, 57.0])
print("spacing", image.GetSpacing(), "last slice at", place.round(2), "its file says", true)
assert np.allclose(image.GetSpacing(), (1, 1, 3))
assert 14 < np.linalg.norm(place - true) < 15.5
PYTHON
