"""The one door of a consortium's server to the outside: what a registered node needs, no more.

Flower's SuperLink answers all its interfaces at one port: beside the Fleet API, whose callers it
authenticates by their keys, the Control API (start a run, register a node) and the Runtime API,
which ask nobody who they are. So the SuperLink listens on the loopback address, and only the Fleet
API and the health page are passed on from outside. An allow list: what a later Flower adds stays
shut.
"""

import logging
import re
import ssl
from collections.abc import AsyncIterator
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
UNDERSTOOD = frozenset({200, 401, 502, 503, 504})
"""Answers to a heartbeat after which Flower's SuperNode goes on, or ends (401). After any other its
heartbeats end for ever while its process lives, so that it is answered 503, and tries again."""
LARGEST_BODY = MAX_MESSAGE + 2**20
"""Bytes of a request: a message and what Flower puts around it."""
CONNECTIONS = 256
HOP_BY_HOP = {
    "connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "te",
    "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip
"""RFC 9110, section 7.6.1: of one connection, not of the message."""
NOT_PASSED = HOP_BY_HOP | {"forwarded", "x-forwarded-for", "x-forwarded-proto"}
"""A caller may not say where it comes from; the gateway does."""
UNKNOWN = Address("unknown", 0)


class _TooLarge(Exception):
    """A body beyond `LARGEST_BODY`."""


def gateway(inner: str, authority: str) -> ASGIApp:
    """An ASGI application that passes on what nodes may ask.

    Args:
        inner: URL of the SuperLink.
        authority: File of the certificates that the SuperLink's is held against.
    """
    client = httpx.AsyncClient(
        base_url=inner,
        verify=ssl.create_default_context(cafile=authority),
        trust_env=False,
        timeout=httpx.Timeout(60, connect=5),
        limits=httpx.Limits(max_connections=CONNECTIONS),
    )

    async def handle(request: Request) -> Response:
        path = request.url.path
        health = request.method == "GET" and path == "/health"
        if not health and not (request.method == "POST" and OPEN.fullmatch(path)):
            return PlainTextResponse("not found", 404)
        headers = [(k, v) for k, v in request.headers.raw if k.decode("latin-1") not in NOT_PASSED]
        headers.append((b"x-forwarded-for", (request.client or UNKNOWN).host.encode()))
        asked = client.build_request(request.method, path, headers=headers, content=_body(request))
        try:
            answer = await client.send(asked, stream=True)
        except _TooLarge:
            code = 503 if path == HEARTBEAT else 413
            return PlainTextResponse("too large", code)
        except (httpx.HTTPError, httpx.InvalidURL, ClientDisconnect, ValueError) as error:
            log.warning("%s is not passed on: %s", path, type(error).__name__)
            return PlainTextResponse("the SuperLink does not answer", 503)
        if path == HEARTBEAT and answer.status_code not in UNDERSTOOD:
            await answer.aclose()
            log.warning("the SuperLink answers %d to a heartbeat", answer.status_code)
            return PlainTextResponse("the SuperLink does not take heartbeats now", 503)
        done = BackgroundTask(answer.aclose)
        response = StreamingResponse(answer.aiter_raw(), answer.status_code, background=done)
        response.raw_headers = [
            (k.lower(), v)
            for k, v in answer.headers.raw
            if k.lower().decode("latin-1") not in HOP_BY_HOP
        ]
        return response

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    routes = [Route("/{path:path}", handle, methods=["GET", "POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


async def _body(request: Request) -> AsyncIterator[bytes]:
    taken = 0
    async for part in request.stream():
        taken += len(part)
        if taken > LARGEST_BODY:
            raise _TooLarge
        yield part
