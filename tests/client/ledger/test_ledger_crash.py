"""A crash or a power cut at any call that changes a file leaves the ledger valid, and nothing that
was reported is forgotten."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from client.ledger.chain import FILE
from client.ledger.ledger import Ledger
from client.site import Privacy
from tests.client.ledger.test_ledger import ROOT, plan

PRIVACY = Privacy(epsilon=1, epsilon_budget=1e6, n_public=100)
POINTS = 120
KILLED, TORN, POWER_CUT = range(3)
"""Ends of a process: before a call, in the middle of a write, or with unsynced data lost."""
COMPILER = shutil.which("cc") or shutil.which("gcc")

CHILD = """
import ctypes, os, sys
from pathlib import Path
from tests.client.ledger.test_ledger_crash import work
shim = ctypes.CDLL(None)
for line in sys.stdin:
    folder, call, how = line.split()
    if not (child := os.fork()):
        shim.crash_at(ctypes.c_long(int(call)), int(how))
        work(Path(folder))
        shim.crash_calls.restype = ctypes.c_long
        (Path(folder) / "calls").write_text(str(shim.crash_calls()))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def opened(folder: Path) -> Ledger:
    """Open the ledger of one trial, with an anchor if the folder's name asks for one."""
    anchor = folder / "anchor" if folder.name.startswith("anchored") else None
    return Ledger(folder / "state" / FILE, PRIVACY, anchor)


def work(folder: Path) -> None:
    """Admit three runs, train a round of each, and report each success in a separate file."""
    with (
        open(folder / "reported", "a") as said,
        opened(folder) as ledger,
    ):
        for i in range(3):
            standing = ledger.reserve(f"run-{i}", "s", "m", plan(1.0))
            said.write("r")
            said.flush()
            ledger.start_attempt(standing, 1, 0, f"key-{i}")
            said.write("a")
            said.flush()
            ledger.record_answer(f"run-{i}", 1, 0, f"key-{i}", "0" * 64)


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
@pytest.mark.parametrize("name", ["anchored", "alone"])
def test_a_crash_at_any_call_forgets_no_spent_budget(tmp_path: Path, name: str):
    """The workload ends at calls drawn with a seed, in each of the three ways."""
    shim = tmp_path / "crash.so"
    source = Path(__file__).with_name("crash.c")
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(shim)}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], cwd=ROOT, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as forks:  # fmt: skip
        assert forks.stdin is not None
        assert forks.stdout is not None

        def crash(name: str, call: int, how: int) -> tuple[Path, int]:
            folder = tmp_path / name
            folder.mkdir()
            forks.stdin.write(f"{folder} {call} {how}\n")  # type: ignore[union-attr]
            forks.stdin.flush()  # type: ignore[union-attr]
            return folder, int(forks.stdout.readline())  # type: ignore[union-attr]

        whole, code = crash(f"{name}-whole", 0, KILLED)
        assert code == 0
        calls = int((whole / "calls").read_text())
        assert calls > 20
        draw = random.Random(0)
        for i in range(POINTS):
            call, how = draw.randint(1, calls), i % 3
            folder, code = crash(f"{name}-{i}", call, how)
            assert code == 9, (call, how)
            said = (folder / "reported").read_text() if (folder / "reported").exists() else ""
            survives(folder, said.count("r"), said.count("a"))
            shutil.rmtree(folder)
        forks.stdin.close()


def survives(folder: Path, runs: int, attempts: int) -> None:
    """Check that the ledger opens, holds at least what was reported, and accepts another run."""
    with opened(folder) as ledger:
        rows = ledger.rows.all()
        assert sum(row.kind == "reservation" for row in rows) >= runs
        assert sum(row.kind == "attempt" for row in rows) >= attempts
        assert ledger.account.spent()[0] >= runs
        ledger.reserve("after", "s", "m", plan(1.0))
    with opened(folder) as again:
        assert again.reservation("after") is not None
