"""A SuperNode takes part or ends: Flower's own lives on without heartbeats, or without work."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import ModuleType

import grpc
import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeResponse, PullMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.supercore import heartbeat
from flwr.supercore.grpc_health import health_server
from flwr.supernode import fleet_http_connection as connection
from grpc_health.v1 import health_pb2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from client.node import supernode
from medformer.common.health import SERVING, SUPERLINK, ask
from server.consortium.serving import Serving
from tests.helpers.patience import waited

PAGE = "<html>not now</html>"
BODIES = {
    "activate-node": ActivateNodeResponse(node_id=7),
    "send-node-heartbeat": SendNodeHeartbeatResponse(success=True),
    "pull-messages": PullMessagesResponse(),
}


class SuperLink:
    """A SuperLink that gives the answers a test wants before its good ones."""

    def __init__(self) -> None:
        self.before: dict[str, list[Response]] = {}
        self.good: dict[str, int] = {}
        routes = [Route("/v1/fleet/{what}", self._answer, methods=["POST"])]
        self._serving = Serving(Starlette(routes=routes), "127.0.0.1")
        self.address = f"127.0.0.1:{self._serving.port}"
        self.close = self._serving.close

    async def _answer(self, request: Request) -> Response:
        what = request.path_params["what"]
        if self.before.get(what):
            return self.before[what].pop(0)
        self.good[what] = self.good.get(what, 0) + 1
        body = BODIES[what].SerializeToString() if what in BODIES else b""
        return Response(body, media_type="application/x-protobuf")


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> Iterator[SuperLink]:
    """Yield a SuperLink with our corrections installed, and retries without delay."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for module, name in [(one[0], one[2]) for one in supernode.REPLACED]:
        monkeypatch.setattr(module, name, getattr(module, name))  # undone afterwards
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(supernode, "HEARD", supernode.Heard())
    supernode.install()
    monkeypatch.setattr(heartbeat, "exponential", lambda **_: iter([0.01] * 99))
    monkeypatch.setattr("flwr.supercore.retry.http_retry.exponential",
                        lambda **_: iter([0.01] * 99))  # fmt: skip
    one = SuperLink()
    yield one
    one.close()


def test_heartbeats_go_on_after_every_answer(superlink: SuperLink):
    """They survive 404, 413 and 429 of a proxy, and 500 of a SuperLink whose database is busy."""
    superlink.before["send-node-heartbeat"] = [
        Response(PAGE, code) for code in (404, 413, 429, 500, 403, 302, 503)
    ]
    with connection.http_request_response(superlink.address, True):
        assert not superlink.good.get("send-node-heartbeat")
        waited(lambda: superlink.good.get("send-node-heartbeat"))
        waited(lambda: supernode.HEARD.lately)


def pulled(superlink: SuperLink, *before: Response) -> str:
    """Return the outcome of a pull. Flower's connection swallows what is raised in its body."""
    outcome = "nothing"
    superlink.before["pull-messages"] = list(before)
    with connection.http_request_response(superlink.address, True) as (_, receive, *_others):
        try:
            outcome = str(receive())
        except httpx.HTTPStatusError as error:
            outcome = f"given up: {error.response.status_code}"
    return outcome


def test_a_pull_outlasts_a_proxy_and_a_refusal_of_the_superlink_ends_it(superlink: SuperLink):
    """A page with 404 is a proxy's; the SuperLink's own 404 is JSON, and final."""
    pages = [Response(PAGE, code) for code in (404, 403, 429, 500, 408)]
    assert pulled(superlink, *pages) == "None"
    assert superlink.before["pull-messages"] == []
    refused = Response("{}", 404, media_type="application/json")
    assert pulled(superlink, refused) == "given up: 404"
    assert pulled(superlink, Response(PAGE, 413)) == "given up: 413"


