#!/usr/bin/env bash
# Pillow 13.0.0 tells BigTIFF by the third byte alone (43), which is right for II and not for MM.
# Expected: both byte orders of BigTIFF are read, as of TIFF. Seen: MM is no image.
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

values = np.arange(16, dtype=np.uint16).reshape(4, 4)
for order in "<>":
    out = io.BytesIO()
    tifffile.imwrite(out, values, bigtiff=True, byteorder=order)
    try:
        found = np.array_equal(np.asarray(Image.open(out)), values)
    except Exception as error:
        found = type(error).__name__
    print(order, found)
    assert found is True if order == "<" else found != True
EOF
venv/bin/python try.py
