"""Asks the health services of a site's guard and SuperNode, as units and containers do."""

import time
from pathlib import Path

from client.node import HEALTH_PORT, Node, NodeError, running
from medformer.health import SERVING, SILENT, ask


def status(
    folder: Path, health_port: int | None = None, only: str | None = None, wait: float = 0
) -> dict[str, str]:
    """Process -> `serving`, or what is wrong with it.

    Args:
        health_port: Of the SuperNode; if left out, that of the `site up` that runs.
        only: `guard` or `node`.
        wait: Seconds to go on asking until all serve.
    Raises:
        NodeError: Nothing answers, and no `site up` runs.
    """
    until = time.monotonic() + wait
    while True:
        facts = running(folder)
        port = health_port or (facts or {}).get("health_port", HEALTH_PORT)
        asked = {
            "guard": f"unix:{Node(folder).socket.absolute()}",
            "supernode": f"127.0.0.1:{port}",
        }
        if only is not None:
            kept = "guard" if only == "guard" else "supernode"
            asked = {kept: asked[kept]}
        found = {name: _ask(address) for name, address in asked.items()}
        if all(said == SERVING for said in found.values()):
            return found
        if time.monotonic() >= until:
            break
        time.sleep(0.5)
    if facts is None and all(said.startswith(SILENT) for said in found.values()):
        raise NodeError(f"{folder}: this node is not up: fedmedformer site up {folder}")
    return found


def _ask(address: str) -> str:
    said = ask(address, timeout=5)
    return f"{said}: see its log" if said.startswith(SILENT) else said
