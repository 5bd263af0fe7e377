"""A field of a phase's receipt is declared once: report, schema and page follow."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from server.protocol.receipt import phase_fields
from server.report.schema import PHASE
from server.report.write import write_report
from tests.server.report.test_report import page_of, write_run

ROOT = Path(__file__).parents[3]
ADDED = """    clipped: Annotated[
        Share, Field(description="Fraction of gradients over the bound."), Column("clipped", ".1f")
    ] = 0.5


@dataclass(frozen=True)
class Receipt:"""


def test_report_schema_and_page_show_every_field_of_the_receipt(tmp_path: Path):
    """None of them has a list of its own."""
    report = write_report(write_run(tmp_path / "run"))
    page = page_of(tmp_path / "run")
    names = [field.name for field in phase_fields()]

    assert list(PHASE["properties"]) == names
    assert [list(phase) for phase in report["sites"][0]["phases"]] == [names] * 3
    assert [f">{field.column.title}</th>" in page for field in phase_fields()] == [True] * len(
        names
    )


def test_a_new_field_is_declared_in_one_file(tmp_path: Path):
    """It is added to the receipt in a copy of the sources, and to nothing else there."""
    for package in ("medformer", "server"):
        shutil.copytree(ROOT / package, tmp_path / package)
    receipt = tmp_path / "server" / "protocol" / "receipt.py"
    text = receipt.read_text()
    at = "\n\n@dataclass(frozen=True)\nclass Receipt:"
    assert text.count(at) == 1
    receipt.write_text(text.replace(at, ADDED))
    folder = write_run(tmp_path / "run")
    receipts = json.loads((folder / "receipts.json").read_text())
    for phase in (phase for one in receipts.values() for phase in one["phases"]):
        phase["clipped"] = 0.25
    (folder / "receipts.json").write_text(json.dumps(receipts))

    code = "import sys, pathlib; from server.report.write import write_report; write_report("
    code += "pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", code, str(folder)]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=120)

    report = json.loads((folder / "report.json").read_text())
    schema = json.loads((folder / "report.schema.json").read_text())
    phases = schema["properties"]["sites"]["items"]["properties"]["phases"]["items"]["properties"]
    assert [p["clipped"] for p in report["sites"][0]["phases"]] == [0.25] * 3
    assert phases["clipped"]["description"] == "Fraction of gradients over the bound."
    assert ">clipped</th>" in page_of(folder)
    assert page_of(folder).count(">0.2</td>") == 3  # equal plans share their rows
