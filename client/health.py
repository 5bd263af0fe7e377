"""Asks the health services of a site's guard and SuperNode, as units and containers do."""

import time
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client.node import HEALTH_PORT, Node, NodeError, running

NO_PROXY = (("grpc.enable_http_proxy", 0),)
"""Both are on this machine: gRPC would ask a proxy of the environment for 127.0.0.1, too."""
SERVING, SILENT = "serving", "does not answer"


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
        found = {name: _ask(address, name) for name, address in asked.items()}
        if all(said == SERVING for said in found.values()):
            return found
        if time.monotonic() >= until:
            break
        time.sleep(0.5)
    if facts is None and all(said.startswith(SILENT) for said in found.values()):
        raise NodeError(f"{folder}: this node is not up: fedmedformer site up {folder}")
    return found


def _ask(address: str, name: str) -> str:
    with grpc.insecure_channel(address, options=NO_PROXY) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=5
            )
        except grpc.RpcError as error:
            return f"{SILENT} ({error.code().name}): see its log"
    return SERVING if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving"
