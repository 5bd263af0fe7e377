"""Serves an ASGI application in a thread of this process."""

import socket
import threading
import time
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from medformer.errors import MedFormerError

START_SECONDS = 60.0
"""Seconds for a server to start."""


class ServingError(MedFormerError):
    """A server cannot listen at its address."""


class Serving:
    """A server that answers from its construction until `close`.

    Args:
        app: The application that answers.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        tls: Files of certificate and key; without them it speaks plain HTTP.
        connections: Connections at a time; more are refused.
    Raises:
        ServingError: The address is taken, or is not one of this machine's.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int = 0,
        *,
        tls: tuple[Path, Path] | None = None,
        connections: int = 256,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server((host, port), family=family)
        except OSError as error:
            raise ServingError(
                f"{host}:{port}: cannot listen there ({error.strerror or error})"
            ) from error
        # Port 0 has become a real one; and nobody can take the address before uvicorn has it.
        self.port: int = listening.getsockname()[1]
        config = uvicorn.Config(
            app,
            ssl_certfile=tls and tls[0],
            ssl_keyfile=tls and tls[1],
            log_config=None,
            access_log=False,
            server_header=False,
            # A caller must not choose the address that it seems to have.
            proxy_headers=False,
            loop="asyncio",
            ws="none",
            limit_concurrency=connections,
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, daemon=True
        )
        self._thread.start()
        self._wait_for_the_start(f"{host}:{self.port}")

    def _wait_for_the_start(self, address: str) -> None:
        end = time.monotonic() + START_SECONDS
        while not self._server.started:
            # uvicorn ends its thread at once if the certificate cannot be used.
            if not self._thread.is_alive() or time.monotonic() > end:
                raise ServingError(
                    f"{address}: does not start; is the certificate whole, and this machine not "
                    "too busy?"
                )
            time.sleep(0.02)

    @property
    def serves(self) -> bool:
        """True while it answers."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop, once the requests in progress are answered."""
        self._server.should_exit = True
        self._thread.join(10)
