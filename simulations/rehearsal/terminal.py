"""Types command lines in one folder as a person would, and ends what it started."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from medformer.common.processes import end, start
from medformer.errors import MedFormerError

PATIENCE = 600.0
"""Seconds in which a line has to work that is typed again and again."""
PAUSE = 1.0
"""Seconds between two tries."""
ENDING = 60.0
"""Seconds that a node or server has to end after SIGTERM."""
LINES = 30
"""Lines of output and logs in an error."""
NOTED = (
    (r"site init (\S+) --name", r"fingerprint of this site's key: (.*)", "FINGERPRINT-OF-{}"),
    (r"site guard-key (\S+)", r"fingerprint of \S+'s guard: (.*)", "GUARD-OF-{}"),
    (r"consortium provision", r"fingerprint of the signing key.*: (.*)", "FINGERPRINT-OF-SIGNER"),
    (r"site approve", r"(?m)^run (\S+)$", "RUN"),
)
"""(command line, line of its output, placeholder): what people read out or copy from one command
into the next. `{}` is the site of the command line, in capitals."""


class RehearsalError(MedFormerError):
    """A command of a rehearsal failed."""


def environment() -> dict[str, str]:
    """Return the environment of commands: `fedmedformer` is the program of this installation."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path}


class Terminal:
    """One person's terminals, all in one folder.

    In lines and files, placeholders such as RUN stand for what earlier commands have printed.

    Args:
        folder: The working folder of every command.
        variables: The environment of every command.
        show: Called with each line that is typed or printed.
        patience: Seconds in which a line that is tried again has to work.
    """

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str],
        show: Callable[[str], None],
        patience: float = PATIENCE,
    ) -> None:
        self.folder = folder
        self.known: dict[str, str] = {}
        """Placeholder -> the text that it stands for."""
        self.typed: list[str] = []
        """Lines that worked, with their placeholders."""
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        """Name -> a process that runs in the background."""
        self.variables = dict(variables)
        """Environment of every command."""
        self._show, self._patience = show, patience

    def write(self, name: str, text: str) -> None:
        """Write a file, and show its content.

        Args:
            name: Path below the folder.
            text: Content; placeholders in it are replaced.
        """
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text := self.filled_in(text))
        self._show(f"{name}:")
        for line in text.splitlines():
            self._show(f"    {line}")

    def type(self, line: str) -> str:
        """Run a line until it ends, and show what it prints.

        Args:
            line: As a shell reads it.
        Returns:
            Its standard output.
        Raises:
            RehearsalError: It fails.
        """
        self._show(f"$ {self.filled_in(line)}")
        done = self.run(line)
        if done.returncode:
            raise self._failure(line, done)
        return self._worked(line, done)

    def until(self, line: str, ready: Callable[[str], bool] = lambda output: True) -> str:
        """Run a line again and again until it works; show it once.

        Args:
            line: As a shell reads it.
            ready: Tells by its output whether it has worked.
        Returns:
            Its standard output.
        Raises:
            RehearsalError: It does not work in time, or a process of the background has ended.
        """
        self._show(f"$ {self.filled_in(line)}")
        last = time.monotonic() + self._patience
        while True:
            done = self.run(line)
            if done.returncode == 0 and ready(done.stdout):
                return self._worked(line, done)
            if time.monotonic() > last:
                raise self._failure(line, done)
            self.check()
            time.sleep(PAUSE)

    def start(self, name: str, line: str) -> None:
        """Start a line in the background, as in a terminal of its own.

        Args:
            name: Name of the process; its output goes to `NAME.log`.
            line: As a shell reads it.
        """
        line = self.filled_in(line)
        self._show(f"$ {line} &  # output in {name}.log")
        # `exec`, so that the process id is that of the command and not of a shell around it.
        self.processes[name] = start(
            [_bash(), "-c", f"exec {line}"], self.folder / f"{name}.log", self.variables,
            cwd=self.folder,
        )  # fmt: skip
        self.typed.append(line)

    def wait(self, name: str) -> None:
        """Wait until a process of the background has ended well, and show its lines meanwhile.

        Args:
            name: As it was started.
        Raises:
            RehearsalError: It fails, or another one ends.
        """
        process, log, seen = self.processes[name], self.folder / f"{name}.log", 0
        while True:
            ended = process.poll() is not None
            lines = log.read_text(errors="replace").splitlines()
            for line in lines[seen:]:
                self._show(f"    {line}")
            seen = len(lines)
            if ended:
                break
            self.check()
            time.sleep(PAUSE / 2)
        del self.processes[name]
        if process.returncode:
            raise self._ended(name, process.returncode)

    def check(self) -> None:
        """Refuse to wait any longer where a process of the background has ended.

        Raises:
            RehearsalError: Names it, with the end of every log.
        """
        for name, process in self.processes.items():
            if process.poll():
                raise self._ended(name, process.returncode)

    def stop(self) -> None:
        """End every process of the background, by its id."""
        running = list(self.processes.values())
        self.processes.clear()
        end(running, patience=ENDING)

    def logs(self) -> str:
        """Return the end of every log."""
        parts = []
        for file in sorted(self.folder.rglob("*.log")):
            lines = file.read_text(errors="replace").splitlines()[-LINES:]
            parts += [f"== {file}", *lines]
        return "\n".join(parts)

    def run(self, line: str) -> "subprocess.CompletedProcess[str]":
        """Run a line until it ends, and show nothing.

        Args:
            line: As a shell reads it.
        """
        return subprocess.run(
            [_bash(), "-c", self.filled_in(line)], cwd=self.folder, env=self.variables,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=self._patience,
        )  # fmt: skip

    def filled_in(self, text: str) -> str:
        """Return a text with what its placeholders stand for."""
        for name, value in self.known.items():
            text = re.sub(rf"\b{re.escape(name)}\b", lambda _, value=value: value, text)
        return text

    def _worked(self, line: str, done: "subprocess.CompletedProcess[str]") -> str:
        for shown in done.stdout.splitlines():
            self._show(f"    {shown}")
        self.typed.append(line)
        for command, printed, name in NOTED:
            typed, found = re.search(command, line), re.search(printed, done.stdout)
            if typed and found:
                site = typed[1].upper() if typed.groups() else ""
                self.known[name.format(site)] = found[1]
        return done.stdout

    def _failure(self, line: str, done: "subprocess.CompletedProcess[str]") -> RehearsalError:
        for said in (done.stdout + done.stderr).strip().splitlines()[-LINES:]:
            self._show(f"    {said}")
        return self._ended(self.filled_in(line), done.returncode)

    def _ended(self, what: str, code: int) -> RehearsalError:
        """Show the end of every log, and return the error that names what has ended."""
        for line in self.logs().splitlines():
            self._show(line)
        return RehearsalError(
            f"{what}: ended with {code}; what it printed is above, logs are in {self.folder}"
        )


def _bash() -> str:
    found = shutil.which("bash")
    if found is None:
        raise RehearsalError("a rehearsal types its commands in bash, which is not installed")
    return found
