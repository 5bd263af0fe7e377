"""The limits of the suite: a test may compute for so long, and may wait for as long as it takes."""

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.sources import ROOT

CASES = """
import time
from tests.helpers import patience
patience.MAX_PROCESSOR_SECONDS = 0.2
from tests.helpers.patience import processor_time

def test_waits():
    time.sleep(0.6)

def test_computes():
    end = time.process_time() + 20
    while time.process_time() < end:
        pass
"""


def test_a_test_that_computes_too_long_fails_and_one_that_waits_does_not(tmp_path: Path):
    """Only processor time counts, so that a busy machine fails nothing."""
    (tmp_path / "test_cases.py").write_text(CASES)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path),
         str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "more than 0.2 s of processor time" in done.stdout
