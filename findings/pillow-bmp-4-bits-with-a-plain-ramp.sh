#!/usr/bin/env bash
# Pillow and a BMP of 4 bits whose palette is the grey 0, 1, 2, ... 15, as masks of few classes may have it.
# Expected (Windows bitmap format: an entry of the palette is a colour): the picture whose pixels are their indices.
# Seen with Pillow 13.0.0: it sees that the palette says nothing, takes mode L, and then has no unpacker for "P;4":
# OSError, codec configuration error. With any other palette the same pixels are read.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==13.0.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct

import numpy as np
import PIL
from PIL import Image

indices = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16) % 16
rows = (indices[::-1, ::2] << 4 | indices[::-1, 1::2]).tobytes()


def read(step):
    palette = b"".join(bytes((step * v, step * v, step * v, 0)) for v in range(16))
    head = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 4, 0, len(rows), 0, 0, 16, 0) + palette
    sizes = struct.pack("<IHHI", 14 + len(head) + len(rows), 0, 0, 14 + len(head))
    with Image.open(io.BytesIO(b"BM" + sizes + head + rows)) as image:
        try:
            return np.asarray(image.convert("L"))
        except OSError as error:
            return error


print("Pillow", PIL.__version__)
steep, plain = read(17), read(1)
print("palette 0, 17, ... 255: right is", np.array_equal(steep, 17 * indices))
print("palette 0, 1, ... 15:  ", repr(plain))
assert np.array_equal(steep, 17 * indices)
assert isinstance(plain, OSError) and "codec configuration" in str(plain)
PYTHON
