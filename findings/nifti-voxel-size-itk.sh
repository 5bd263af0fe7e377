#!/usr/bin/env bash
# The size of a voxel of one NIfTI file in nibabel and in SimpleITK.
# nibabel 5.4.2, SimpleITK 2.5.7, numpy 2.4.6.
# Expected (NIfTI-1): with sform_code > 0, qform_code 0, the sform maps voxels to millimetres: slices 3 mm apart.
# Seen: SimpleITK takes the direction from the sform and the spacing from pixdim: 5 mm (it prints a warning
# of unexpected scales). Whoever reads one file with both has two sizes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import struct
from pathlib import Path
import numpy as np, nibabel as nib, SimpleITK as sitk

print("nibabel", nib.__version__, "SimpleITK", sitk.Version.VersionString(), "numpy", np.__version__)
affine = np.diag([1, 1, 3, 1.0])
image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine)
image.set_sform(affine, 1)
image.set_qform(None, 0)
data = bytearray(image.to_bytes())
struct.pack_into("<3f", data, 80, 1, 1, 5)  # pixdim[1:4]
Path("a.nii").write_bytes(data)
ours = nib.affines.voxel_sizes(nib.load("a.nii").affine).tolist()
theirs = sitk.ReadImage("a.nii").GetSpacing()
print("nibabel, affine:", ours, "SimpleITK:", theirs)
assert ours == [1, 1, 3] and theirs == (1, 1, 5)
PYTHON
