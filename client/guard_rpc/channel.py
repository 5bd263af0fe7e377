"""The relay's end of the socket: it asks a site's guard, and loads neither torch nor Opacus."""

from collections.abc import Mapping
from pathlib import Path

import grpc

from client.guard_rpc import guard_pb2 as pb
from client.guard_rpc.messages import (
    METHOD,
    SIZES,
    answer_from_proto,
    request_to_proto,
)
from medformer.common.sockets import target
from server.protocol import Answer, ProtocolError, Refusal, Request

OPTIONS = (*SIZES, ("grpc.enable_http_proxy", 0))


class GuardChannel:
    """A connection to a site's guard, with the interface of `client.guard.Guard`.

    Args:
        socket: The Unix socket at which the guard listens.
        deadline: Seconds that a round may take.
    """

    def __init__(self, socket: Path, deadline: float = 3_600) -> None:
        self._socket = socket
        self._deadline = deadline
        # No TLS: the socket is local, and the kernel names who is at the other end.
        self._channel = grpc.insecure_channel(target(socket), options=OPTIONS)
        self._handle = self._channel.unary_unary(
            METHOD,
            request_serializer=pb.Request.SerializeToString,
            response_deserializer=pb.Answer.FromString,
        )

    def handle(self, request: Request) -> Answer:
        """Return the guard's answer, or a refusal with a fixed text if it cannot answer.

        If the guard is down, restarting or past the deadline, the attempt may be on its ledger or
        not. The coordinator interrupts the run, and asks again when the run is resumed.

        Args:
            request: As the server sent it.
        """
        try:
            return answer_from_proto(
                self._handle(request_to_proto(request), timeout=self._deadline)
            )
        except grpc.RpcError as error:
            # The relay never raises: Flower would send the text of the exception to the server.
            return Refusal("internal-error", reason(error.code(), error.details() or ""))
        except ProtocolError:
            return Refusal("internal-error", "The site's guard gave an answer of another version.")

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> "GuardChannel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


REASONS: Mapping[grpc.StatusCode, str] = {
    grpc.StatusCode.UNAVAILABLE: "The site's guard is not running, has too many callers, or "
    "refuses this user.",
    grpc.StatusCode.DEADLINE_EXCEEDED: "The site's guard did not answer in time.",
    grpc.StatusCode.CANCELLED: "The site's guard was stopped while it answered.",
    grpc.StatusCode.UNIMPLEMENTED: "The site's guard is of another version, or is none.",
    grpc.StatusCode.INTERNAL: "The site's guard could not read the message, or broke off.",
    grpc.StatusCode.UNKNOWN: "The site's guard failed; its own log says why.",
}
"""gRPC's status -> the reason that the server sees."""
TOO_LARGE = "The message, or the guard's answer, is larger than either reads."
BUSY = "The site's guard is busy, or this machine is out of memory; ask again later."


def reason(code: grpc.StatusCode, details: str = "") -> str:
    """Return a fixed text for a failed call, because gRPC's own text could name paths of the site.

    Args:
        code: gRPC's status.
        details: gRPC's own text. Only it tells the two meanings of RESOURCE_EXHAUSTED apart: a
            message beyond the limit, or a server that accepts no more calls.
    """
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return TOO_LARGE if "larger than" in details else BUSY
    return REASONS.get(code, f"The site's guard could not be asked ({code.name}).")
