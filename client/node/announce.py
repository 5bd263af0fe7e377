"""Announces each run that waits for an answer, once: a line, and the hospital's own program.

The program is `on_waiting` of policy.yaml, a list of words that starts with an absolute path. It is
started without a shell, as the guard's user and never as root. It gets the facts as one line of
JSON on its standard input and as variables `FEDMEDFORMER_*`. None of them is a text of the
consortium's server: a run's id has letters, digits and `-`, times and costs are the guard's own.

This is a process of its own because the guard, which reads records, has no network and starts
nothing. It reads the ledger and writes `announced.json` beside it.
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from client.ledger.chain import FILE
from client.ledger.export import read
from client.lifetime.facts import Question, lifetime
from client.node.folder import Node
from client.node.overview import ANNOUNCED, announced, command, consortium_of, question_text
from client.node.permissions import ExposedError, only_ours
from client.policy import load_policy
from client.site import load_site
from medformer.common.files import replace_file
from medformer.common.logs.line import use
from medformer.common.rounding import digits_up, rounded_up
from medformer.errors import MedFormerError, one_line

log = logging.getLogger(__name__)

SECONDS = 60.0
"""Time that the hospital's program may take."""
MAX_IN_AN_HOUR = 10
"""Starts of the program in an hour. A server can ask for a hundred runs; the others wait."""
POLL = 5.0
"""Seconds between two looks at the ledger."""


@dataclass
class Announcer:
    """Looks for new questions of one site, and announces each of them once.

    Args:
        folder: The site's folder.
        words: The hospital's program and its arguments; empty if it names none.
        say: Takes the line for each question.
        clock: Time in seconds since 1970.
        seconds: Time that the program may take.
    """

    folder: Path
    words: Sequence[str]
    say: Callable[[str], None]
    clock: Callable[[], float] = time.time
    seconds: float = SECONDS
    _seen: tuple[Any, ...] = field(default=(), init=False)

    def look(self) -> None:
        """Announce what waits and was not announced. Nothing that fails here is raised."""
        try:
            mark = self._mark()
            if mark != self._seen:
                everything = self._announce()
                # Only then: what the limit of an hour held back is looked for again.
                self._seen = mark if everything else ()
        except (MedFormerError, OSError) as error:
            log.warning("runs that wait cannot be announced: %s", one_line(str(error)))

    def _mark(self) -> tuple[Any, ...]:
        """Return a value that changes with the ledger; reading it whole costs more."""
        found = []
        for name in (FILE, f"{FILE}-wal"):
            try:
                stat = (Node(self.folder).state / name).stat()
                found.append((stat.st_mtime_ns, stat.st_size))
            except FileNotFoundError:
                found.append((0, 0))
        return tuple(found)

    def _announce(self) -> bool:
        """Announce each new question; return False if some have to wait for the next hour."""
        state = Node(self.folder).state
        waiting = lifetime(read(state)).waiting if (state / FILE).exists() else ()
        known = announced(state / ANNOUNCED)
        # Answered questions are forgotten, so that the file stays small.
        told = {one.run_id: known["told"].get(one.run_id) for one in waiting}
        now = self.clock()
        starts = [start for start in known["starts"] if now - 3_600 < start <= now]
        consortium = consortium_of(self.folder)
        new = [one for one in waiting if told[one.run_id] is None]
        for one in new:
            if self.words and len(starts) >= MAX_IN_AN_HOUR:
                log.warning("%d runs wait; their announcement is put off", len(new))
                break
            self.say(f"{question_text(one, consortium)}: {command(self.folder, one.run_id)}")
            # Written first: a program that kills this process must not be started for ever.
            told[one.run_id] = "started" if self.words else "done"
            starts += [now] * bool(self.words)
            _write(state / ANNOUNCED, told, starts)
            if self.words:
                told[one.run_id] = self._started(one, consortium) or "done"
        left = [run for run, how in told.items() if how is None]
        if told != known["told"]:
            _write(state / ANNOUNCED, told, starts)
        return not left

    def _started(self, one: Question, consortium: str) -> str:
        """Start the program; return why it failed, or nothing."""
        facts = facts_of(self.folder, one, consortium)
        if why := start(self.words, facts, self.seconds):
            log.warning("on_waiting: %s: %s", self.words[0], why)
        return why


