#!/usr/bin/env bash
# Pillow 13.0.0 opens a TIFF with SampleFormat 2 (TIFF 6.0, section 19: signed) and 8 bits in mode
# L. Expected: the values, or an error. Seen: -1 is 255, without a warning; 16 and 32 signed bits
# are right.
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

values = np.array([[-128, -1, 0, 127]], np.int8)
out = io.BytesIO()
tifffile.imwrite(out, values)
found = Image.open(out)
print("stored", values.tolist(), "read", found.mode, np.asarray(found).tolist())
assert found.mode == "L"
assert np.asarray(found).tolist() == [[128, 255, 0, 127]]
EOF
venv/bin/python try.py
