"""A server on loopback with the answers that a test wants, with or without TLS."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from email.utils import formatdate
from pathlib import Path

from server.consortium.authority import new_authority, new_server_certificate
from tests.helpers.patience import PATIENCE


def certified(
    folder: Path,
    hosts: tuple[str, ...] = ("localhost",),
    name: str = "ca",
    now: datetime | None = None,
) -> Path:
    """Make an authority, ca.crt, and a server's key and certificate, valid from `now` on."""
    folder.mkdir(exist_ok=True)
    if not (folder / f"{name}.key").exists():
        new_authority(folder / f"{name}.key", folder / f"{name}.crt", "test")
    pair = folder / f"{name}.key", folder / f"{name}.crt"
    files = folder / "server.key", folder / "server.crt"
    new_server_certificate(pair, *files, hosts, 30, now)
    return folder


@contextmanager
def answering(
    folder: Path | None,
    date: float | str | None = None,
    asked: list[bytes] | None = None,
    status: int = 200,
) -> Iterator[int]:
    """Start a server that answers each request in the same way, and yield its port.

    Args:
        folder: Holds server.key and server.crt. Without them, the server speaks plain HTTP.
        date: Seconds of its clock; "" for a server that tells no time, None for the real one.
        asked: Gets what was asked.
        status: Of every answer.
    """
    header = "" if date == "" else f"Date: {formatdate(date, usegmt=True)}\r\n"  # type: ignore[arg-type]
    page = (
        f"HTTP/1.1 {status} OK\r\n{header}Content-Length: 2\r\nConnection: close\r\n\r\nok".encode()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if folder is not None:
        context.load_cert_chain(folder / "server.crt", folder / "server.key")

    def serve(raw: socket.socket) -> None:
        with suppress(OSError), raw:
            raw.settimeout(PATIENCE)
            with context.wrap_socket(raw, server_side=True) if folder else raw as talk:
                if request := talk.recv(65_536):
                    if asked is not None:
                        asked.append(request)
                    talk.sendall(page)

    with _accepting(serve) as port:
        yield port


@contextmanager
def proxying(to: int, asked: list[str]) -> Iterator[int]:
    """Start an HTTP proxy that leads every CONNECT to one local port, and yield its own."""

    def serve(caller: socket.socket) -> None:
        with suppress(OSError), caller:
            caller.settimeout(PATIENCE)
            first = caller.recv(65_536)
            if not first:
                return
            asked.append(first.split(b"\r\n")[0].decode())
            with socket.create_connection(("127.0.0.1", to), timeout=PATIENCE) as far:
                caller.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(far, caller), daemon=True)
                back.start()
                _pump(caller, far)
                back.join(10)

    with _accepting(serve) as port:
        yield port


@contextmanager
def _accepting(serve: object) -> Iterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                raw = listening.accept()[0]
            except OSError:
                return
            threading.Thread(target=serve, args=(raw,), daemon=True).start()  # type: ignore[arg-type]

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
