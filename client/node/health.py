"""Asks the health services of a site's guard and SuperNode, as units and containers do."""

import time
from pathlib import Path

from client.node.folder import HEALTH_PORT, Node, NodeError, running
from medformer.common.health import SERVING, SILENT, SUPERLINK, ask, ask_more
from medformer.common.sockets import target

SERVER = "server"
"""Name of the answer on whether the consortium's server hears the node."""


def status(
    folder: Path, health_port: int | None = None, only: str | None = None, wait: float = 0
) -> dict[str, str]:
    """Ask guard and SuperNode whether they serve, and whether the server hears the node.

    Args:
        folder: The site's folder.
        health_port: Port of the SuperNode's health page; if left out, that of the `site up` that
            runs.
        only: Ask only `guard`, `node` or `server`. Guard and node can serve while the server is
            away.
        wait: Seconds to go on asking until all of them serve.
    Returns:
        `serving`, or what is wrong, by the name of what was asked.
    Raises:
        NodeError: Nothing answers, and no `site up` runs.
    """
    until = time.monotonic() + wait
    # The facts are read anew each time: `site up` may only be starting.
    while True:
        facts = running(folder)
        port = health_port or (facts or {}).get("health_port", HEALTH_PORT)
        found = _asked(target(Node(folder).socket), f"127.0.0.1:{port}", only)
        if all(state == SERVING for state in found.values()):
            return found
        if time.monotonic() >= until:
            break
        time.sleep(0.5)
    # If one of them answers, the node is up, and its own message is better than this advice.
    processes = [state for name, state in found.items() if name != SERVER]
    if facts is None and processes and all(state.startswith(SILENT) for state in processes):
        raise NodeError(f"{folder}: this node is not up: fedmedformer site up {folder}")
    return found


def connection(folder: Path, health_port: int | None = None) -> dict[str, str]:
    """Ask the SuperNode since when the server hears it or not, and if not, why.

    Args:
        folder: The site's folder.
        health_port: Port of the SuperNode's health page; if left out, that of the `site up` that
            runs.
    Returns:
        `since` (a time in UTC) and `why`, as far as the SuperNode answers.
    """
    port = health_port or (running(folder) or {}).get("health_port", HEALTH_PORT)
    return ask_more(f"127.0.0.1:{port}", timeout=5, service=SUPERLINK)[1]


def _asked(guard: str, supernode: str, only: str | None) -> dict[str, str]:
    """Ask each of them once."""
    found = {}
    if only in (None, "guard"):
        found["guard"] = _ask(guard)
    if only in (None, "node"):
        found["supernode"] = _ask(supernode)
    if only in (None, SERVER):
        # The SuperNode knows it from its heartbeats; nothing is sent to the server for this.
        state = ask(supernode, timeout=5, service=SUPERLINK)
        found[SERVER] = {
            SERVING: SERVING,
            "not serving": "does not hear this node: see supernode.log, and fedmedformer site "
            "check",
        }.get(state, f"unknown, because the supernode {state}")
    return found


def _ask(address: str) -> str:
    state = ask(address, timeout=5)
    return state if state in (SERVING, "not serving") else f"{state}: see its log"
