"""`fedmedformer site up`: a hospital's guard and SuperNode, kept running.

The SuperNode dials out to the consortium and starts the relay of the bundle, which asks the guard
through its socket. Both are started again when they end; nothing is lost with them, because all
that counts is in the state folder.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.guard_rpc.door import INNER
from client.node.kit import read_kit, verify_kit
from client.node.launch import act_as_node, new_secret, options, refuse_root, separation
from client.node.permissions import private_folder, private_key, private_state
from client.node.users import check_layout, users_of
from client.site import Site, load_site
from medformer.common import sockets
from medformer.common.processes import PATIENCE, Supervisor, free_port
from medformer.common.toml import quoted
from medformer.errors import ConfigError, MedFormerError
from medformer.library.model_file import replace_file
from medformer.words import unknown_words

log = logging.getLogger(__name__)

HEALTH_PORT = 9194
"""Of the SuperNode's health service, on this machine only."""


class NodeError(MedFormerError):
    """The node cannot be started, or is not running."""


@dataclass(frozen=True)
class Node:
    """A site's folder, as `site init` makes it, with the consortium's kit in it."""

    folder: Path

    @property
    def socket(self) -> Path:
        """Where the guard listens."""
        return self.folder / "run" / "guard" / "guard.sock"

    @property
    def state(self) -> Path:
        """The guard's own: ledger, answers, local tensors."""
        return self.folder / "state"

    @property
    def secret(self) -> Path:
        """What SuperNode and executor know each other by; another one at every start."""
        return self.folder / "flower" / "executor.secret"

    @property
    def facts(self) -> Path:
        """Process ids and addresses of a node that is up."""
        return self.folder / "run" / "node.json"

    def kit(self) -> dict[str, Any]:
        """What the consortium says of itself.

        Raises:
            ConfigError: There is no kit, or it is not one of this site.
        """
        return read_kit(self.folder / "kit")

    def check(self) -> None:
        """Whether everything that `up` needs is there.

        Raises:
            ConfigError: Names the first that is not, and what to do.
            ExposedError: Others can reach what is the site's own.
        """
        from client.policy import load_policy

        kit = self.kit()
        site = load_site(self.folder / "site.yaml")
        policy = load_policy(self.folder / "policy.yaml")
        if kit["site"] != site.name:
            raise ConfigError(f"the kit is of the site {kit['site']!r}, site.yaml of {site.name!r}")
        for unknown in unknown_words(site.domain):
            raise ConfigError(f"{self.folder / 'site.yaml'}: domain: {unknown}")
        verify_kit(self.folder / "kit", policy.signer)
        private_key(self.folder / "node.key")
        self.private(site)
        for socket in (self.socket, self.state.resolve() / INNER):
            sockets.fit(socket)

    def private(self, site: Site) -> None:
        """See that nobody else can reach the site's folder, and the node's user no more than it
        has to, where guard and node are two.

        Raises:
            ConfigError: The layout of two users is another one.
            ExposedError: Names what others can reach.
        """
        if (users := users_of(self.folder)) is not None:
            check_layout(self.folder, users, site)
            return
        private_folder(self.folder)
        private_state(self.state, site.ledger_anchor)

    def guard(self) -> list[str]:
        """Command line of the guard; where there are two users, the node's may ask it."""
        folder = self.folder.absolute()
        users = users_of(folder)
        return [
            sys.executable, "-I", "-m", "client.guard_rpc",
            "--site", str(folder / "site.yaml"),
            "--policy", str(folder / "policy.yaml"),
            "--state", str(self.state.absolute()),
            "--socket", str(self.socket.absolute()),
            *(["--user", str(users.node.uid)] if users else []),
        ]  # fmt: skip

    def flower(self, health_port: int) -> dict[str, list[str]]:
        """Name -> command line of each of Flower's processes.

        What starts the relays is a process of its own, so that it is started again when it ends: a
        SuperNode would not notice. The two share a secret, which other users cannot read.
        """
        kit, folder = self.kit(), self.folder.absolute()
        tools, port = Path(sys.executable).parent, free_port()
        secret = ["--superexec-auth-secret-file", str(self.secret.absolute())]
        supernode = [
            sys.executable, "-I", "-m", "client.node.supernode",
            "--superlink", f"{kit['hosts'][0]}:{kit['port']}",
            "--root-certificates", str(folder / "kit" / "ca.crt"),
            "--trusted-entities", str(folder / "kit" / "trusted.yaml"),
            "--auth-supernode-private-key", str(folder / "node.key"),
            "--node-config", f"guard-socket={quoted(str(self.socket.absolute()))}",
            "--health-server-address", f"127.0.0.1:{health_port}",
            "--port", str(port), "--isolation", "process", *secret,
        ]  # fmt: skip
        executor = [
            str(tools / "flower-superexec"), "--insecure",
            "--runtime-api-address", f"127.0.0.1:{port}", *secret,
        ]  # fmt: skip
        return {"supernode": supernode, "executor": executor}

    def commands(self, health_port: int) -> dict[str, list[str]]:
        """Name -> command line of each process; no secret is in one."""
        return {"guard": self.guard(), **self.flower(health_port)}


