"""`fedmedformer site up`: a hospital's two processes, guard and SuperNode, kept running.

The SuperNode dials out to the consortium and starts the relay of the bundle, which asks the guard
through its socket. Both are started again when they end; nothing is lost with them, because all
that counts is in the state folder.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medformer.errors import ConfigError, MedFormerError
from medformer.files import is_secret, replace_file
from server.protocol import FLOWER_SWITCHES

log = logging.getLogger(__name__)

LONGEST_SOCKET = 100
"""Characters: the kernel takes 107 bytes."""
PATIENCE = 15.0
"""Seconds that a process has to end after SIGTERM."""
BACKOFF = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds before a process that ended is started again, longer each time."""
SETTLED = 300.0
"""Seconds after which a process counts as well again."""


class NodeError(MedFormerError):
    """The node cannot be started, or is not running."""


@dataclass(frozen=True)
class Node:
    """A site's folder, as `site init` makes it, with the consortium's kit in it."""

    folder: Path

    @property
    def socket(self) -> Path:
        """Where the guard listens."""
        return self.folder / "run" / "guard.sock"

    @property
    def facts(self) -> Path:
        """Process ids and addresses of a node that is up."""
        return self.folder / "run" / "node.json"

    def kit(self) -> dict[str, Any]:
        """What the consortium says of itself.

        Raises:
            ConfigError: There is no kit, or it is not one of this site.
        """
        file = self.folder / "kit" / "kit.json"
        try:
            kit: dict[str, Any] = json.loads(file.read_bytes())
            hosts = [str(host) for host in kit["hosts"]]
            return {**kit, "hosts": hosts, "port": int(kit["port"]), "site": str(kit["site"])}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"{file}: is no start-up kit ({type(error).__name__}): unpack the kit that the "
                f"consortium sent as {self.folder / 'kit'}"
            ) from error

    def check(self) -> None:
        """Whether everything that `up` needs is there.

        Raises:
            ConfigError: Names the first that is not, and what to do.
        """
        from client.policy import load_policy
        from client.site import load_site

        kit = self.kit()
        site = load_site(self.folder / "site.yaml")
        load_policy(self.folder / "policy.yaml")
        if kit["site"] != site.name:
            raise ConfigError(f"the kit is of the site {kit['site']!r}, site.yaml of {site.name!r}")
        if not is_secret(self.folder / "node.key"):
            raise ConfigError(
                f"{self.folder / 'node.key'}: is missing, or others can read it (chmod 600)"
            )
        if self.folder.stat().st_mode & 0o077:
            raise ConfigError(f"{self.folder}: others can enter it (chmod 700)")
        if len(str(self.socket.absolute())) > LONGEST_SOCKET:
            raise ConfigError(f"{self.socket}: is too long for a socket; use a shorter path")

    def commands(self, health_port: int) -> dict[str, list[str]]:
        """Name -> command line of each process; no secret is in one."""
        kit, folder = self.kit(), self.folder.absolute()
        guard = [
            sys.executable, "-I", "-m", "client.guard_rpc",
            "--site", str(folder / "site.yaml"),
            "--policy", str(folder / "policy.yaml"),
            "--state", str(folder / "state"),
            "--socket", str(self.socket.absolute()),
        ]  # fmt: skip
        supernode = [
            str(Path(sys.executable).parent / "flower-supernode"),
            "--superlink", f"{kit['hosts'][0]}:{kit['port']}",
            "--root-certificates", str(folder / "kit" / "ca.crt"),
            "--auth-supernode-private-key", str(folder / "node.key"),
            "--node-config", f'guard-socket="{self.socket.absolute()}"',
            "--health-server-address", f"127.0.0.1:{health_port}",
            "--port", str(_free_port()),
        ]  # fmt: skip
        return {"guard": guard, "supernode": supernode}


