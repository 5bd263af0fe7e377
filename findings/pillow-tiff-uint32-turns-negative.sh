#!/usr/bin/env bash
# Pillow 13.0.0 opens a TIFF of unsigned 32-bit grey (label images of microscopes are) in mode I,
# which is signed. Expected: the values, or an error. Seen: from 2**31 on they are negative; the
# same file with the other byte order is no image at all.
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

values = np.array([[1, 2**31 + 5]], np.uint32)
small, big = io.BytesIO(), io.BytesIO()
tifffile.imwrite(small, values, byteorder="<")
tifffile.imwrite(big, values, byteorder=">")
found = np.asarray(Image.open(small)).tolist()
print("stored", values.tolist(), "read", found)
assert found == [[1, 5 - 2**31]]
try:
    Image.open(big)
except PIL.UnidentifiedImageError as error:
    print("highest byte first:", type(error).__name__)
else:
    raise SystemExit("the other byte order is read now")
EOF
venv/bin/python try.py
