"""The consortium's gateway passes on what nodes need, unchanged, and nothing else."""

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.consortium.authority import new_authority, new_server_certificate
from server.consortium.gateway import gateway
from server.consortium.serving import Serving, ServingError

MAX_BODY = 2**21
"""Bytes; below the limit of a real gateway, so that a test need not send it."""
HEARD: list[str] = []
"""Keys that the gateway has heard, each time."""
Seen = list[tuple[str, str, dict[str, str], bytes]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    authority = folder / "ca.key", folder / "ca.crt"
    new_authority(*authority, "lungs")
    files = folder / "server.key", folder / "server.crt"
    new_server_certificate(authority, *files, ["localhost", "127.0.0.1"], 1)
    return folder


@pytest.fixture
def seen() -> Seen:
    return []


@pytest.fixture
def entrance(certificate: Path, seen: Seen) -> Iterator[httpx.Client]:
    """Yield a client of a gateway in front of a server that answers everything."""

    async def everything(request: Request) -> Response:
        body = await request.body()
        seen.append((request.method, request.url.path, dict(request.headers), body))
        if code := request.headers.get("x-answer"):
            return Response(b"<html>", int(code))
        return Response(body[::-1], 207, headers={"x-inner": "yes", "content-type": "a/b"})

    tls = certificate / "server.crt", certificate / "server.key"
    routes = [Route("/{path:path}", everything, methods=["GET", "POST", "PUT", "DELETE"])]
    inner = Serving(Starlette(routes=routes), "127.0.0.1", tls=tls)
    authority = str(certificate / "ca.crt")
    passing = gateway(f"https://127.0.0.1:{inner.port}", authority, MAX_BODY, HEARD.append)
    outer = Serving(passing, "127.0.0.1", tls=tls)
    context = ssl.create_default_context(cafile=authority)
    try:
        with httpx.Client(
            base_url=f"https://localhost:{outer.port}", verify=context, trust_env=False
        ) as client:
            yield client
    finally:
        outer.close()
        inner.close()


def test_a_node_is_heard_when_the_superlink_has_taken_its_request(entrance: httpx.Client):
    """A request with a wrong signature gets 401, and proves nothing; nor does the health page."""
    HEARD.clear()
    for code, path in (("200", "pull-messages"), ("401", "pull-messages"), ("500", "pull-messages"),
                       ("200", "send-node-heartbeat")):  # fmt: skip
        headers = {"flwr-public-key": f"{code} {path}", "x-answer": code}
        entrance.post(f"/v1/fleet/{path}", headers=headers)
    entrance.post("/v1/fleet/pull-messages", headers={"x-answer": "200"})
    assert HEARD == ["200 pull-messages", "200 send-node-heartbeat"]


def test_a_nodes_request_and_its_answer_pass_unchanged(entrance: httpx.Client, seen: Seen):
    """Headers carry the node's signature. The gateway itself sets the caller's address."""
    body = bytes(range(256)) * 5_000
    headers = {"x-signature": "abc", "x-forwarded-for": "10.1.1.1", "content-type": "p/q"}
    answer = entrance.post("/v1/fleet/pull-messages", content=body, headers=headers)
    assert (answer.status_code, answer.content) == (207, body[::-1])
    assert (answer.headers["x-inner"], answer.headers["content-type"]) == ("yes", "a/b")
    ((method, path, passed, inner_body),) = seen
    assert (method, path, inner_body) == ("POST", "/v1/fleet/pull-messages", body)
    assert (passed["x-signature"], passed["content-type"]) == ("abc", "p/q")
    assert passed["x-forwarded-for"] == "127.0.0.1"
    assert entrance.get("/health").status_code == 207


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/control/register-node"),
        ("POST", "/v1/runtime/pull-task"),
        ("POST", "/v1/fleet/../control/start-run"),
        ("POST", "/v1/fleet/%2e%2e/control/start-run"),
        ("POST", "/v1/fleet/..%2fcontrol%2fstart-run"),
        ("POST", "/v1/fleet/x/y"),
        ("POST", "//v1/fleet/pull-messages"),
        ("POST", "/V1/fleet/pull-messages"),
        ("POST", "/v1/fleet/"),
        ("POST", "/health"),
        ("GET", "/v1/fleet/pull-messages"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/health/x"),
        ("GET", "/"),
        ("PUT", "/v1/fleet/pull-messages"),
        ("DELETE", "/v1/fleet/pull-messages"),
    ],
)
def test_everything_else_stays_outside(entrance: httpx.Client, seen: Seen, method: str, path: str):
    """A caller who can start a run at the SuperLink runs code at the coordinator. Paths are sent as
    written, because a client would normalise them."""
    url = entrance.base_url.copy_with(raw_path=path.encode())
    answer = entrance.send(httpx.Request(method, url, content=b"x"))
    assert answer.status_code in (400, 404, 405)
    assert seen == []


