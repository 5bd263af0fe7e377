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
"""Port of the SuperNode's health page, on this machine only, unless another one is given."""


class NodeError(MedFormerError):
    """A node cannot be started, or is not running."""


@dataclass(frozen=True)
class Node:
    """A site's folder, as `site init` makes it, with the consortium's kit in it."""

    folder: Path

    @property
    def socket(self) -> Path:
        """Unix socket at which the guard listens."""
        return self.folder / "run" / "guard" / "guard.sock"

    @property
    def state(self) -> Path:
        """The guard's state folder: ledger, answers, local tensors."""
        return self.folder / "state"

    @property
    def secret(self) -> Path:
        """File of the secret that SuperNode and executor share, made anew at every start."""
        return self.folder / "flower" / "executor.secret"

    @property
    def facts(self) -> Path:
        """File with process ids and health port of a node that is up."""
        return self.folder / "run" / "node.json"

    def kit(self) -> dict[str, Any]:
        """Read the facts of the start-up kit.

        Raises:
            ConfigError: There is no kit, or it cannot be read.
        """
        return read_kit(self.folder / "kit")

    def check(self) -> None:
        """Check that everything is there which `site up` needs.

        Raises:
            ConfigError: Something is missing or wrong; says what, and what to do.
            ExposedError: Other users can reach private files of the site.
        """
        from client.policy import load_policy  # loads scipy, which `site status` does not need

        kit = self.kit()
        site = load_site(self.folder / "site.yaml")
        policy = load_policy(self.folder / "policy.yaml")
        if kit["site"] != site.name:
            raise ConfigError(
                f"the kit is for the site {kit['site']!r}, but site.yaml is of {site.name!r}"
            )
        for unknown in unknown_words(site.domain):
            raise ConfigError(f"{self.folder / 'site.yaml'}: domain: {unknown}")
        verify_kit(self.folder / "kit", policy.signer)
        private_key(self.folder / "node.key")
        self.private(site)
        # The kernel cuts no path short: it refuses one that is too long, when the guard starts.
        for socket in (self.socket, self.state.resolve() / INNER):
            sockets.fit(socket)

    def private(self, site: Site) -> None:
        """Check that other users cannot reach the site's folder.

        Where guard and node are two users, the node's user must reach only what it needs.

        Args:
            site: As its site.yaml declares it.
        Raises:
            ConfigError: The folder is not laid out for its two users.
            ExposedError: Other users can reach a file or folder; names it.
        """
        if (users := users_of(self.folder)) is not None:
            check_layout(self.folder, users, site)
            return
        private_folder(self.folder)
        private_state(self.state, site.ledger_anchor)

    def guard(self) -> list[str]:
        """Return the guard's command line; of two users, the node's user may ask the guard."""
        folder = self.folder.absolute()
        users = users_of(folder)
        # -I: a bundle has packages of the same names, and must not be imported from here.
        return [
            sys.executable, "-I", "-m", "client.guard_rpc",
            "--site", str(folder / "site.yaml"),
            "--policy", str(folder / "policy.yaml"),
            "--state", str(self.state.absolute()),
            "--socket", str(self.socket.absolute()),
            *(["--user", str(users.node.uid)] if users else []),
        ]  # fmt: skip

    def announcer(self) -> list[str]:
        """Return the command line of what announces runs that wait (`client.node.announce`)."""
        return [sys.executable, "-I", "-m", "client.node.announce", str(self.folder.absolute())]

    def flower(self, health_port: int) -> dict[str, list[str]]:
        """Return the command lines of Flower's processes, by the name of the process.

        The executor, which starts the relays, is a process apart, so that the supervisor starts it
        again when it ends: a SuperNode would not notice. The two share a secret that other users
        cannot read.

        Args:
            health_port: Port of the SuperNode's health page.
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
        """Return the command lines of all processes, by name; none holds a secret.

        Args:
            health_port: Port of the SuperNode's health page.
        """
        return {"guard": self.guard(), **self.flower(health_port)}


def running(folder: Path) -> dict[str, Any] | None:
    """Return the facts of a node that is up; None if it is not.

    Args:
        folder: The site's folder.
    """
    try:
        facts: dict[str, Any] = json.loads(Node(folder).facts.read_bytes())
        with suppress(PermissionError):  # it runs, as another user
            os.kill(facts["pid"], 0)
        started = Path(f"/proc/{facts['pid']}/cmdline").read_bytes()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # A process id is used again after a crash: only a process of ours is this node.
    return facts if b"fedmedformer" in started or b"simulations.cli" in started else None
