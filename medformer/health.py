"""Asks a gRPC health service on this machine whether it serves."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

NO_PROXY = (("grpc.enable_http_proxy", 0),)
"""gRPC would ask a proxy of the environment for 127.0.0.1, too."""
SERVING, SILENT = "serving", "does not answer"


def ask(address: str, timeout: float) -> str:
    """`serving`, `not serving`, or `does not answer` and the code of gRPC.

    Args:
        address: Without TLS: a Unix socket, or a port of the loopback address.
        timeout: Seconds.
    """
    with grpc.insecure_channel(address, options=NO_PROXY) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout
            )
        except grpc.RpcError as error:
            return f"{SILENT} ({error.code().name})"
    return SERVING if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving"