def test_a_body_beyond_the_limit_is_cut_off(entrance: httpx.Client, seen: Seen):
    """The limit holds whether or not a request declares its length."""
    assert entrance.post("/v1/fleet/push-object", content=bytes(MAX_BODY + 1)).status_code == 413
    parts = (bytes(MAX_BODY // 10) for _ in range(20))
    assert entrance.post("/v1/fleet/push-object", content=parts).status_code == 413
    assert (
        entrance.post("/v1/fleet/send-node-heartbeat", content=bytes(MAX_BODY + 1)).status_code
        == 503
    )
    assert not [row for row in seen if len(row[3]) > MAX_BODY]
    assert entrance.post("/v1/fleet/push-object", content=bytes(MAX_BODY)).status_code == 207


@pytest.mark.parametrize("code", [200, 204, 400, 401, 403, 404, 413, 429, 500, 502, 503, 504])
def test_a_heartbeat_is_answered_so_that_the_next_one_comes(entrance: httpx.Client, code: int):
    """Flower's SuperNode goes on after 200, 502, 503 and 504 and ends after 401. After any other
    answer it lives on without heartbeats. Other requests keep their answer."""
    for path, wanted in (
        ("send-node-heartbeat", code if code in (200, 401, 502, 503, 504) else 503),
        ("push-messages", code),
    ):
        answer = entrance.post(f"/v1/fleet/{path}", content=b"x", headers={"x-answer": str(code)})
        assert answer.status_code == wanted


def test_a_superlink_that_is_away_or_somebody_else_gets_nothing(certificate: Path, tmp_path: Path):
    """Its certificate is checked although it is on the same machine."""
    foreign = tmp_path / "ca.key", tmp_path / "ca.crt"
    new_authority(*foreign, "other")
    files = tmp_path / "server.key", tmp_path / "server.crt"
    new_server_certificate(foreign, *files, ["127.0.0.1"], 1)
    asked = threading.Event()

    async def everything(request: Request) -> Response:
        asked.set()
        return Response()

    routes = [Route("/{path:path}", everything, methods=["POST"])]
    inner = Serving(Starlette(routes=routes), "127.0.0.1", tls=(files[1], files[0]))
    authority = str(certificate / "ca.crt")
    outer = Serving(gateway(f"https://127.0.0.1:{inner.port}", authority), "127.0.0.1")
    url = f"http://127.0.0.1:{outer.port}/v1/fleet/pull-messages"
    assert httpx.post(url, content=b"x", trust_env=False).status_code == 503
    assert not asked.is_set()
    inner.close()
    assert httpx.post(url, content=b"x", trust_env=False).status_code == 503
    outer.close()


def test_a_port_that_is_taken_is_named(certificate: Path):
    """So is a certificate that cannot be used."""
    one = Serving(Starlette(), "127.0.0.1")
    with pytest.raises(ServingError, match=f"127.0.0.1:{one.port}: cannot listen there"):
        Serving(Starlette(), "127.0.0.1", one.port)
    one.close()