def _free_port() -> int:
    """For the SuperNode's own talk with the relays that it starts, on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


class Supervisor:
    """Keeps processes running until it is stopped.

    Args:
        commands: Name -> command line.
        logs: Folder of their logs.
    """

    def __init__(self, commands: Mapping[str, Sequence[str]], logs: Path) -> None:
        self._commands = commands
        self._logs = logs
        self._stopped = threading.Event()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starts = dict.fromkeys(commands, 0)

    @property
    def pids(self) -> dict[str, int]:
        """Of the processes that run."""
        return {name: process.pid for name, process in self._running.items()}

    def stop(self) -> None:
        """Ask `run` to end; from a signal handler or another thread."""
        self._stopped.set()

    def run(self, on_change: Any = lambda supervisor: None) -> None:
        """Start everything, start again what ends, and on `stop` end everything.

        Args:
            on_change: Called with the supervisor whenever a process was started.
        """
        due = dict.fromkeys(self._commands, 0.0)
        began: dict[str, float] = {}
        try:
            while not self._stopped.is_set():
                now = time.monotonic()
                for name in [n for n, p in self._running.items() if p.poll() is not None]:
                    code = self._running.pop(name).returncode
                    if now - began[name] > SETTLED:
                        self._starts[name] = 1
                    wait = BACKOFF[min(self._starts[name], len(BACKOFF)) - 1]
                    due[name] = now + wait
                    file = self._logs / f"{name}.log"
                    log.warning("%s ended with %d: again in %g s; see %s", name, code, wait, file)
                for name in self._commands:
                    if name not in self._running and now >= due[name]:
                        self._start(name)
                        began[name] = now
                        on_change(self)
                self._stopped.wait(0.2)
        finally:
            self._end()

    def _start(self, name: str) -> None:
        self._starts[name] += 1
        self._logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self._logs / f"{name}.log", "ab") as out:
            self._running[name] = subprocess.Popen(
                self._commands[name], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, env={**os.environ, **FLOWER_SWITCHES},
            )  # fmt: skip

    def _end(self) -> None:
        """SIGTERM to each and its children, then SIGKILL to what is left of them."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self._running.values():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end and any(p.poll() is None for p in self._running.values()):
                time.sleep(0.05)
        self._running = {}


def up(folder: Path, health_port: int) -> None:
    """Run a site's node until SIGTERM or SIGINT.

    Raises:
        ConfigError: Something is missing or wrong.
        NodeError: The node is up already.
    """
    node = Node(folder)
    node.check()
    if (known := running(folder)) is not None:
        raise NodeError(f"{folder}: this node is up already (process {known['pid']})")
    node.facts.parent.mkdir(exist_ok=True, mode=0o700)
    supervisor = Supervisor(node.commands(health_port), folder / "logs")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())

    def note(changed: Supervisor) -> None:
        facts = {"pid": os.getpid(), "processes": changed.pids, "health_port": health_port}
        replace_file(node.facts, json.dumps(facts).encode())

    try:
        supervisor.run(note)
    finally:
        node.facts.unlink(missing_ok=True)


def running(folder: Path) -> dict[str, Any] | None:
    """Facts of a node that is up, None if it is not."""
    try:
        facts: dict[str, Any] = json.loads(Node(folder).facts.read_bytes())
        os.kill(facts["pid"], 0)
        started = Path(f"/proc/{facts['pid']}/cmdline").read_bytes()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts if b"fedmedformer" in started or b"simulations.cli" in started else None


def down(folder: Path) -> None:
    """End a node that is up, and wait until it has ended.

    Raises:
        NodeError: It is not up, or does not end.
    """
    if (facts := running(folder)) is None:
        raise NodeError(f"{folder}: this node is not up")
    os.kill(facts["pid"], signal.SIGTERM)
    end = time.monotonic() + 3 * PATIENCE
    while running(folder) is not None:
        if time.monotonic() > end:
            raise NodeError(f"{folder}: process {facts['pid']} does not end; see the logs")
        time.sleep(0.1)


def status(folder: Path) -> dict[str, str]:
    """Process -> `serving`, or what is wrong; asks the health services.

    Raises:
        NodeError: The node is not up.
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    if (facts := running(folder)) is None:
        raise NodeError(f"{folder}: this node is not up: fedmedformer site up {folder}")
    found = {}
    for name, address in (
        ("guard", f"unix:{Node(folder).socket.absolute()}"),
        ("supernode", f"127.0.0.1:{facts['health_port']}"),
    ):
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=5
                )
                serving = answer.status == health_pb2.HealthCheckResponse.SERVING
                found[name] = "serving" if serving else "not serving"
            except grpc.RpcError as error:
                found[name] = f"does not answer ({error.code().name}): see logs/{name}.log"
    return found
