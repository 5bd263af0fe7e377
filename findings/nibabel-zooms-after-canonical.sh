#!/usr/bin/env bash
# The size of a voxel in a NIfTI file that has an sform, and a pixdim that another program changed.
# nibabel 5.4.2, numpy 2.4.6.
# Expected (NIfTI-1, method 3): with sform_code > 0 the sform says where voxels lie, whatever pixdim is,
# so that one geometry has one size however it is stored.
# Seen: header.get_zooms() of as_closest_canonical is pixdim's where the file is RAS already (the same
# object comes back), and the affine's where it had to be turned: 5 mm or 3 mm for the same slices.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nibabel==5.4.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import struct
import numpy as np, nibabel as nib

print("nibabel", nib.__version__, "numpy", np.__version__)
values = np.zeros((4, 5, 6), np.int16)
found = {}
for name, affine in (("RAS", np.diag([1, 1, 3, 1.0])), ("LAS", np.diag([-1, 1, 3, 1.0]))):
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, 1)
    image.set_qform(None, 0)
    data = bytearray(image.to_bytes())
    struct.pack_into("<3f", data, 80, 1, 1, 5)  # pixdim[1:4]
    turned = nib.as_closest_canonical(nib.Nifti1Image.from_bytes(bytes(data)))
    zooms, sizes = turned.header.get_zooms(), nib.affines.voxel_sizes(turned.affine)
    found[name] = (float(zooms[2]), float(sizes[2]))
    print(name, "zooms", [float(z) for z in zooms], "voxel sizes of the affine", sizes.tolist())
assert found == {"RAS": (5.0, 3.0), "LAS": (3.0, 3.0)}, found
PYTHON
