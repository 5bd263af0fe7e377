"""Asks the health services of a site's guard and SuperNode, as units and containers do."""

import time
from pathlib import Path

from client.node.folder import HEALTH_PORT, Node, NodeError, running
from medformer.common.health import SERVING, SILENT, SUPERLINK, ask
from medformer.common.sockets import target

SERVER = "server"
"""What is said of the way to the consortium, as the SuperNode finds it."""


def status(
    folder: Path, health_port: int | None = None, only: str | None = None, wait: float = 0
) -> dict[str, str]:
    """Process -> `serving`, or what is wrong with it; and whether the server hears the node.

    Args:
        health_port: Of the SuperNode; if left out, that of the `site up` that runs.
        only: `guard` or `node`, the process alone, which may serve while the server is away;
            or `server`.
        wait: Seconds to go on asking until all serve.
    Raises:
        NodeError: Nothing answers, and no `site up` runs.
    """
    until = time.monotonic() + wait
    while True:
        facts = running(folder)
        port = health_port or (facts or {}).get("health_port", HEALTH_PORT)
        found = _asked(target(Node(folder).socket), f"127.0.0.1:{port}", only)
        if all(said == SERVING for said in found.values()):
            return found
        if time.monotonic() >= until:
            break
        time.sleep(0.5)
    processes = [said for name, said in found.items() if name != SERVER]
    if facts is None and processes and all(said.startswith(SILENT) for said in processes):
        raise NodeError(f"{folder}: this node is not up: fedmedformer site up {folder}")
    return found


def _asked(guard: str, supernode: str, only: str | None) -> dict[str, str]:
    found = {}
    if only in (None, "guard"):
        found["guard"] = _ask(guard)
    if only in (None, "node"):
        found["supernode"] = _ask(supernode)
    if only in (None, SERVER):
        said = ask(supernode, timeout=5, service=SUPERLINK)
        found[SERVER] = {
            SERVING: SERVING,
            "not serving": "does not hear this node: see supernode.log, and fedmedformer site "
            "check",
        }.get(said, f"unknown, because the supernode {said}")
    return found


def _ask(address: str) -> str:
    said = ask(address, timeout=5)
    return said if said in (SERVING, "not serving") else f"{said}: see its log"
