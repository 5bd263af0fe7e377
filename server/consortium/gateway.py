"""The only way from outside to a consortium's server: it passes on what registered nodes need.

Flower's SuperLink answers all its interfaces at one port. The Fleet API authenticates its callers
by their keys. The Control API (start a run, register a node) and the Runtime API ask nobody who
they are. So the SuperLink listens on the loopback address, and only requests to the Fleet API and
to the health page are passed on from outside. This is an allow list: an API that a later Flower
adds stays closed.
"""

import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import Address
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from server.protocol import MAX_MESSAGE

log = logging.getLogger(__name__)

OPEN = re.compile(r"/v1/fleet/[a-z-]+")
"""Paths to which a POST is passed on."""
HEARTBEAT = "/v1/fleet/send-node-heartbeat"
KEY_HEADER = "flwr-public-key"
"""Header in which Flower's SuperNode names the key that signed its request."""
UNDERSTOOD = frozenset({200, 401, 502, 503, 504})
"""Answers to a heartbeat after which Flower's SuperNode goes on, or ends (401). After any other
answer its heartbeats stop for ever while its process lives. Such an answer becomes 503, after which
it tries again."""
MAX_BODY = MAX_MESSAGE + 2**20
"""Bytes of a request: a message, and what Flower puts around it."""
CONNECTIONS = 256
HOP_BY_HOP = {
    "connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "te",
    "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip
"""Headers that belong to one connection, not to the message (RFC 9110, section 7.6.1)."""
NOT_PASSED = HOP_BY_HOP | {"forwarded", "x-forwarded-for", "x-forwarded-proto"}
"""Headers that are not passed on: a caller must not choose the address that it seems to have."""
UNKNOWN = Address("unknown", 0)


class _TooLarge(Exception):
    """A request's body exceeds its limit."""


def gateway(
    inner: str,
    authority: str,
    max_body: int = MAX_BODY,
    heard: Callable[[str], None] = lambda key: None,
) -> ASGIApp:
    """Make an ASGI application that passes on what nodes may ask.

    Args:
        inner: URL of the SuperLink.
        authority: Certificate file against which the SuperLink's certificate is checked.
        max_body: Bytes that a request's body may have.
        heard: Called with the key of each request of a node that the SuperLink has accepted, as
            its header names it.
    """
    client = httpx.AsyncClient(
        base_url=inner,
        verify=ssl.create_default_context(cafile=authority),
        # The SuperLink is on this machine: a proxy of the environment is not asked.
        trust_env=False,
        timeout=httpx.Timeout(60, connect=5),
        limits=httpx.Limits(max_connections=CONNECTIONS),
    )

    async def handle(request: Request) -> Response:
        if not _is_open(request):
            return PlainTextResponse("not found", 404)
        answer = await _pass_on(client, request, max_body)
        # The SuperLink has checked the signature of a request that it answers with 200.
        if answer.status_code == 200 and (key := request.headers.get(KEY_HEADER)):
            heard(key)
        return answer

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    routes = [Route("/{path:path}", handle, methods=["GET", "POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


def _is_open(request: Request) -> bool:
    """Return whether a request may be passed on: the health page, or a call of the Fleet API."""
    path = request.url.path
    if request.method == "GET":
        return path == "/health"
    return request.method == "POST" and OPEN.fullmatch(path) is not None


async def _pass_on(client: httpx.AsyncClient, request: Request, max_body: int) -> Response:
    """Send a request to the SuperLink, and stream its answer back."""
    path = request.url.path
    headers = [(k, v) for k, v in request.headers.raw if k.decode("latin-1") not in NOT_PASSED]
    headers.append((b"x-forwarded-for", (request.client or UNKNOWN).host.encode()))
    body = _body(request, max_body)
    asked = client.build_request(request.method, path, headers=headers, content=body)
    try:
        answer = await client.send(asked, stream=True)
    except _TooLarge:
        # A heartbeat has to be answered so that the next one comes.
        code = 503 if path == HEARTBEAT else 413
        return PlainTextResponse("too large", code)
    # A path that httpx cannot send is refused, as is a caller who hangs up.
    except (httpx.HTTPError, httpx.InvalidURL, ClientDisconnect, ValueError) as error:
        log.warning("%s is not passed on: %s", path, type(error).__name__)
        return PlainTextResponse("the SuperLink does not answer", 503)
    if path == HEARTBEAT and answer.status_code not in UNDERSTOOD:
        await answer.aclose()
        log.warning("the SuperLink answers %d to a heartbeat", answer.status_code)
        return PlainTextResponse("the SuperLink does not take heartbeats now", 503)
    done = BackgroundTask(answer.aclose)
    response = StreamingResponse(answer.aiter_raw(), answer.status_code, background=done)
    # Raw, because Starlette would merge headers that come several times.
    response.raw_headers = [
        (k.lower(), v)
        for k, v in answer.headers.raw
        if k.lower().decode("latin-1") not in HOP_BY_HOP
    ]
    return response


async def _body(request: Request, max_body: int) -> AsyncIterator[bytes]:
    """Stream a request's body, up to its limit.

    Raises:
        _TooLarge: The body is longer, whatever its headers say.
    """
    taken = 0
    async for part in request.stream():
        taken += len(part)
        if taken > max_body:
            raise _TooLarge
        yield part
