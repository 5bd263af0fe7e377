#!/usr/bin/env bash
# Ray does not start where TMPDIR is as long as batch systems make it; RAY_TMPDIR, if short, helps.
# ray 2.55.1, Linux. Expected: sockets where their names fit, as unix(7) allows 107 bytes. Seen: they
# lie below TMPDIR with 70 bytes more, so that any TMPDIR beyond some 36 bytes is an OSError.
set -euo pipefail
place=$(mktemp -d /tmp/fXXXX)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet "ray==2.55.1"
cat > "$place/script.py" <<'PYTHON'
import ray

print("ray", ray.__version__)
try:
    ray.init(num_cpus=1, include_dashboard=False, address="local")
    print("started")
    ray.shutdown()
except OSError as error:
    print("OSError:", error)
PYTHON
long="$place/a-scratch-folder-of-a-batch-system/somebody/job-0123456789"
mkdir -p "$long"
export RAY_USAGE_STATS_ENABLED=0
TMPDIR="$long" "$place/venv/bin/python" "$place/script.py" 2> /dev/null | tee "$place/long.txt"
TMPDIR="$long" RAY_TMPDIR="$place" "$place/venv/bin/python" "$place/script.py" 2> /dev/null |
    tee "$place/short.txt"
grep -q "AF_UNIX path length cannot exceed 107 bytes" "$place/long.txt"
grep -q "^started" "$place/short.txt"
