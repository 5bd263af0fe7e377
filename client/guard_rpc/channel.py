"""The relay's end of the socket: asks a site's guard, and loads nothing that learns."""

from pathlib import Path

import grpc

from client.guard_rpc import guard_pb2 as pb
from client.guard_rpc.messages import (
    METHOD,
    SIZES,
    answer_from_proto,
    request_to_proto,
)
from server.protocol import Answer, Refusal, Request

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
        self._channel = grpc.insecure_channel(f"unix:{socket.absolute()}", options=OPTIONS)
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
            return Refusal("internal-error", reason(error.code()))

    def close(self) -> None:
        """Let go of the socket."""
        self._channel.close()

    def __enter__(self) -> "GuardChannel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reason(code: grpc.StatusCode) -> str:
    """A fixed text: what gRPC says could name paths of the site."""
    return {
        grpc.StatusCode.UNAVAILABLE: "The site's guard is not running, or refuses this user.",
        grpc.StatusCode.DEADLINE_EXCEEDED: "The site's guard did not answer in time.",
        grpc.StatusCode.RESOURCE_EXHAUSTED: "The message is larger than a guard reads.",
    }.get(code, "The site's guard could not be asked.")
