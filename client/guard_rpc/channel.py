"""The relay's end of the socket: asks a site's guard, and loads nothing that learns."""

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
    """A site's guard behind a Unix socket, with the interface of `client.guard.Guard`.

    Args:
        socket: Where the guard listens.
        deadline: Seconds that a round may take.
    """

    def __init__(self, socket: Path, deadline: float = 3_600) -> None:
        self._socket = socket
        self._deadline = deadline
        self._channel = grpc.insecure_channel(target(socket), options=OPTIONS)
        self._handle = self._channel.unary_unary(
            METHOD,
            request_serializer=pb.Request.SerializeToString,
            response_deserializer=pb.Answer.FromString,
        )

    def handle(self, request: Request) -> Answer:
        """The guard's answer; what keeps it from answering becomes a fixed refusal.

        A guard that is down, restarting or past its deadline has an attempt on its ledger, or has
        not: the coordinator interrupts the run, and asks again when it is resumed.
        """
        try:
            return answer_from_proto(
                self._handle(request_to_proto(request), timeout=self._deadline)
            )
        except grpc.RpcError as error:
            return Refusal("internal-error", reason(error.code(), error.details() or ""))
        except ProtocolError:
            return Refusal("internal-error", "The site's guard gave an answer of another version.")

    def close(self) -> None:
        """Let go of the socket."""
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
TOO_LARGE = "The message, or the guard's answer, is larger than either reads."
BUSY = "The site's guard is busy, or this machine is out of memory; ask again later."


def reason(code: grpc.StatusCode, details: str = "") -> str:
    """A fixed text: what gRPC says could name paths of the site.

    Args:
        details: gRPC's own text, which alone tells apart what RESOURCE_EXHAUSTED means: a message
            beyond the limit, or a server that takes no more calls.
    """
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return TOO_LARGE if "larger than" in details else BUSY
    return REASONS.get(code, f"The site's guard could not be asked ({code.name}).")
