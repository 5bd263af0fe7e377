"""Writing report.json, its schema and report.html into a run folder."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from server.report.build import build
from server.report.files import ReportError
from server.report.html import render
from server.report.schema import SCHEMA, schema_json
from server.run.checkpoints import write_atomically, write_json


def write_report(folder: Path, *, simulation: bool = True) -> dict[str, Any]:
    """Build, validate and write the report; call it again after baselines were added.

    Args:
        folder: A run folder.
        simulation: False for a deployment, which has secret noise and holds no exact value.
    Returns:
        The content of report.json.
    Raises:
        MedFormerError: The folder holds no finished run, or one that cannot be reported. No file
            was changed.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    report = build(folder, simulation=simulation, generated_at=now)
    check(report)
    # Everything is made before anything is written: an error leaves the old report.
    page = render(report, _images(folder, report))
    write_atomically(folder / "report.schema.json", schema_json().encode())
    write_json(folder / "report.json", report)
    write_atomically(folder / "report.html", page.encode())
    return report


def _images(folder: Path, report: dict[str, Any]) -> dict[str, bytes]:
    """Read the pictures that the report lists, if they are in the folder `pictures`."""
    found = {}
    for name in (picture["file"] for picture in report["pictures"]):
        path = folder / "pictures" / name
        if Path(name).name == name and path.is_file():  # no path that leads out of the folder
            found[name] = path.read_bytes()
    return found


def check(report: dict[str, Any]) -> None:
    """Check a report against its schema.

    Args:
        report: The content of report.json.
    Raises:
        ReportError: A field is wrong, or a number is NaN or infinite, which JSON cannot hold.
    """
    # The most specific one: jsonschema also reports every object around it.
    error = best_match(Draft202012Validator(SCHEMA).iter_errors(report))
    if error is not None:
        raise ReportError(f"report.json would be wrong at {error.json_path}: {error.message[:200]}")
    try:
        # The schema cannot refuse NaN, and `json` would write it.
        json.dumps(report, allow_nan=False)
    except ValueError as problem:
        raise ReportError("report.json would hold a number that is not finite") from problem
