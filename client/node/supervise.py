"""`fedmedformer site up`: a hospital's guard and SuperNode, kept running.

The SuperNode connects to the consortium and starts the relay of the app bundle, which asks the
guard through its socket. Guard and SuperNode are started again when they end. Nothing is lost with
them, because everything that counts is in the state folder.
"""

import json
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from client.node.folder import HEALTH_PORT, Node, NodeError, running
from client.node.launch import act_as_node, new_secret, options, refuse_root, separation
from client.node.starting import Start, free_health_port, require
from client.node.users import users_of
from client.policy import load_policy
from medformer.common.files import replace_file
from medformer.common.processes import PATIENCE, Supervisor
from medformer.errors import one_line

log = logging.getLogger(__name__)

MAX_SHOWN = 65_536
"""Bytes of a log file that are shown at a time."""


def up(
    folder: Path,
    health_port: int = HEALTH_PORT,
    *,
    allow_root: bool = False,
    patience: float = PATIENCE,
    supervisor: Callable[..., Supervisor] = Supervisor,
) -> None:
    """Run a site's guard and node until SIGTERM or SIGINT, as two users if the folder has two.

    Args:
        folder: The site's folder.
        health_port: Port of the SuperNode's health page.
        allow_root: Root insists on running everything as root.
        patience: Seconds for the health port to become free, if an earlier node still ends.
        supervisor: Keeps the processes running.
    Raises:
        ConfigError: Something is missing or wrong.
        ExposedError: Other users can reach private files of the site.
        LaunchError: The consortium's code would run as root, or only root can start this node.
        LedgerError: The ledger is a copy of one that is in use elsewhere, or cannot be read.
        NodeError: The node is up already, or its health port is taken.
    """
    node = Node(folder)
    require(Start(folder, health_port, allow_root=allow_root, patience=patience))
    log.warning("%s", separation(folder))  # a warning, so that every start shows it
    for place in (node.socket.parent, node.secret.parent):
        place.mkdir(exist_ok=True, parents=True, mode=0o700)
    commands = node.commands(health_port)
    logs = folder / "logs"
    if load_policy(folder / "policy.yaml").approval == "manual":
        commands["announcer"] = node.announcer()

    def note(changed: Supervisor) -> None:
        facts = {"pid": os.getpid(), "processes": changed.pids, "health_port": health_port}
        replace_file(node.facts, json.dumps(facts).encode())

    try:
        shown = Shown(logs / "announcer.log", lambda line: log.warning("%s", line))
        _supervise(node, commands, logs, note, supervisor, shown.more)
    finally:
        node.facts.unlink(missing_ok=True)


class Shown:
    """Shows on the terminal of `site up` what is written to a log file from now on.

    Args:
        file: The log file; it need not be there yet.
        say: Takes each line.
    """

    def __init__(self, file: Path, say: Callable[[str], None]) -> None:
        self._file, self._say = file, say
        self._read = self._size()

    def more(self) -> None:
        """Show the lines that were added since the last call."""
        size = self._size()
        if size <= self._read:
            self._read = size  # it was emptied, or is as it was
            return
        with open(self._file, "rb") as file:
            file.seek(self._read)
            text = file.read(MAX_SHOWN)
        # A line that is being written is shown with the next call.
        whole, newline, _ = text.rpartition(b"\n")
        self._read += len(whole) + len(newline) if newline or len(text) < MAX_SHOWN else len(text)
        for line in whole.decode(errors="replace").splitlines():
            # Without the time of the line: it is shown now.
            self._say(one_line(line.partition("announcer: ")[2] or line, 500))

    def _size(self) -> int:
        try:
            return self._file.stat().st_size
        except OSError:
            return 0


def node_alone(folder: Path, health_port: int = HEALTH_PORT, *, allow_root: bool = False) -> None:
    """Run Flower's processes as the node's user until SIGTERM or SIGINT, for service managers.

    Args:
        folder: The site's folder.
        health_port: Port of the SuperNode's health page.
        allow_root: Root insists on running the consortium's code as root.
    Raises:
        ConfigError: There is no kit.
        LaunchError: This is neither the node's user nor root.
        NodeError: The health port is taken.
    """
    refuse_root(folder, allow_root=allow_root)
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
    make: Callable[..., Supervisor] = Supervisor,
    on_tick: Callable[[], None] = lambda: None,
) -> None:
    users = users_of(node.folder)
    new_secret(node.secret, users)
    how = {name: options(name, node.folder, users) for name in commands}
    supervisor = make(commands, logs, how)
    # A service manager sends the first one, Ctrl-C the second.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    supervisor.run(note, on_tick)


def down(folder: Path) -> None:
    """Stop a node that is up, and wait until it has ended.

    Args:
        folder: The site's folder.
    Raises:
        NodeError: It is not up, or does not end.
    """
    if (facts := running(folder)) is None:
        raise NodeError(f"{folder}: this node is not up")
    os.kill(facts["pid"], signal.SIGTERM)
    # Each of the three processes has its own time to end.
    until = time.monotonic() + 3 * PATIENCE
    while running(folder) is not None:
        if time.monotonic() > until:
            raise NodeError(f"{folder}: process {facts['pid']} does not end; see the logs")
        time.sleep(0.1)