def up(folder: Path, health_port: int = HEALTH_PORT, *, one_user: bool = False) -> None:
    """Run a site's node until SIGTERM or SIGINT, as two users if its folder is of two.

    Args:
        one_user: Whether root insists on running all of it as root.
    Raises:
        ConfigError: Something is missing or wrong.
        ExposedError: Others can reach what is the site's own.
        LaunchError: The consortium's code would run as root, or this is not root and has to be.
        NodeError: The node is up already, or its health port is taken.
    """
    from client.node.starting import Start, require  # which knows nodes, too

    node = Node(folder)
    require(Start(folder, health_port, one_user=one_user, patience=PATIENCE))
    log.warning("%s", separation(folder))
    for place in (node.socket.parent, node.secret.parent):
        place.mkdir(exist_ok=True, parents=True, mode=0o700)
    commands = node.commands(health_port)

    def note(changed: Supervisor) -> None:
        facts = {"pid": os.getpid(), "processes": changed.pids, "health_port": health_port}
        replace_file(node.facts, json.dumps(facts).encode())

    try:
        _supervise(node, commands, folder / "logs", note)
    finally:
        node.facts.unlink(missing_ok=True)


def node_alone(folder: Path, health_port: int = HEALTH_PORT, *, one_user: bool = False) -> None:
    """Run Flower's processes as the node's user until SIGTERM or SIGINT; for service managers.

    Raises:
        ConfigError: There is no kit.
        LaunchError: This is neither the node's user nor root.
        NodeError: The health port is taken.
    """
    from client.node.starting import free_health_port

    refuse_root(folder, one_user=one_user)
    act_as_node(folder)
    node = Node(folder)
    free_health_port(health_port, PATIENCE)
    node.secret.parent.mkdir(exist_ok=True, mode=0o700)
    logs = node.secret.parent / "logs"
    _supervise(node, node.flower(health_port), logs, lambda _: None)


def _supervise(
    node: Node,
    commands: dict[str, list[str]],
    logs: Path,
    note: Callable[[Supervisor], None],
) -> None:
    users = users_of(node.folder)
    new_secret(node.secret, users)
    how = {name: options(name, node.folder, users) for name in commands}
    supervisor = Supervisor(commands, logs, how)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    supervisor.run(note)


def running(folder: Path) -> dict[str, Any] | None:
    """Facts of a node that is up, None if it is not."""
    try:
        facts: dict[str, Any] = json.loads(Node(folder).facts.read_bytes())
        with suppress(PermissionError):  # it is somebody else's, and runs
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
    until = time.monotonic() + 3 * PATIENCE
    while running(folder) is not None:
        if time.monotonic() > until:
            raise NodeError(f"{folder}: process {facts['pid']} does not end; see the logs")
        time.sleep(0.1)
