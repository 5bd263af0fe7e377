"""Run audits and tests against one mutation of a copy of the sources."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulations.benchmarks import record
from tests.mutations import MUTATIONS, Mutation, mutated

ROOT = Path(__file__).parents[2]
IMAGES = ("quickstart", "--site", "chest-north")
PATIENTS = """
name: patients
pretraining: false
privacy: {epsilon: 8, delta: 1.0e-5, epsilon_budget: 8, unit: patient}
phases:
  - {name: supervised, rounds: 16, local_steps: 2, objectives: {supervised: 1.0},
     learning_rate: 0.1, expected_batch_size: 128}
sites:
  - name: chest
    privacy: {n_public: 1000}
    domain: {name: chest, modality: chest-xray, anatomy: chest, channels: 1, size: 28}
    tasks: [{name: chest, kind: binary-class, classes: 2}]
    data: {source: folder, path: an audit reads no record}
"""
TESTS = (
    "tests/client/privacy",  # first, because most mutations fail here
    "tests/client/ledger",
    "tests/client",
    "--ignore=tests/client/audit/test_canaries.py",  # an audit
    "--ignore=tests/mutations/test_mutations.py",  # notices any change of these lines
)
SHOWN = 3
"""Number of failing tests after which a run of the tests stops."""


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of docs/mutations.md, in the order of `MUTATIONS`."""
    by_name = {row["mutation"]: row for row in rows}
    lines = ["| mutation | audit | tests |", "|---|---|---|"]
    for mutation in MUTATIONS:
        row = by_name[mutation.name]
        audit = (row["audit"] or "-").partition(": ")[2] or row["audit"] or "-"
        told = audit.removesuffix(": do not use this installation")
        told = told.removeprefix("this is not the mechanism of the plan ").strip("()")
        first = row["tests"][0].replace("::", " `", 1) + "`" if row["tests"] else "-"
        more = f" and {len(row['tests']) - 1} more" if len(row["tests"]) > 1 else ""
        lines.append(f"| {mutation.name} | {told} | {first}{more} |")
    return "\n".join(lines)


def run(mutation: Mutation, folder: Path) -> dict[str, Any]:
    """Return what notices the mutation, in a copy of the sources that becomes `folder`."""
    _copy(folder)
    file = folder / mutation.file
    file.write_text(mutated(mutation, file.read_text()))
    (folder / "patients.yaml").write_text(PATIENTS)
    scenarios = (IMAGES, ["patients.yaml"]) if mutation.audited else ()
    audits = [_audit(folder, scenario) for scenario in scenarios]
    tests = [_test_file(name) for name in mutation.tests] or TESTS
    command = [
        "pytest",
        "-q",
        "-m",
        "not flower and not heavy",
        f"--maxfail={SHOWN}",
        "--tb=no",
    ]
    done = _python(folder, [*command, "-p", "no:cacheprovider", *tests])
    failed = re.findall(r"^(?:FAILED|ERROR) (?:\S+/)?(\S+)", done.stdout, re.MULTILINE)
    return {
        "mutation": mutation.name,
        "file": mutation.file,
        "audit": next((found for found in audits if found), None),
        "tests": failed[:SHOWN],
        "caught": bool(failed or any(audits)),
        "commit": record.commit(),
    }


def _test_file(name: str) -> str:
    """Return the path of a test file, whichever folder of `tests/` it is in.

    Raises:
        ValueError: No file, or several, have this name.
    """
    (path,) = (ROOT / "tests").rglob(name)
    return str(path.relative_to(ROOT))


def _copy(folder: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())


def _audit(folder: Path, scenario: Sequence[str]) -> str | None:
    """Return how the audit failed, or None if it passed."""
    command = ["simulations.cli", "audit", *scenario, "--seed", "0", "--canaries", "4000"]
    done = _python(folder, command)
    if done.returncode == 0:
        return None
    return done.stderr.strip().splitlines()[-1].removeprefix("fedmedformer: ")


def _python(folder: Path, arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a module of the copy; modules in the current folder come first."""
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
