"""Asks a gRPC health service on this machine whether it is serving."""

from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from medformer.errors import one_line

NO_PROXY = (("grpc.enable_http_proxy", 0),)
"""Otherwise gRPC would use a proxy from the environment for 127.0.0.1, too."""
SERVING, SILENT = "serving", "does not answer"
SUPERLINK = "superlink"
"""Service of a SuperNode's health page that reports whether the server takes its heartbeats."""
SINCE, WHY = "since", "why"
"""Keys of the trailing metadata with which a SuperNode explains its answer on `superlink`."""
WORDS: Mapping[grpc.StatusCode, str] = {
    grpc.StatusCode.UNAVAILABLE: SILENT,
    grpc.StatusCode.DEADLINE_EXCEEDED: f"{SILENT} in time",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "is up, but too busy to answer",
    grpc.StatusCode.UNIMPLEMENTED: "is another program: it has no health page",
    grpc.StatusCode.NOT_FOUND: "is another version: its health page does not know the question",
    grpc.StatusCode.CANCELLED: "was ending while it was asked",
}


def ask(address: str, timeout: float, service: str = "") -> str:
    """Return `serving`, `not serving`, or why there is no answer, with the code of gRPC.

    Args:
        address: A Unix socket or a port of the loopback address; the connection has no TLS.
        timeout: Seconds.
        service: The part of the process to ask about; all of it if left out.
    """
    return ask_more(address, timeout, service)[0]


def ask_more(address: str, timeout: float, service: str = "") -> tuple[str, dict[str, str]]:
    """Return the answer of `ask`, and what the process adds to it (`SINCE`, `WHY`).

    Args:
        address: As for `ask`.
        timeout: Seconds.
        service: As for `ask`.
    """
    # Never over a network: the address is of this machine.
    with grpc.insecure_channel(address, options=NO_PROXY) as channel:
        try:
            answer, call = health_pb2_grpc.HealthStub(channel).Check.with_call(
                health_pb2.HealthCheckRequest(service=service), timeout=timeout
            )
        # No answer is an answer here: the caller prints it.
        except grpc.RpcError as error:
            return f"{WORDS.get(error.code(), 'cannot be asked')} ({error.code().name})", {}
    state = SERVING if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving"
    # The port may be another program's, so its words are bounded.
    said = {str(key): one_line(str(value), 200) for key, value in call.trailing_metadata() or ()}
    return state, {key: said[key] for key in (SINCE, WHY) if key in said}
