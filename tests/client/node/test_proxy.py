"""A hospital behind a proxy: its node connects through it, and never uses it for this machine."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from flwr.supercore.protobuf.client import ProtobufClient
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from client.node import health as asking
from client.node.launch import environment
from server.consortium.authority import new_authority, new_server_certificate
from server.consortium.serving import Serving

HOST = "fl.consortium.invalid"
"""No name server knows it: nothing can be reached but through the proxy."""


class Proxy:
    """A proxy that answers CONNECT only, and knows one name."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.asked: list[str] = []
        self.passed = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        with caller:
            head = b""
            while b"\r\n\r\n" not in head and (data := caller.recv(4_096)):
                head += data
            line = head.split(b"\r\n")[0].decode()
            self.asked.append(line)
            if not line.startswith(f"CONNECT {HOST}:"):
                caller.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=self._pump, args=(server, caller), daemon=True)
                back.start()
                self._pump(caller, server)
                back.join(5)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4_096):
                self.passed += data
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("secret word"))])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Serving, bytes]]:
    """Serve as a consortium, with a certificate for the name; yield its port and authority."""
    authority = tmp_path / "ca.key", tmp_path / "ca.crt"
    new_authority(*authority, "lungs")
    key, certificate = tmp_path / "server.key", tmp_path / "server.crt"
    new_server_certificate(authority, key, certificate, [HOST], 9)
    serving = Serving(app, "127.0.0.1", tls=(certificate, key))
    yield serving, authority[1].read_bytes()
    serving.close()


@pytest.fixture
def proxy(server: tuple[Serving, bytes]) -> Iterator[Proxy]:
    made = Proxy(server[0].port)
    yield made
    made.close()


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
def test_flowers_transport_goes_through_the_hospitals_proxy(
    server: tuple[Serving, bytes], proxy: Proxy, tmp_path: Path, name: str,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    """The proxy sees one CONNECT with the consortium's name, then only TLS."""
    become(environment("supernode", tmp_path, None, {name: proxy.address}), monkeypatch)
    answer = dial(f"{HOST}:443", authority=server[1])
    assert answer == "secret word"
    assert proxy.asked == [f"CONNECT {HOST}:443 HTTP/1.1"]
    assert b"secret word" not in proxy.passed


def test_without_a_proxy_the_name_cannot_be_reached(
    server: tuple[Serving, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without this the test above would prove nothing."""
    become(environment("supernode", tmp_path, None, {}), monkeypatch)
    with pytest.raises(Exception, match=r"not known|resolution|resolve"):
        dial(f"{HOST}:443", authority=server[1])


def test_a_proxy_that_opens_tls_is_refused(
    server: tuple[Serving, bytes], proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its certificate is of another authority, whatever else this machine trusts."""
    other = tmp_path / "o.key", tmp_path / "o.crt"
    new_authority(*other, "proxy")
    become(environment("supernode", tmp_path, None, {"https_proxy": proxy.address}), monkeypatch)
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        dial(f"{HOST}:443", authority=other[1].read_bytes())


def test_the_relays_on_this_machine_are_not_dialled_through_a_proxy(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """SuperNode and relays talk HTTP on the loopback address; a proxy would see their tokens."""
    own = Serving(app, "127.0.0.1")
    given = {"http_proxy": proxy.address, "HTTP_PROXY": proxy.address, "ALL_PROXY": proxy.address}
    become(environment("supernode", tmp_path, None, given), monkeypatch)
    try:
        for host in ("127.0.0.1", "localhost"):
            assert dial(f"{host}:{own.port}") == "secret word"
    finally:
        own.close()
    assert proxy.asked == []


def test_health_is_not_asked_through_a_proxy(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """gRPC obeys http_proxy, too; for this machine it must not."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, proxy.address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    servicer = health.HealthServicer()
    for name in ("", "superlink"):
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    serving = grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, serving)
    port = serving.add_insecure_port("127.0.0.1:0")
    (tmp_path / "run" / "guard").mkdir(parents=True)
    serving.add_insecure_port(f"unix:{tmp_path / 'run' / 'guard' / 'guard.sock'}")
    serving.start()
    try:
        found = asking.status(tmp_path, port)
        assert found == {"guard": "serving", "supernode": "serving", "server": "serving"}
        assert asking.status(tmp_path, only="guard") == {"guard": "serving"}
        servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        found = asking.status(tmp_path, port, wait=0.1)
        wanted = {"guard": "not serving", "supernode": "not serving", "server": "serving"}
        assert found == wanted
    finally:
        serving.stop(None)
    assert proxy.asked == []


def become(found: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Take over the proxy settings of an environment."""
    for name in ("http", "https", "all", "no"):
        for key in (f"{name}_proxy", f"{name}_proxy".upper()):
            monkeypatch.delenv(key, raising=False)
            if key in found:
                monkeypatch.setenv(key, found[key])


def dial(address: str, authority: bytes | None = None) -> str:
    """Connect with the client that Flower's SuperNode uses, over TLS if an authority is given."""
    client = ProtobufClient.from_server_address(address, authority is None, authority, [])
    try:
        return str(client._client.get(f"{client._base_url}/").text)
    finally:
        client.close()
