#!/usr/bin/env bash
# Pillow 13.0.0 and PhotometricInterpretation 0 (TIFF 6.0, page 37: 0 is imaged as white). Expected:
# the same picture at each depth. Seen: 8 bits are turned so that white is 255, 16 bits are handed
# on as stored, so that one picture is the negative of the other.
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

read = {}
for dtype in ("u1", "u2"):
    out = io.BytesIO()
    tifffile.imwrite(out, np.array([[0, 1, 2]], dtype), photometric="miniswhite")
    read[dtype] = np.asarray(Image.open(out)).tolist()
    print(dtype, "stored [[0, 1, 2]] read", read[dtype])
assert read["u1"] == [[255, 254, 253]]
assert read["u2"] == [[0, 1, 2]]
EOF
venv/bin/python try.py
