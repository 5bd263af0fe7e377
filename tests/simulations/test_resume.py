"""A run that is interrupted prints the command that goes on with it, and that command works."""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from server.run.metrics import read_metrics

ROOT = Path(__file__).parents[2]
SCENARIO = {
    "name": "long",
    "pretraining": False,
    "spare_rounds": 2,
    "phases": [{"name": "supervised", "rounds": 12, "local_steps": 8,
                "objectives": {"supervised": 1}, "expected_batch_size": 64}],
    "sites": [{"name": name, "data": {"source": "phantoms", "kind": "chest", "records": 96}}
              for name in ("north", "south")],
}  # fmt: skip


def started(folder: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "simulations.cli", *words],
        cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env={"PYTHONPATH": str(ROOT), "HOME": str(folder), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_the_printed_command_goes_on_with_an_interrupted_run(tmp_path: Path):
    """Its first line comes before anything is loaded, and says how far the run had come."""
    (tmp_path / "my scenario.yaml").write_text(yaml.safe_dump(SCENARIO))
    out = tmp_path / "runs" / "one"
    words = ["simulate", "my scenario.yaml", "--out", "runs/one", "--engine", "local"]
    with started(tmp_path, *words, "--set", "seed=4") as process:
        while not list(read_metrics(out) if out.exists() else ()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        text = process.communicate()[1]
    assert process.returncode == 1
    assert "fedmedformer: interrupted" in text
    assert "Traceback" not in text
    (hint,) = [line for line in text.splitlines() if line.startswith("to go on: ")]
    program, *command = shlex.split(hint.removeprefix("to go on: "))
    assert program == "fedmedformer"
    assert command == [
        "simulate", "my scenario.yaml", "--out", "runs/one", "--set", "seed=4",
        "--engine", "local", "--resume",
    ]  # fmt: skip
    with started(tmp_path, *command) as process:
        text = process.communicate()[1]
    assert process.returncode == 0, text
    assert text.startswith("long: going on after round ")
    assert {row["round"] for row in read_metrics(out) if row["event"] == "round"} == set(
        range(1, 13)
    )