def test_what_stays_so_is_given_up_in_the_end(
    superlink: SuperLink, monkeypatch: pytest.MonkeyPatch
):
    """A push that never succeeds must not keep the node from the next request."""
    hasty = partial(supernode.patient, 0.05)
    monkeypatch.setattr(connection, "make_simple_http_retry_invoker", hasty)
    assert pulled(superlink, *[Response(PAGE, 500)] * 90) == "given up: 500"
    assert 0 < len(superlink.before["pull-messages"]) < 89


def test_a_proxy_that_refuses_for_a_moment_is_asked_again():
    """httpx raises ProxyError, which Flower does not retry."""
    answers: list[Exception | str] = [httpx.ProxyError("503 Service Unavailable"), "done"]

    def ask_() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    invoker = supernode.patient()
    invoker.wait_function = lambda _: None
    assert invoker.invoke(ask_) == "done"


def test_the_health_page_tells_the_process_from_the_way_to_the_server(
    superlink: SuperLink, monkeypatch: pytest.MonkeyPatch
):
    """`site status` asks for both: a process can serve while the server does not hear it."""
    serving = health_server.run_health_server_grpc_no_tls("127.0.0.1:0")
    address = serving.bound_address
    try:
        assert ask(address, 5) == SERVING
        assert ask(address, 5, SUPERLINK) == "not serving"
        supernode.HEARD.now()
        assert ask(address, 5, SUPERLINK) == SERVING
        monkeypatch.setattr(supernode, "HEARD", supernode.Heard(seconds=0.0))
        supernode.HEARD.now()
        assert ask(address, 5, SUPERLINK) == "not serving"
        assert ask(address, 5) == SERVING
    finally:
        serving.stop(None)


def test_a_server_that_went_away_is_told_at_once_and_when_it_is_back(superlink: SuperLink):
    """The first request without an answer counts, long before a heartbeat is overdue."""
    superlink.before["send-node-heartbeat"] = [Response(PAGE, 503)]
    with connection.http_request_response(superlink.address, True) as _:
        waited(lambda: supernode.HEARD.lately)
    heard: list[bool] = []
    invoker = supernode.patient()
    invoker.wait_function = lambda _: heard.append(supernode.HEARD.lately)
    answers = [httpx.ConnectError("refused"), Response(b"")]

    def pull() -> Response:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    invoker.invoke(pull)
    assert heard == [False]
    assert supernode.HEARD.lately


@pytest.mark.parametrize(("module", "function", "name", "own"), supernode.REPLACED)
def test_a_flower_that_looks_elsewhere_is_refused(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str, name: str, own: object
):
    """A correction that Flower does not call would be missed by nobody."""
    monkeypatch.setattr(supernode, "REPLACED", ((module, function, name, own),))
    monkeypatch.setattr(module, function, lambda: None)
    with pytest.raises(SystemExit, match=rf"flwr .* does not use {name} in .*pip check"):
        supernode.install()
    monkeypatch.delattr(module, function)
    with pytest.raises(SystemExit, match=f"does not use {name}"):
        supernode.install()


LOST = {
    "its main loop": "threading.Thread(target=time.sleep, args=[60]).start",
    "a thread of it": "lambda: (threading.Thread(target=lambda: 1 / 0).start(), time.sleep(60))",
}


@pytest.mark.parametrize("part", LOST)
def test_a_supernode_that_has_lost_a_part_ends_whole(part: str):
    """Flower's HTTP server would keep the process alive, so nothing would start it again."""
    code = (
        "import threading, time, client.node.supernode as own, flwr.supernode.cli as cli\n"
        f"cli.flower_supernode = {LOST[part]}\nown.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == supernode.ENDED, done
    assert f"to be started again: {part}" in done.stderr


def test_health_in_words():
    """A busy process, a silent one and another program at the port are told apart."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert ask(f"127.0.0.1:{port}", 5).startswith("is another program")
    server.stop(None).wait()
    assert ask(f"127.0.0.1:{port}", 5) == "does not answer (UNAVAILABLE)"
    assert supernode.Health().Check(health_pb2.HealthCheckRequest(), None).status == 1
