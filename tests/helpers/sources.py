"""A copy of the package's sources, for tests that build from it or add files to it."""

import shutil
from pathlib import Path

from server.protocol import PACKAGES

ROOT = Path(__file__).parents[2]


def copy_sources(folder: Path) -> Path:
    """Copy the sources of a wheel or an app bundle into `folder`, without compiled files."""
    compiled = shutil.ignore_patterns("__pycache__", "*.so")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=compiled)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder
