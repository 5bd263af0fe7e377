"""Writes the report of a run folder."""

from pathlib import Path
from typing import Any


def write_report(folder: Path, *, simulation: bool = True) -> dict[str, Any]:
    """Placeholder while the report is being built."""
    return {}
