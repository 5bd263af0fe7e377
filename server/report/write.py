"""Writes report.json, its schema and report.html into a run folder."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema

from server.checkpoints import write_atomically, write_json
from server.report.build import build
from server.report.html import render
from server.report.schema import SCHEMA


def write_report(folder: Path, *, simulation: bool = True) -> dict[str, Any]:
    """Build, validate and write the report; may be called again when baselines were added.

    Args:
        folder: A run folder.
        simulation: False for a deployment: no exact value, cryptographic noise.
    Returns:
        What report.json holds.
    Raises:
        ReportError: The folder holds no finished run.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    report = build(folder, simulation=simulation, generated_at=now)
    jsonschema.validate(report, SCHEMA)
    write_json(folder / "report.schema.json", SCHEMA)
    write_json(folder / "report.json", report)
    write_atomically(folder / "report.html", render(report).encode())
    return report
