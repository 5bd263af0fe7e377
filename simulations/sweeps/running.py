"""Runs the cells of a sweep, each as a `fedmedformer simulate` of its own, several at a time."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import NamedTuple

from medformer.common.processes import end, start
from simulations.run import COMMAND, PREFIX

LAST = "done in "
"""Beginning of the last line of a run's progress."""
TICK = 0.2
"""Seconds between two looks at the processes."""


class Job(NamedTuple):
    """A command to run."""

    name: str
    words: tuple[str, ...]
    """Words of the command line after `fedmedformer`."""
    log: Path
    """File for everything that it prints."""


class Ended(NamedTuple):
    """A command that ended."""

    name: str
    reason: str
    """Sentence of its error; empty if it did what it was asked."""
    seconds: float


@dataclass
class _Running:
    job: Job
    process: "Popen[bytes]"
    began: float = field(default_factory=time.monotonic)
    offset: int = 0
    silent: bool = False


def run_all(
    jobs: Sequence[Job], workers: int, show: Callable[[str], None] | None = None
) -> Iterator[Ended]:
    """Run commands, at most so many at once. All end with this process, or when it is interrupted.

    Args:
        jobs: The commands, in the order in which they start.
        workers: Number of commands that run at once.
        show: Called with lines of progress, as the commands print them; None shows nothing.
    Yields:
        Each command that ended, in the order in which they end.
    """
    waiting, running = list(jobs), list[_Running]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(_started(waiting.pop(0)))
            time.sleep(TICK)
            for one in list(running):
                ended = one.process.poll() is not None
                if show is not None:
                    _pass_on(one, show)
                if ended:
                    running.remove(one)
                    seconds = time.monotonic() - one.began
                    yield Ended(one.job.name, _reason(one), seconds)
    finally:
        # Ctrl-C, or an error of the caller: each run keeps its last checkpoint.
        end(one.process for one in running)


def _started(job: Job) -> _Running:
    code = COMMAND.format(root=str(Path(__file__).parents[2]))
    job.log.unlink(missing_ok=True)
    return _Running(job, start([sys.executable, "-c", code, *job.words], job.log, os.environ))


def _pass_on(one: _Running, show: Callable[[str], None]) -> None:
    with open(one.job.log, "rb") as file:
        file.seek(one.offset)
        # The command may be in the middle of its last line: it is read again at the next look.
        while (line := file.readline()).endswith(b"\n"):
            one.offset = file.tell()
            text = line.decode(errors="replace").rstrip("\n")
            if not one.silent:
                show(text)
            # Then comes its table of results: the sweep has one for all runs.
            one.silent = one.silent or text.startswith(LAST)


def _reason(one: _Running) -> str:
    """Return the sentence of an error: the last line that the command printed."""
    if one.process.returncode == 0:
        return ""
    lines = one.job.log.read_text(errors="replace").strip().splitlines()
    said = [line for line in lines if line.startswith(PREFIX)] or lines
    last = said[-1].removeprefix(PREFIX) if said else ""
    return last or f"it ended with {one.process.returncode}"
