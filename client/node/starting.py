"""The conditions under which a site's node starts: one list for `site up` and `site check`."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import client
from client.ledger.chain import FILE
from client.ledger.export import read
from client.ledger.home import refuse_copy
from client.node.folder import HEALTH_PORT, Node, NodeError, running
from client.node.joining import known_by
from client.node.launch import LaunchError, refuse_root
from client.node.permissions import installed_code, installed_extensions, only_ours
from client.node.users import users_of
from client.policy import load_policy
from client.site import Site, load_site
from medformer.common.processes import is_taken
from medformer.errors import ConfigError


class AlreadyUp(NodeError):
    """The node is up already."""


@dataclass(frozen=True)
class Start:
    """The options with which a node is started."""

    folder: Path
    """The site's folder."""
    health_port: int = HEALTH_PORT
    """Port of the SuperNode's health page, on this machine only."""
    allow_root: bool = False
    """Root insists on running everything as root."""
    patience: float = 0
    """Seconds for the health port to become free, if an earlier node still ends."""


def conditions(start: Start) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield each condition: its name and a check, which raises an error that says what to do.

    Args:
        start: The options with which the node is started.
    """
    yield "user", partial(_user, start)
    yield "start", Node(start.folder).check
    if users_of(start.folder) is None:  # else the guard's user checks what the guard reads
        yield "files", partial(_settings, start.folder)
        yield "budget", partial(_at_home, start.folder)
        yield "code", _code
    yield "start", partial(_key, start.folder)
    yield "tools", _tools
    yield "start", partial(_not_up, start.folder)
    # Last, because an earlier node may still hold the port for some seconds.
    yield "port", partial(free_health_port, start.health_port, start.patience)


def require(start: Start) -> None:
    """Check that a node can be started.

    Args:
        start: The options with which it is started.
    Raises:
        ConfigError: Something is missing or wrong.
        ExposedError: Other users can reach private files of the site.
        LaunchError: The consortium's code would run as root, or only root can start this node.
        LedgerError: The ledger is a copy of one that is in use elsewhere, or cannot be read.
        NodeError: The node is up already, or its health port is taken.
    """
    for _, look in conditions(start):
        look()


def free_health_port(port: int, patience: float) -> None:
    """Check that the port of the SuperNode's health page is free.

    Args:
        port: Port of the loopback address.
        patience: Seconds for it to become free.
    Raises:
        NodeError: A process listens there.
    """
    if is_taken(port, patience):
        raise NodeError(
            f"port {port} of this machine is taken, perhaps by another site's node: choose "
            "another with --health-port"
        )


def _user(start: Start) -> None:
    refuse_root(start.folder, allow_root=start.allow_root)
    if users_of(start.folder) and os.geteuid() != 0:
        raise LaunchError(f"{start.folder}: guard and node are two users here: start it as root")


def _key(folder: Path) -> None:
    """Check the key: the consortium refuses a key that it does not know."""
    known_by(folder)


def _settings(folder: Path) -> None:
    site = load_site(folder / "site.yaml")
    only_ours_to_write(folder, site)
    if (policy := folder / "policy.yaml").exists():
        installed_extensions([*load_policy(policy).extensions, *site.own_code])


def _at_home(folder: Path) -> None:
    """Check that the ledger is no copy: the guard would end at once, and be started for ever."""
    file = Node(folder).state / FILE
    if file.exists():
        refuse_copy(read(file), file)


def only_ours_to_write(folder: Path, site: Site) -> None:
    """Check that no other user can write the files that the guard obeys.

    Otherwise the guard would refuse to start, and be started again for ever.

    Args:
        folder: The site's folder.
        site: As its site.yaml declares it.
    Raises:
        ExposedError: Other users can write one of them.
    """
    # The list of the withdrawn decides whose records are used.
    for file in (folder / "site.yaml", folder / "policy.yaml", site.withdrawn):
        if file is not None and file.exists():
            only_ours(file)


def _code() -> None:
    installed_code(Path(str(client.__file__)).parent)


def _tools() -> None:
    tool = Path(sys.executable).parent / "flower-superexec"
    if not os.access(tool, os.X_OK):
        raise ConfigError(f"{tool}: is missing: install fedmedformer again")


def _not_up(folder: Path) -> None:
    if (known := running(folder)) is not None:
        raise AlreadyUp(f"{folder}: this node is up already (process {known['pid']})")
