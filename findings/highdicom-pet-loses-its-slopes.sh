#!/usr/bin/env bash
# highdicom's LegacyConvertedEnhancedPETImage and slices that have each its own RescaleSlope, as PET scanners write it.
# Expected (PS3.3, C.7.6.16.2.9 and C.8.9.4: the slope is what makes stored values comparable): one Pixel Value
# Transformation a frame, as highdicom makes it for CT.
# Seen with highdicom 0.27.0: RescaleSlope and RescaleIntercept of PET are written nowhere, without a warning, and also
# not among the unassigned attributes: frames of one activity differ by the ratio of their slopes, for good.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q highdicom==0.27.0 pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import highdicom
import numpy as np
import pydicom
from highdicom.legacy import LegacyConvertedEnhancedPETImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid

pydicom.config.datetime_conversion = True
shared = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
slices = []
for number, slope in enumerate((1.0, 2.0, 4.0)):
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID = PositronEmissionTomographyImageStorage, generate_uid()
    for name, value in shared.items():
        setattr(one, name, value)
    for name in ("PatientID", "PatientName", "PatientSex", "PatientBirthDate", "StudyID", "AccessionNumber",
                 "ReferringPhysicianName", "StudyDate", "StudyTime", "Manufacturer", "InstitutionName",
                 "PositionReferenceIndicator", "Laterality"):
        setattr(one, name, "")
    one.SeriesNumber, one.InstanceNumber, one.AcquisitionNumber, one.Modality = 1, number + 1, 1, "PT"
    one.AcquisitionDate = one.ContentDate = "20200101"
    one.AcquisitionTime = one.ContentTime = "000000"
    one.ImageType, one.Units, one.FrameReferenceTime = ["ORIGINAL", "PRIMARY"], "BQML", "0"
    one.Rows = one.Columns = 16
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation = 15, 0
    one.PixelSpacing, one.SliceThickness = ["1", "1"], "1"
    one.ImageOrientationPatient, one.ImagePositionPatient = ["1", "0", "0", "0", "1", "0"], ["0", "0", str(number)]
    one.RescaleSlope, one.RescaleIntercept = slope, 0
    one.PixelData = np.full((16, 16), 400 / slope, np.uint16).tobytes()  # 400 Bq/ml everywhere
    slices.append(one)
made = LegacyConvertedEnhancedPETImage(slices, generate_uid(), 2, generate_uid(), 1)
kept = [element.keyword for element in made.iterall() if element.keyword.startswith("Rescale")]
print("highdicom", highdicom.__version__, "pydicom", pydicom.__version__)
print("slopes before  ", [one.RescaleSlope for one in slices])
print("rescaling after", kept)
print("stored values  ", made.pixel_array[:, 0, 0].tolist(), "for one activity")
assert kept == []
assert sorted(made.pixel_array[:, 0, 0].tolist()) == [100, 200, 400]
PYTHON
