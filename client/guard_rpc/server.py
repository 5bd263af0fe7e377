"""The server of one site's guard: gRPC on a Unix socket behind a proxy, with a health service."""

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
from client.guard_rpc.messages import (
    SERVICE,
    SIZES,
    answer_to_proto,
    request_from_proto,
)
from client.guard_rpc.proxy import INNER, UserProxy
from client.ledger.home import Home
from client.node.permissions import private_state
from client.refusals import BadRequest
from medformer.common.sockets import fit, target
from medformer.errors import MedFormerError
from server.protocol import INTERNAL_ERROR, Answer, ProtocolError, Refusal

log = logging.getLogger(__name__)

MAX_WAITING = 8
"""Maximal number of requests at a time. They wait for each other at the state folder's lock; more
are refused."""
SPARE = 4
"""Number of further threads, for refusals and health checks, which wait for no lock."""
BUSY = "The site's guard is busy with other questions; ask again later."


class ServiceError(MedFormerError):
    """A socket or folder of the guard cannot be used."""


class GuardService:
    """Serves a guard, from its construction until it is closed.

    Args:
        guard: Answers the requests. Its state folder is made with mode 0700 if it is missing.
        socket: The socket to which relays connect.
        users: User ids of the relays.
    Raises:
        ServiceError: A folder cannot be used.
        ExposedError: Other users can enter the state folder, or read ledger or anchor.
        LedgerError: The ledger is a copy of one that is in use elsewhere, or cannot be read.
    """

    def __init__(self, guard: Guard, socket: Path, users: Collection[int] = ()) -> None:
        self._guard = guard
        self._health = health.HealthServicer()
        self._free = threading.BoundedSemaphore(MAX_WAITING)
        # Refused, not repaired: a user who could enter may have changed the ledger already.
        private_state(guard.folder, guard.site.ledger_anchor)
        self._home = Home(guard.site, guard.folder)
        self._home.check()  # a copy is not served at all
        try:
            guard.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            inner = guard.folder.resolve() / INNER
            for place in (inner, socket):
                fit(place)
            # Left by a killed guard; the folder belongs to this user alone.
            inner.unlink(missing_ok=True)
            self._server = self._listening(inner)
            try:
                self._proxy = UserProxy(socket, inner, users)
            except OSError:
                self._server.stop(None).wait()
                raise
        except OSError as error:
            raise ServiceError(f"{error.filename or socket}: {error.strerror}") from error
        for name in ("", SERVICE):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def close(self, grace: float = 30) -> None:
        """Stop serving.

        Args:
            grace: Seconds in which requests that are being answered may finish.
        """
        for name in ("", SERVICE):
            self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._proxy.close()
        self._server.stop(grace).wait()

    def __enter__(self) -> "GuardService":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listening(self, inner: Path) -> grpc.Server:
        """Start gRPC on the guard's own socket."""
        # gRPC's own limit (maximum_concurrent_rpcs) would refuse health checks, too.
        server = grpc.server(
            ThreadPoolExecutor(MAX_WAITING + SPARE, thread_name_prefix="guard"),
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
        """Answer one call, or refuse it while too many wait."""
        # A refusal that the server understands, instead of a call that waits past its deadline.
        if not self._free.acquire(blocking=False):
            log.warning("more than %d requests at a time: one was refused", MAX_WAITING)
            return answer_to_proto(Refusal("internal-error", BUSY, self._guard.site.name))
        try:
            return answer_to_proto(self._answer(message))
        finally:
            self._free.release()

    def _answer(self, message: Any) -> Answer:
        """Parse a message and ask the guard; a malformed message is a refusal on the ledger."""
        try:
            request = request_from_proto(message)
        except ProtocolError as error:
            log.warning("refused a message: %s", error)
            # Written to the ledger like every refusal, without the text of the message.
            no = BadRequest("the message is not of this protocol")
            return self._guard.refuse("unknown", "", no)
        try:
            self._home.check()
        except MedFormerError as error:
            # The server gets a fixed text: the path is the site's own.
            log.error("site %s cannot answer: %s", self._guard.site.name, error)
            return Refusal("internal-error", INTERNAL_ERROR, self._guard.site.name)
        return self._guard.handle(request)
