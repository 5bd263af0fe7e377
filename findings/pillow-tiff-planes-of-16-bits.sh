#!/usr/bin/env bash
# Pillow 13.0.0 opens a TIFF of 16-bit RGB in planes (PlanarConfiguration 2, TIFF 6.0, page 38) as
# RGB. Expected: each channel's upper byte at least, as where pixels lie together. Seen: bytes of
# one plane spread over neighbouring pixels, without a warning; 8-bit planes are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6 tifffile==2026.3.3
cd "$folder"
cat > try.py <<'EOF'
import io

import numpy as np
import PIL
import tifffile
from PIL import Image

print("Pillow", PIL.__version__)

rng = np.random.default_rng(0)
values = rng.integers(0, 2**16, (8, 8, 3), np.uint16)
read = {}
for name, planar, stored in (
    ("pixels", "contig", values),
    ("planes", "separate", values.transpose(2, 0, 1).copy()),
):
    out = io.BytesIO()
    tifffile.imwrite(out, stored, photometric="rgb", planarconfig=planar)
    read[name] = np.asarray(Image.open(out))
    print(name, "upper bytes are right:", np.array_equal(read[name], values >> 8))
assert np.array_equal(read["pixels"], values >> 8)
assert not np.array_equal(read["planes"], values >> 8)
EOF
venv/bin/python try.py
