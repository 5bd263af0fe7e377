#!/usr/bin/env bash
# A NIfTI file in metres (xyzt_units 1) in nibabel and in SimpleITK.
# nibabel 5.4.2, SimpleITK 2.5.7, numpy 2.4.6.
# Expected (NIfTI-1): xyzt_units says the unit of pixdim and of the coordinates.
# Seen: nibabel gives affine and zooms in the unit of the file, so that voxel_sizes must be scaled by whoever
# calls it; SimpleITK scales to millimetres. They differ by a factor of 1000.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np, nibabel as nib, SimpleITK as sitk

print("nibabel", nib.__version__, "SimpleITK", sitk.Version.VersionString(), "numpy", np.__version__)
image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([0.001, 0.001, 0.003, 1]))
image.set_qform(image.affine, 1)
image.header.set_xyzt_units("meter")
nib.save(image, "a.nii")
loaded = nib.load("a.nii")
ours = nib.affines.voxel_sizes(loaded.affine)
theirs = sitk.ReadImage("a.nii").GetSpacing()
print("nibabel", loaded.header.get_xyzt_units()[0], ours.tolist(), "SimpleITK", theirs)
assert np.allclose(ours, [0.001, 0.001, 0.003], rtol=1e-5)
assert np.allclose(theirs, [1, 1, 3], rtol=1e-5)
PYTHON
