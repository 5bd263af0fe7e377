"""Spoiled files of every kind: none is taken for what it is not, none ends or hangs the reader.

`pytest -m heavy tests/fuzz` spoils nine thousand others, and as many messages.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fuzz.limits import MEMORY
from tests.fuzz.worker import IMAGES, TEXTS

pytest.importorskip("pydicom")
pytest.importorskip("nibabel")

ROOT = Path(__file__).parents[2]
THOUSAND = {
    "dicom": 200, "nifti": 200, "picture": 100, "npz": 120, "csv": 100,
    "yaml": 120, "model": 50, "ledger": 60, "checkpoint": 50,
}  # fmt: skip
assert sum(THOUSAND.values()) == 1_000
MORE = 9
"""Thousands of files that the heavy test adds."""


def fuzz(kinds: tuple[str, ...], counts: Mapping[str, int], first: int) -> Counter[tuple[str, str]]:
    """Have another process read so many spoiled files of each kind."""
    command = [sys.executable, "-m", "tests.fuzz.worker", "--first", str(first)]
    command += [f"{kind}={counts[kind]}" for kind in kinds]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"it ended in {rows[-1:]}: {done.stderr[-2_000:]}"
    bad = [row for row in rows if row.get("outcome") in ("wrong", "crashed")]
    assert not bad, "\n".join(f"{row['kind']} {row['seed']}: {row['text']}" for row in bad[:5])
    assert rows[-1]["peak"] < MEMORY
    seen = Counter((row["kind"], row["outcome"]) for row in rows[:-1])
    assert all(seen[kind, "began"] == counts[kind] for kind in kinds)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [IMAGES, TEXTS], ids=["records", "settings"])
def test_a_thousand_spoiled_files(kinds: tuple[str, ...]):
    """Each is refused by a sentence, or read as something that is within limits."""
    seen = fuzz(kinds, THOUSAND, 0)
    for kind in kinds:  # neither door is shut to everything, nor open to it
        assert seen[kind, "read"] > 1, seen
        assert seen[kind, "refused"] > 10 or kind == "checkpoint", seen


@pytest.mark.heavy
@pytest.mark.parametrize("number", range(1, MORE + 1))
@pytest.mark.parametrize("kinds", [IMAGES, TEXTS], ids=["records", "settings"])
def test_thousands_of_other_spoiled_files(kinds: tuple[str, ...], number: int):
    """Files that are spoiled by other seeds are read or refused as well."""
    fuzz(kinds, THOUSAND, 1_000 * number)
