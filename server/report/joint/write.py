"""Writes the report of a consortium into its folder, signed with the consortium's key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.report.joint.build import build_joint
from server.report.joint.page import FILE, PAGES, render_joint
from server.report.seal import JOINT, seal, statement
from server.run.checkpoints import write_atomically, write_json
from server.run.journal import now

Signer = tuple[str, Callable[[bytes], bytes]]
"""Public key, and what signs with its private half."""


def write_joint(
    folder: Path, *, out: Path | None = None, language: str = "en", signer: Signer | None = None
) -> dict[str, Any]:
    """Join all runs of a consortium, and write JSON and page.

    Args:
        folder: Folder of the consortium, with run folders in it.
        out: Folder for the files; the consortium's own if left out.
        language: `de` for a page in German beside the English one.
        signer: The coordinator's key; None leaves the report unsigned.
    Returns:
        The content of consortium-report.json.
    Raises:
        MedFormerError: There is no run, or the files cannot be written.
    """
    out = out or folder
    report = build_joint(folder, generated_at=now())
    pages = {
        name: render_joint(report, spoken).encode()
        for spoken, name in PAGES.items()
        if spoken in ("en", language)
    }
    report = seal(report)
    if signer is not None:
        public, sign = signer
        signature = sign(statement(report["seal"]["sha256"], JOINT)).hex()
        report["seal"] |= {"identity": public, "signature": signature}
    write_json(out / FILE, report)
    for name in PAGES.values():
        if name in pages:
            write_atomically(out / name, pages[name])
        else:
            # A page of an earlier report would contradict this one.
            (out / name).unlink(missing_ok=True)
    return report
