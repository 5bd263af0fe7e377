#!/usr/bin/env bash
# A NIfTI file whose qform_code and sform_code are 0, as nibabel and SimpleITK understand it.
# nibabel 5.4.2, SimpleITK 2.5.7, numpy 2.4.6.
# Expected (NIfTI-1, method 1): no orientation is attached to such coordinates.
# Seen: nibabel presumes that i runs to the left (Analyze, radiological), so that as_closest_canonical
# mirrors the voxels; SimpleITK takes i to run to the left and j to the back. They agree in left and right,
# and call opposite ends of j the front; neither warns.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np, nibabel as nib, SimpleITK as sitk

print("nibabel", nib.__version__, "SimpleITK", sitk.Version.VersionString(), "numpy", np.__version__)
values = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
image = nib.Nifti1Image(values, np.eye(4))
image.set_sform(None, 0)
image.set_qform(None, 0)
nib.save(image, "a.nii")
loaded = nib.load("a.nii")
codes = nib.aff2axcodes(loaded.affine)
canonical = np.asarray(nib.as_closest_canonical(loaded).dataobj)
direction = sitk.ReadImage("a.nii").GetDirection()
print("codes", int(loaded.header["qform_code"]), int(loaded.header["sform_code"]))
print("nibabel: axes run to", codes, "| canonical is mirrored:", np.array_equal(canonical, values[::-1]))
print("SimpleITK: direction (left, back, head)", direction)
assert codes == ("L", "A", "S")
assert np.array_equal(canonical, values[::-1])
assert direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
PYTHON