def facts_of(folder: Path, one: Question, consortium: str) -> dict[str, str]:
    """Return what the hospital's program learns about a question, each a short line.

    Args:
        folder: The site's folder.
        one: The question.
        consortium: Name and address of the consortium.
    """
    return {
        "site": load_site(folder / "site.yaml").name,
        "consortium": one_line(consortium.split(" ")[0], 100),
        "run": one.run_id,
        "since": one.since,
        "epsilon": "" if one.epsilon is None else rounded_up(one.epsilon),
        "delta": "" if one.delta is None else digits_up(one.delta),
        "command": command(folder.absolute(), one.run_id),
    }


def start(words: Sequence[str], facts: Mapping[str, str], seconds: float = SECONDS) -> str:
    """Run the hospital's program, without a shell and never as root.

    Args:
        words: An absolute path and arguments.
        facts: Become one line of JSON on its standard input, and variables.
        seconds: Time until it is killed, with what it has started.
    Returns:
        Why it failed, in one line; empty if it ended with 0.
    """
    if os.geteuid() == 0:
        return "is not started as root: give guard and node a user each (site install)"
    try:
        only_ours(Path(words[0]))  # else another user would choose what runs here
    except (ExposedError, OSError) as error:
        return f"is not started: {one_line(str(error), 300)}"
    variables = {f"FEDMEDFORMER_{name.upper()}": value for name, value in facts.items()}
    kept = {name: os.environ[name] for name in ("HOME", "TZ") if name in os.environ}
    own = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **kept, **variables}
    with TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                list(words), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said,
                env=own, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return f"cannot be started ({error.strerror})"
        try:
            process.communicate(json.dumps(dict(facts)).encode() + b"\n", timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with what it has started
            process.wait()
            return f"took longer than {seconds:g} s and was killed"
        if not process.returncode:
            return ""
        said.seek(max(0, said.seek(0, os.SEEK_END) - 1_000))
        last = one_line(said.read().decode(errors="replace"), 200)
    return f"ended with {process.returncode}{f': {last}' if last else ''}"


def follow(announcer: Announcer, stopped: threading.Event, poll: float = POLL) -> None:
    """Look for new questions until `stopped` is set.

    Args:
        announcer: Announces them.
        stopped: Ends it.
        poll: Seconds between two looks.
    """
    while not stopped.is_set():
        announcer.look()
        stopped.wait(poll)


def of_site(folder: Path, say: Callable[[str], None]) -> Announcer:
    """Return the announcer of a site, with the program that its policy.yaml names.

    Args:
        folder: The site's folder.
        say: Takes the line for each question.
    Raises:
        ConfigError: policy.yaml cannot be read.
    """
    return Announcer(folder, load_policy(folder / "policy.yaml").on_waiting, say)


def _write(file: Path, told: Mapping[str, str | None], starts: Sequence[float]) -> None:
    """Remember what was announced, and how it went."""
    done = {run: how for run, how in told.items() if how is not None}
    replace_file(file, json.dumps({"told": done, "starts": list(starts)}).encode(), mode=0o600)


def main() -> int:
    """Announce the questions of one site until a signal comes; `site up` runs this.

    Returns:
        0 after SIGTERM or SIGINT, 1 if policy.yaml cannot be read.
    """
    parser = argparse.ArgumentParser(prog="python -I -m client.node.announce")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    use("announcer")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        follow(of_site(folder, lambda line: log.warning("%s", line)), stopped)
    except MedFormerError as error:
        print(f"announcer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
