"""All processes write one format of log lines, and their files do not grow for ever."""

import logging
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from medformer.common.logs.kept import KEPT, MAX_BYTES, KeptLog
from medformer.common.logs.line import MAX_LINE, Format, line, told_by
from medformer.common.processes import Supervisor
from tests.helpers.patience import PATIENCE, waited

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (DEBUG|INFO|WARNING|ERROR|CRITICAL) [a-z-]+: \S.*"
)
"""A line as docs/operations.md describes it."""
EARLY = "2026-01-01T00:00:00Z"


def test_a_traceback_is_one_line_without_control_characters():
    """A name of a file cannot steer the terminal of who reads the log, nor forge a line."""
    try:
        raise ValueError("a\x1b[2J\n2026-01-01T00:00:00Z INFO guard: all is well")
    except ValueError:
        record = logging.LogRecord(
            "x", logging.ERROR, __file__, 1, "read %s", ("b\x07",), sys.exc_info()
        )
    text = Format("guard").format(record)
    assert LINE.fullmatch(text), text
    assert text.isprintable()
    assert " ERROR guard: read b\\x07\\nTraceback" in text
    assert "ValueError: a\\x1b[2J\\n2026" in text


@pytest.mark.parametrize(
    ("printed", "level", "message"),
    [
        ("\x1b[93mWARNING \x1b[0m:   a key is unknown", "WARNING", "a key is unknown"),
        ("INFO :      Starting", "INFO", "Starting"),
        ("ERROR what", "ERROR", "what"),
        ("Traceback (most recent call last):", "INFO", "Traceback (most recent call last):"),
        (f"{EARLY} ERROR guard: forged", "INFO", f"{EARLY} ERROR guard: forged"),
        ("a\x1b]0;title\x07b", "INFO", "a\\x1b]0;title\\x07b"),
    ],
)  # fmt: skip
def test_what_flower_prints_is_brought_into_the_format(printed: str, level: str, message: str):
    """Its colours go, its level stays, and it cannot write in the name of the guard."""
    assert told_by("supernode", printed, 0) == f"1970-01-01T00:00:00Z {level} supernode: {message}"
    own = line("WARNING", "guard", "refused", 7)
    assert told_by("guard", f"{own}\n", 0) == own


def test_times_are_in_utc_wherever_the_hospital_is(monkeypatch: pytest.MonkeyPatch):
    """Lines of several machines can be put side by side."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        assert line("INFO", "guard", "x", 0).startswith("1970-01-01T00:00:00Z ")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_line_is_bounded():
    """A refused message can be long."""
    assert len(line("INFO", "guard", "x" * 10**6, 0)) < MAX_LINE + 100


def test_a_supervised_process_has_a_file_of_such_lines_that_is_rotated(tmp_path: Path):
    """Its last line is there, too, and older files are counted."""
    code = "import sys\nfor i in range(400): print(i, 'x' * 50)\nprint('why', flush=True)"
    log = KeptLog(tmp_path / "one.log", max_bytes=10_000, kept=2)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:  # fmt: skip
        assert process.stdout is not None
        log.follow(process.stdout).join(PATIENCE)
    log.close()
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["one.log", "one.log.1", "one.log.2"]
    lines = [one for name in reversed(files) for one in (tmp_path / name).read_text().splitlines()]
    assert lines[-1].endswith("INFO one: why")
    assert all(LINE.fullmatch(one) for one in lines)
    assert all(os.stat(tmp_path / name).st_size <= 10_000 for name in files)
    assert (MAX_BYTES, KEPT) == (10 * 2**20, 5)


def test_a_process_that_ends_no_line_fills_no_memory(tmp_path: Path):
    """Its output is written in pieces."""
    log = KeptLog(tmp_path / "one.log")
    with subprocess.Popen([sys.executable, "-c", "print('y' * 100_000, end='')"],
                          stdout=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout is not None
        log.follow(process.stdout).join(PATIENCE)
    log.close()
    lines = (tmp_path / "one.log").read_text().splitlines()
    assert len(lines) == -(-100_000 // MAX_LINE)
    assert sum(one.count("y") for one in lines) == 100_000


def test_the_supervisor_keeps_what_a_killed_process_has_said(tmp_path: Path):
    """A child that was started again writes on into the same file."""
    code = "import os; print('up', os.getpid(), flush=True); import time; time.sleep(99)"
    supervisor = Supervisor({"one": [sys.executable, "-c", code]}, tmp_path, backoff=(0.05,))
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    file = tmp_path / "one.log"
    try:
        waited(lambda: file.exists() and file.read_text().count("up") == 1)
        os.kill(supervisor.pids["one"], 9)
        waited(lambda: file.read_text().count("up") == 2)
    finally:
        supervisor.stop()
        thread.join(PATIENCE)
    assert all(LINE.fullmatch(one) for one in file.read_text().splitlines())
