"""Serves one site's guard: gRPC on a Unix socket behind a door, with a health service."""

import logging
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from client.guard import Guard
from client.guard_rpc import guard_pb2 as pb
from client.guard_rpc.door import INNER, Door
from client.guard_rpc.messages import (
    SERVICE,
    SIZES,
    answer_to_proto,
    request_from_proto,
)
from client.node.permissions import private_state
from client.refusals import BadRequest
from medformer.common.sockets import fit, target
from medformer.errors import MedFormerError
from server.protocol import Answer, ProtocolError, Refusal

log = logging.getLogger(__name__)

MOST_WAITING = 8
"""Requests at a time: they wait for each other at the state folder's lock. More are refused."""
SPARE = 4
"""Threads for those that are refused, and for health checks, which wait for nobody."""
BUSY = "The site's guard is busy with other questions; ask again later."


class ServiceError(MedFormerError):
    """The guard cannot be served as it is set up."""


class GuardService:
    """Serves from the constructor on, until it is closed.

    Args:
        guard: Answers; its state folder is made 0700 if it is not there yet.
        socket: Where relays connect.
        users: User ids of relays.
    Raises:
        ServiceError: A folder cannot be used.
        ExposedError: Others can enter the state folder, or read ledger or anchor.
    """

    def __init__(self, guard: Guard, socket: Path, users: Collection[int] = ()) -> None:
        self._guard = guard
        self._health = health.HealthServicer()
        self._free = threading.BoundedSemaphore(MOST_WAITING)
        private_state(guard.folder, guard.site.ledger_anchor)
        try:
            guard.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            inner = guard.folder.resolve() / INNER
            for place in (inner, socket):
                fit(place)
            inner.unlink(missing_ok=True)
            self._server = self._listening(inner)
            try:
                self._door = Door(socket, inner, users)
            except OSError:
                self._server.stop(None).wait()
                raise
        except OSError as error:
            raise ServiceError(f"{error.filename or socket}: {error.strerror}") from error
        for name in ("", SERVICE):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def close(self, grace: float = 30) -> None:
        """Let what is being answered finish, for so many seconds."""
        for name in ("", SERVICE):
            self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._door.close()
        self._server.stop(grace).wait()

    def __enter__(self) -> "GuardService":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listening(self, inner: Path) -> grpc.Server:
        # gRPC's own limit (maximum_concurrent_rpcs) would turn health checks away, too.
        server = grpc.server(
            ThreadPoolExecutor(MOST_WAITING + SPARE, thread_name_prefix="guard"),
            options=(*SIZES, ("grpc.so_reuseport", 0)),
        )
        handle = grpc.unary_unary_rpc_method_handler(
            self._handle,
            request_deserializer=pb.Request.FromString,
            response_serializer=pb.Answer.SerializeToString,
        )
        methods = grpc.method_handlers_generic_handler(SERVICE, {"Handle": handle})
        server.add_generic_rpc_handlers((methods,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if not server.add_insecure_port(target(inner)):
            raise ServiceError(f"{inner}: cannot listen there")
        server.start()
        return server

    def _handle(self, message: Any, context: grpc.ServicerContext) -> Any:
        if not self._free.acquire(blocking=False):
            log.warning("more than %d questions at a time: one was refused", MOST_WAITING)
            return answer_to_proto(Refusal("internal-error", BUSY, self._guard.site.name))
        try:
            return answer_to_proto(self._answer(message))
        finally:
            self._free.release()

    def _answer(self, message: Any) -> Answer:
        try:
            request = request_from_proto(message)
        except ProtocolError as error:
            log.warning("refused a message: %s", error)
            no = BadRequest("the message is not of this protocol")
            return self._guard.refuse("unknown", "", no)
        return self._guard.handle(request)
