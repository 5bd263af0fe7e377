"""Starts child processes that end with their parent, and supervises them."""

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from medformer.common.logs.kept import KeptLog

log = logging.getLogger(__name__)

PATIENCE = 15.0
"""Seconds that a process has to end after SIGTERM."""
PR_SET_PDEATHSIG = 1
BACKOFF = (1.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds before a process that ended is started again, longer each time."""
SETTLED = 300.0
"""Seconds after which a process counts as healthy again, so that its next restart is quick."""
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""Environment of a process that trains: glibc then keeps freed memory instead of asking for the
same pages at every step, which costs a fifth of the time (docs/results/dp_step.json). Other C
libraries ignore it."""
# Loaded here, because nothing may be loaded between fork and exec.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def start(
    command: Sequence[str], log: Path, environment: Mapping[str, str], **more: Any
) -> "subprocess.Popen[bytes]":
    """Start a process in a separate process group, and append its output to a file.

    On Linux it gets SIGTERM when the thread that started it ends, also by kill -9: nothing is left
    behind that holds a port or a lock.

    Args:
        command: Program and arguments.
        log: File for its output; its folder is made if it is missing.
        environment: All variables of its environment.
        more: Further arguments of `subprocess.Popen`.
    """
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(log, "ab") as out:
        return _start(command, out, environment, more)


def _start(
    command: Sequence[str], out: Any, environment: Mapping[str, str], more: Mapping[str, Any]
) -> "subprocess.Popen[bytes]":
    """Start a process whose output goes to `out`, a file or a pipe."""
    # A separate session, so that Ctrl-C reaches the supervisor alone, which then ends all.
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
        start_new_session=True, env=environment, preexec_fn=_end_with_parent, **more,
    )  # fmt: skip


def end(processes: Iterable["subprocess.Popen[bytes]"], patience: float = PATIENCE) -> None:
    """End process groups: first by SIGTERM, then by SIGKILL.

    Args:
        processes: As `start` returned them.
        patience: Seconds between the two signals; less if all have ended before.
    """
    groups = list(processes)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in groups:
            # The whole group, because a process can have started others.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        until = time.monotonic() + patience
        while time.monotonic() < until and any(process.poll() is None for process in groups):
            time.sleep(0.05)


def free_port() -> int:
    """Return a port of the loopback address at which no process listens now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return different ports of the loopback address at which no process listens now.

    Args:
        count: Number of ports.
    """
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in held]


def is_taken(port: int, patience: float = PATIENCE) -> bool:
    """Return whether a process listens at a port of the loopback address, and keeps doing so.

    gRPC would share the port with that process, and either of the two could get a request.

    Args:
        port: The port.
        patience: Seconds to wait for a process that is about to end.
    """
    until = time.monotonic() + patience
    while True:
        try:
            # To bind is the only sure test: a listener can be too busy to accept a connection.
            with socket.create_server(("127.0.0.1", port)):
                return False
        except OSError:
            if time.monotonic() > until:
                return True
        time.sleep(0.2)


def end_with_parent(*, quiet: bool = False) -> None:
    """Make this process end within a second of the one that started it.

    Without its parent, a process that a library has started would hold locks and wait for answers
    that never come.

    Args:
        quiet: Log nothing when it ends.
    """
    parent = os.getppid()

    def watch() -> None:
        # An orphan gets another parent. Asked twice a second, because no signal reports it.
        while os.getppid() == parent:
            time.sleep(0.5)
        if not quiet:
            log.error("the process that started this one is gone")
        # Not sys.exit, which ends only this thread, and whose handlers could wait for the parent.
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _end_with_parent() -> None:
    """Ask the kernel to end this process with its parent. Runs between fork and exec."""
    # Other systems have no such request; their processes end with the supervisor only.
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Supervisor:
    """Keeps processes running until it is stopped.

    Args:
        commands: Name -> command line.
        logs: Folder for NAME.log of each, which is rotated.
        options: Name -> further arguments of `subprocess.Popen`, which include `env`; this
            process's environment if None.
        backoff: Seconds before a process that ended is started again, longer each time.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        logs: Path,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        backoff: Sequence[float] = BACKOFF,
    ) -> None:
        self._commands = commands
        self._logs = logs
        self._options = options or {name: {"env": os.environ} for name in commands}
        self._backoff = backoff
        self._stopped = threading.Event()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starts = dict.fromkeys(commands, 0)
        self._kept: dict[str, KeptLog] = {}
        self._readers: list[threading.Thread] = []

    @property
    def pids(self) -> dict[str, int]:
        """Name -> process id, for the processes that run."""
        return {name: process.pid for name, process in self._running.items()}

    def stop(self) -> None:
        """Ask `run` to end. Can be called from a signal handler or another thread."""
        self._stopped.set()

    def run(
        self,
        on_change: Callable[["Supervisor"], None] = lambda supervisor: None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Start everything, start again what ends, and on `stop` end everything.

        Args:
            on_change: Called with the supervisor after each start of a process.
            on_tick: Called several times a second; an error that it raises ends everything.
        """
        due = dict.fromkeys(self._commands, 0.0)
        began: dict[str, float] = {}
        try:
            while not self._stopped.is_set():
                now = time.monotonic()
                for name in [n for n, p in self._running.items() if p.poll() is not None]:
                    code = self._running[name].returncode
                    end([self._running.pop(name)], patience=0)  # its children may have survived it
                    # It ran well for a while, so this failure is a new one.
                    if now - began[name] > SETTLED:
                        self._starts[name] = 1
                    wait = self._backoff[min(self._starts[name], len(self._backoff)) - 1]
                    due[name] = now + wait
                    file = self._logs / f"{name}.log"
                    log.warning("%s ended with %d: again in %g s; see %s", name, code, wait, file)
                for name in self._commands:
                    # On the first pass everything is due.
                    if name not in self._running and now >= due[name]:
                        self._start(name)
                        began[name] = now
                        on_change(self)
                on_tick()
                # An event rather than a sleep, so that `stop` is answered at once.
                self._stopped.wait(0.2)
        finally:
            end(self._running.values())
            self._running = {}
            # The last lines say why something ended; a grandchild may hold the pipe for longer.
            until = time.monotonic() + 1
            for reader in self._readers:
                reader.join(max(0.0, until - time.monotonic()))
            for kept in self._kept.values():
                kept.close()

    def _start(self, name: str) -> None:
        self._starts[name] += 1
        more = dict(self._options[name])
        environment = more.pop("env")
        if name not in self._kept:
            self._kept[name] = KeptLog(self._logs / f"{name}.log")
        process = _start(self._commands[name], subprocess.PIPE, environment, more)
        assert process.stdout is not None
        self._readers = [one for one in self._readers if one.is_alive()]
        self._readers.append(self._kept[name].follow(process.stdout))
        self._running[name] = process
