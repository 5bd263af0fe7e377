"""Checks of unit files by systemd itself, where it is installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def verify(*units: Path) -> None:
    """Check that systemd knows every setting, finds every program and prints no warning."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, units)],
        capture_output=True, text=True,
    )  # fmt: skip
    names = "|".join(re.escape(unit.name) for unit in units)
    said = [line for line in done.stderr.splitlines() if re.search(names, line)]
    assert (done.returncode, said) == (0, []), done.stderr


def exposure(unit: Path) -> float:
    """Return the exposure by `systemd-analyze security`, from 0 (closed) to 10 (open)."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True, text=True,
    )  # fmt: skip
    (found,) = re.findall(r"exposure level for .*: ([\d.]+)", done.stdout)
    return float(found)
