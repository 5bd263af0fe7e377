#!/usr/bin/env bash
# pydicom 3.0.2 with pylibjpeg-openjpeg 2.6.0, which decodes HTJ2K (1.2.840.10008.1.2.4.201).
# Expected: with the decoder installed, the syntax is available. Seen: it is available only when
# pylibjpeg is installed too, which pylibjpeg-openjpeg does not depend on; JPEG 2000 hides it, since
# other packages read that.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 pylibjpeg-openjpeg==2.6.0 numpy==2.4.6
cd "$folder"
cat > try.py <<'EOF'
import subprocess
import sys

ASK = """
import pydicom
from pydicom.pixels import get_decoder
print(pydicom.__version__, get_decoder(pydicom.uid.HTJ2KLossless).is_available)
"""


def asked():
    return subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True).stdout.split()


alone = asked()
print("pylibjpeg-openjpeg alone:", alone)
pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
subprocess.run([*pip, "pylibjpeg==2.1.0"], check=True)
both = asked()
print("with pylibjpeg 2.1.0:", both)
assert (alone, both) == (["3.0.2", "False"], ["3.0.2", "True"])
EOF
venv/bin/python try.py
