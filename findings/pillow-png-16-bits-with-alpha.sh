#!/usr/bin/env bash
# Pillow 13.0.0 reads PNG of 16-bit grey in mode I;16 with all bits. Expected: the same where a
# channel of alpha is beside it (PNG, colour type 4), though it is opaque. Seen: mode RGBA, 8 bits;
# 12-bit radiographs saved so have 16 levels left. No warning.
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


values = [0x0100, 0x01FF, 0x0FA0]
grey = png([struct.pack(">3H", *values)], 3, 16, 0)
both = png([b"".join(struct.pack(">2H", v, 65535) for v in values)], 3, 16, 4)
one, other = Image.open(grey), Image.open(both)
print(one.mode, np.asarray(one).tolist(), other.mode, np.asarray(other)[..., 0].tolist())
assert np.asarray(one).tolist() == [values]
assert (other.mode, np.asarray(other)[..., 0].tolist()) == ("RGBA", [[1, 1, 15]])
EOF
venv/bin/python try.py
