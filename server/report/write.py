"""Writing report.json, its schema and report.html into a run folder."""

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from server.report.about import FILE as ABOUT
from server.report.about import About, stated
from server.report.build import build
from server.report.files import ReportError, load_run
from server.report.html import render
from server.report.schema import SCHEMA, schema_json
from server.report.seal import NO_SEAL, checksum, seal, signed_by
from server.run.checkpoints import write_atomically, write_json
from server.run.journal import now

log = logging.getLogger(__name__)

PAGE = "report.html"
PAGES = {"en": PAGE, "de": "report.de.html"}
"""Language -> page of the report. The English one is always written."""


EARLIER = "earlier"
"""Folder of a run folder with signed reports that were made again."""


def write_report(
    folder: Path, *, simulation: bool = True, language: str | None = None
) -> dict[str, Any]:
    """Build, validate and write the report; call it again after baselines were added.

    Args:
        folder: A run folder.
        simulation: False for a deployment, which has secret noise and holds no exact value.
        language: `de` for a page in German beside the English one, `en` for none but the English
            one; the languages that are there if left out.
    Returns:
        The content of report.json.
    Raises:
        MedFormerError: The folder holds no finished run, or one that cannot be reported. No file
            was changed.
    """
    report = build(folder, simulation=simulation, generated_at=now())
    before = _before(folder)
    # The same content keeps its time, and so its checksum and everybody's signatures.
    if before is not None and _content(before) == _content(report):
        report["generated_at"] = before["generated_at"]
    # Everything is made before anything is written: an error leaves the old report.
    images = _images(folder, report)
    pages = {
        name: render(report, images, language=spoken).encode() if wanted else None
        for spoken, name, wanted in _wanted(folder, language, report["about"])
    }
    hashes = {name: hashlib.sha256(page).hexdigest() for name, page in pages.items() if page}
    report["files"] = {**hashes, **_models(folder, report)}
    check(report | {"seal": NO_SEAL})
    report = seal(report)
    if before is not None and before["seal"]["sha256"] == report["seal"]["sha256"]:
        report["seal"] = before["seal"]
    write_atomically(folder / "report.schema.json", schema_json().encode())
    # The sites sign at the end of a run, and cannot be asked again.
    _keep_signed(folder, report["seal"]["sha256"])
    write_json(folder / "report.json", report)
    for name, page in pages.items():
        if page is None:
            # A page of an earlier report would contradict this one.
            (folder / name).unlink(missing_ok=True)
        else:
            write_atomically(folder / name, page)
    return report


def _before(folder: Path) -> dict[str, Any] | None:
    """Return the report that is there, if it is a whole one."""
    try:
        return finished(folder)
    except ReportError:
        return None


def _content(report: dict[str, Any]) -> str:
    """Return what a report says, without its time, its files and its seal."""
    left_out = ("generated_at", "files", "seal")
    content = {name: value for name, value in report.items() if name not in left_out}
    return json.dumps(content, sort_keys=True)


def _wanted(
    folder: Path, language: str | None, about: dict[str, Any]
) -> list[tuple[str, str, bool]]:
    """Return language and name of every page, and whether there is to be one."""
    asked = language or about.get("language")
    return [
        (spoken, name, name == PAGE or (spoken == asked if asked else (folder / name).exists()))
        for spoken, name in PAGES.items()
    ]


def _keep_signed(folder: Path, sha256: str) -> None:
    """Copy a report that somebody has signed, with its pages, before another one replaces it."""
    try:
        earlier = json.loads((folder / "report.json").read_bytes())["seal"]
        known, signed = str(earlier["sha256"]), bool(earlier["signature"] or earlier.get("sites"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    if not signed or known == sha256 or not re.fullmatch("[0-9a-f]{64}", known):
        return
    place = folder / EARLIER / known[:12]
    for file in ("report.json", *PAGES.values()):
        if (folder / file).is_file():
            write_atomically(place / file, (folder / file).read_bytes())
    log.warning("the signed report that was here is kept in %s", place)


def state(folder: Path, about: About) -> None:
    """Keep statements of people on a run, in place of earlier ones; its next report shows them.

    Args:
        folder: A run folder.
        about: The statements.
    Raises:
        ReportError: The folder holds no finished run.
    """
    load_run(folder)
    write_json(folder / ABOUT, stated(about))


def finished(folder: Path) -> dict[str, Any]:
    """Return the report of a run as it was made, if nothing in it was changed.

    Args:
        folder: A run folder.
    Raises:
        ReportError: There is no report, it does not fit its schema, or its checksum or signature
            does not hold.
    """
    path = folder / "report.json"
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: there is no report: make it with report {folder}") from error
    try:
        check(report)
        if checksum(report) != report["seal"]["sha256"]:
            raise ReportError("something in it was changed after it was made (its checksum)")
        signed_by(report)
    except (ReportError, ValueError) as error:
        raise ReportError(f"{path}: {error}: make it again with report {folder}") from error
    return report


def is_simulation(folder: Path) -> bool:
    """Tell whether a run folder is a simulation's: only these are made from a scenario.

    Args:
        folder: A run folder.
    """
    return (folder / "scenario.yaml").exists()


def _models(folder: Path, report: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each model file of the run."""
    names = sorted({site["model_file"] for site in report["sites"] if site["model_file"]})
    return {name: sha256_of(folder / name) for name in names if (folder / name).exists()}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Args:
        path: The file, of any size.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
