#!/usr/bin/env bash
# tifffile and packed samples (bitspersample=12) in a file whose byte order is "MM", highest byte first.
# Expected (TIFF 6.0, section 7, FillOrder 1 and "BitsPerSample"): samples of 12 bits are packed from the highest bit
# of each byte on, whatever the byte order, so that files of both orders hold the same bytes of pixels.
# Seen with tifffile 2026.3.3 and imagecodecs 2026.3.6: in the "MM" file the two bytes of each number are swapped
# before they are packed: other pixels are stored, and imread of its own file does not return what was written.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import imagecodecs
import numpy as np
import tifffile

true = np.arange(48 * 32, dtype=np.uint16).reshape(48, 32) * 2
bits = (true[..., None] >> np.arange(11, -1, -1)) & 1
packed = np.packbits(bits.reshape(48, -1).astype(np.uint8), axis=1).tobytes()
stored, read = {}, {}
for order in "<>":
    file = f"{sys.argv[1]}/a.tif"
    tifffile.imwrite(file, true, bitspersample=12, photometric="minisblack", byteorder=order)
    with tifffile.TiffFile(file) as tiff, open(file, "rb") as raw:
        raw.seek(tiff.pages[0].dataoffsets[0])
        stored[order] = raw.read(len(packed))
    read[order] = tifffile.imread(file)
print("tifffile", tifffile.__version__, "imagecodecs", imagecodecs.__version__)
for order in "<>":
    same = np.array_equal(read[order], true)
    print(order, "bytes as by TIFF 6.0:", stored[order] == packed, "read back alike:", same)
assert stored["<"] == packed and np.array_equal(read["<"], true)
assert stored[">"] != packed and not np.array_equal(read[">"], true)
PYTHON
