"""`consortium status --serve`: page, JSON and Prometheus metrics, on the loopback address alone.

It is a process of its own that reads files: it can neither stop a run nor change one. Whoever has
an account on this machine can read it. Web pages of other origins cannot: a browser sends them no
answer, and a name that somebody has pointed at the loopback address (DNS rebinding) is refused.
"""

import re
import threading
import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from medformer.errors import MedFormerError
from server.consortium.serving import Serving
from server.watching.exposition import CONTENT_TYPE, exposition
from server.watching.facts import Status
from server.watching.page import POLICY, page_of

LOOPBACK = "127.0.0.1"
HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
"""Host headers that are answered. The port may be another one, for example of an SSH tunnel."""
FRESH_SECONDS = 1.0
"""Time for which collected facts are shown again, however many ask."""
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": f"{POLICY}; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def serve(look: Callable[[], Status], port: int) -> Serving:
    """Answer on the loopback address until `close`.

    Args:
        look: Collects the facts.
        port: Port to listen at; 0 takes a free one.
    Raises:
        ServingError: The port is taken.
    """
    return Serving(pages(look), LOOPBACK, port, connections=32)


def pages(look: Callable[[], Status]) -> ASGIApp:
    """Make the application that answers.

    Args:
        look: Collects the facts.
    """
    facts = _Fresh(look)

    def page(_: Request) -> Response:
        return _answer(lambda: Response(page_of(facts()), media_type="text/html"))

    def plain(_: Request) -> Response:
        return _answer(lambda: JSONResponse(facts().to_json()))

    def metrics(_: Request) -> Response:
        return _answer(
            lambda: Response(exposition(facts()), headers={"content-type": CONTENT_TYPE})
        )

    routes = [Route("/", page), Route("/status.json", plain), Route("/metrics", metrics)]
    return _OwnHostOnly(Starlette(routes=routes))


def _answer(make: Callable[[], Response]) -> Response:
    try:
        response = make()
    except MedFormerError as error:  # consortium.yaml is being edited, for example
        response = PlainTextResponse(f"{error}\n", 503)
    response.headers.update(HEADERS)
    return response


class _OwnHostOnly:
    """Refuses requests that were made for another name than this machine's own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or not HOST.fullmatch(hosts[0].decode("latin-1")):
                refusal = PlainTextResponse("ask for 127.0.0.1 or localhost\n", 421)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Fresh:
    """Collects the facts at most once a second."""

    def __init__(self, look: Callable[[], Status]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._found: Status | None = None
        self._at = 0.0

    def __call__(self) -> Status:
        with self._lock:
            if self._found is None or time.monotonic() - self._at > FRESH_SECONDS:
                self._found, self._at = self._look(), time.monotonic()
            return self._found
