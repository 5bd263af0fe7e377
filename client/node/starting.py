"""What keeps a site's node from starting: one list, for `site up` and for `site check`."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import client
from client.node.folder import HEALTH_PORT, Node, NodeError, running
from client.node.joining import known_by
from client.node.launch import LaunchError, refuse_root
from client.node.permissions import installed_code, only_ours
from client.node.users import users_of
from client.site import Site, load_site
from medformer.common.processes import is_taken
from medformer.errors import ConfigError


class AlreadyUp(NodeError):
    """The node runs: there is nothing to start."""


@dataclass(frozen=True)
class Start:
    """How a node is to be started."""

    folder: Path
    health_port: int = HEALTH_PORT
    allow_root: bool = False
    """Whether root insists on running all of it as root."""
    patience: float = 0
    """Seconds in which a port may become free that a process of before still holds."""


def conditions(start: Start) -> Iterator[tuple[str, Callable[[], None]]]:
    """Name and look at each condition, in their order; a look raises a sentence that says what to
    do."""
    yield "user", partial(_user, start)
    yield "start", Node(start.folder).check
    if users_of(start.folder) is None:  # else the guard's user looks at what the guard reads
        yield "files", partial(_settings, start.folder)
        yield "code", _code
    yield "start", partial(_key, start.folder)
    yield "tools", _tools
    yield "start", partial(_not_up, start.folder)
    yield "port", partial(free_health_port, start.health_port, start.patience)


def require(start: Start) -> None:
    """See that a node can be started.

    Raises:
        ConfigError: Something is missing or wrong.
        ExposedError: Others can reach what is the site's own.
        LaunchError: The consortium's code would run as root, or this is not root and has to be.
        NodeError: The node is up already, or its health port is taken.
    """
    for _, look in conditions(start):
        look()


def free_health_port(port: int, patience: float) -> None:
    """See that the SuperNode's health page can have its port.

    Raises:
        NodeError: Somebody listens there.
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
    """A key of which the consortium knows nothing is turned away for ever."""
    known_by(folder)


def _settings(folder: Path) -> None:
    only_ours_to_write(folder, load_site(folder / "site.yaml"))


def only_ours_to_write(folder: Path, site: Site) -> None:
    """See that nobody else can write what the guard obeys: it would end at once, again and again.

    Raises:
        ExposedError: Others can.
    """
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
