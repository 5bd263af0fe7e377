"""The seal of a report: a checksum of all of it, and the coordinator's signature over that.

A checksum alone finds what was damaged. Whoever changes a report on purpose can compute it again,
but not the signature.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.protocol.vouchers import verifies
from server.report.files import ReportError
from server.run.checkpoints import write_json

UNSIGNED = {"identity": "", "signature": ""}
NO_SEAL = {"sha256": "", **UNSIGNED}
"""Seal of a report that is not finished."""


def checksum(report: dict[str, Any]) -> str:
    """Return the SHA-256 of a report's content, without its seal.

    Args:
        report: The content of report.json.
    """
    content = {name: value for name, value in report.items() if name != "seal"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seal(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report with its checksum, which nobody has signed yet.

    Args:
        report: The content of report.json; an earlier seal is replaced.
    """
    return {**report, "seal": {"sha256": checksum(report), **UNSIGNED}}


RUN, JOINT = "fedmedformer report", "fedmedformer consortium report"
"""Kinds of report: a signature under one is none under the other."""


def statement(sha256: str, kind: str = RUN) -> bytes:
    """Return the bytes that a coordinator signs.

    Args:
        sha256: Checksum of the report.
        kind: `RUN` or `JOINT`.
    """
    return json.dumps([kind, sha256]).encode()


def sign_report(folder: Path, public: str, sign: Callable[[bytes], bytes]) -> None:
    """Sign the report of a run.

    Args:
        folder: A run folder with report.json.
        public: The coordinator's public key in OpenSSH format.
        sign: Signs bytes with the private half.
    Raises:
        ReportError: There is no report, or it was changed since it was made.
    """
    path = folder / "report.json"
    try:
        report = json.loads(path.read_bytes())
        known = report["seal"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{path}: is not the report of a run: make it with report") from error
    if known != checksum(report):
        raise ReportError(f"{path}: was changed since it was made: make it again with report")
    report["seal"] |= {
        "sha256": known,
        "identity": public,
        "signature": sign(statement(known)).hex(),
    }
    write_json(path, report)


def seal_of(folder: Path) -> dict[str, Any]:
    """Return the seal of the report of a run; empty if there is no report with one.

    Args:
        folder: A run folder.
    """
    try:
        return dict(json.loads((folder / "report.json").read_bytes())["seal"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def signed_by(report: dict[str, Any], kind: str = RUN) -> str | None:
    """Return the public key that has signed a report; None if nobody has.

    Args:
        report: The content of report.json.
        kind: `RUN`, or `JOINT` for the report of a consortium.
    Raises:
        ValueError: The signature is not that of the key, over this checksum.
    """
    found = report["seal"]
    if not found["signature"] and not found["identity"]:
        return None
    if not verifies(found["identity"], found["signature"], statement(found["sha256"], kind)):
        raise ValueError("the coordinator's signature does not fit")
    return str(found["identity"])
