#!/usr/bin/env bash
# Pillow 13.0.0 scales PNG grey of 2 and 4 bits to 0..255, as PNG (13.12) has it for display.
# Expected by who stores classes in a mask: the stored numbers, as in a palette of 2 or 4 bits.
# Seen: class 1 is 85 or 17, and nothing in the image says that it was scaled.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6
cd "$folder"
cat > try.py <<'EOF'
import io
import struct
import zlib

import numpy as np
import PIL
from PIL import Image

print("Pillow", PIL.__version__)


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(rows, width, bits, kind):
    head = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data)
                      + chunk(b"IEND", b""))


two = Image.open(png([bytes([0b00011011])], 4, 2, 0))
four = Image.open(png([bytes([0x01, 0x2F])], 4, 4, 0))
print("2 bits", two.mode, np.asarray(two).tolist(), two.info)
print("4 bits", four.mode, np.asarray(four).tolist(), four.info)
assert np.asarray(two).tolist() == [[0, 85, 170, 255]]
assert np.asarray(four).tolist() == [[0, 17, 34, 255]]
EOF
venv/bin/python try.py
