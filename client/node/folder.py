"""A hospital's folder: its parts, the command lines of its processes, and whether it is up."""

import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.guard_rpc.proxy import INNER
from client.node.kit import read_kit, verify_kit
from client.node.permissions import private_folder, private_key, private_state
from client.node.users import check_layout, users_of
from client.site import Site, load_site
from medformer.common import sockets
from medformer.common.processes import free_port
from medformer.common.toml import quoted
from medformer.errors import ConfigError, MedFormerError
from medformer.vocabulary import unknown_words

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
        from client.policy import load_policy  # loads scipy, which `site status` does not need

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
