#!/usr/bin/env bash
# pydicom 3.0.2 and transfer syntaxes that PS3.6 has had since 2024 or 2025 (JPEG XL, Deflated Image
# Frame Compression). Expected: UID.is_deflated and its like answer, or say that the syntax is
# unknown. Seen: ValueError 'UID is not a transfer syntax' for a valid one, while a file with it is
# read without a word.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 numpy==2.4.6
cd "$folder"
cat > try.py <<'EOF'
import pydicom
from pydicom.uid import UID

print("pydicom", pydicom.__version__)
for number in ("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.8.1"):
    for what in ("is_deflated", "is_compressed", "is_implicit_VR"):
        try:
            getattr(UID(number), what)
        except ValueError as error:
            print(number, what, "->", error)
        else:
            raise SystemExit(f"{number} is known now")
EOF
venv/bin/python try.py
