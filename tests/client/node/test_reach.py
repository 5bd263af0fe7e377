"""Faults between a hospital and its consortium are told apart: name, firewall, port, TLS, clock."""

import re
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.node import reach
from client.node.reach import UnreachableError, dial, greet, off
from medformer.common.certificate import CertificateError
from tests.helpers.tls import answering, certified, proxying


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the proxies of this machine's environment."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


HASTY = 0.3
"""Seconds that a test waits for a server that never answers."""


def test_a_server_that_listens_is_reached():
    """Nothing is sent to it."""
    with answering(None) as port:
        assert dial("localhost", port) == f"localhost:{port}"


def test_each_way_not_to_be_reached_has_its_sentence():
    """An unknown name, a closed port and a silent firewall are told apart."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    with pytest.raises(UnreachableError, match=r"refuses connections.*Ask the coordinator"):
        dial("127.0.0.1", port)
    with pytest.raises(UnreachableError, match=r"the name no\.such\.invalid is unknown here.*DNS"):
        dial("no.such.invalid", port)
    with socket.socket() as full:  # its queue is: the kernel drops what comes
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        with pytest.raises(
            UnreachableError, match=r"does not answer within .*through the firewall"
        ):
            dial(*full.getsockname(), HASTY)
        for one in waiting:
            one.close()


def test_a_good_server_is_greeted_and_told_nothing_of_the_site(tmp_path: Path):
    """TLS uses the kit's authority, and only the health page is requested."""
    folder, asked = certified(tmp_path / "t"), []
    with answering(folder, asked=asked) as port:
        server = greet("localhost", port, folder / "ca.crt")
    assert server.version == "TLSv1.3"
    assert server.ends == f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}"
    assert server.ahead is not None
    assert abs(server.ahead) < 2
    (request,) = asked
    assert request.startswith(b"GET /health HTTP/1.1\r\n")
    names = {line.split(b":")[0].lower() for line in request.split(b"\r\n")[1:] if line}
    assert names == {b"host", b"accept", b"accept-encoding", b"connection", b"user-agent"}


def test_a_foreign_server_a_wrong_name_and_a_kit_without_certificate(tmp_path: Path):
    """Each error says what to do."""
    ours, other = certified(tmp_path / "ours"), certified(tmp_path / "other")
    foreign = pytest.raises(CertificateError, match="not by this consortium's authority")
    with answering(other) as port, foreign:
        greet("localhost", port, ours / "ca.crt")
    with answering(ours) as port:
        with pytest.raises(CertificateError, match=r"is for localhost, but 127\.0\.0\.1 was"):
            greet("127.0.0.1", port, ours / "ca.crt")
        (tmp_path / "ca.crt").write_text("nothing")
        with pytest.raises(UnreachableError, match=r"is not a certificate.*new kit"):
            greet("localhost", port, tmp_path / "ca.crt")


@pytest.mark.parametrize(
    ("days", "expected"), [(-400, r"ended on .*--rotate server"), (40, r"set the clock \(NTP\)")]
)
def test_a_certificate_of_another_time(tmp_path: Path, days: int, expected: str):
    """A certificate is refused that has expired, or is not valid yet by this machine's clock."""
    folder = certified(tmp_path / "t", now=datetime.now(UTC) + timedelta(days=days))
    with answering(folder) as port, pytest.raises(CertificateError, match=expected):
        greet("localhost", port, folder / "ca.crt")


def test_what_speaks_no_tls_is_no_server_of_a_consortium(tmp_path: Path):
    """Plain HTTP and a silent socket are told apart."""
    folder = certified(tmp_path / "t")
    with answering(None) as port, pytest.raises(UnreachableError, match="does not speak HTTPS"):
        greet("localhost", port, folder / "ca.crt")
    late = pytest.raises(UnreachableError, match="does not answer over TLS within")
    with socket.create_server(("127.0.0.1", 0)) as silent, late:
        greet("127.0.0.1", silent.getsockname()[1], folder / "ca.crt", HASTY)


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (0, ""),
        (30, ""),
        (-2, ""),
        (-60, "6[0-2] s ahead"),
        (400, "(400|39[89]) s behind"),
        (7200, "behind"),
    ],
)
def test_a_clock_that_flower_would_refuse_is_found(tmp_path: Path, shift: float, expected: str):
    """It is compared with the server's. Flower accepts messages minutes old, but none from its
    future."""
    folder = certified(tmp_path / "t")
    with answering(folder, date=time.time() + shift) as port:
        ahead = greet("localhost", port, folder / "ca.crt").ahead
    assert ahead is not None
    assert ahead == pytest.approx(-shift, abs=2)
    assert re.search(expected, off(ahead))
    assert bool(expected) == bool(off(ahead))


def test_flowers_own_limits_are_these():
    """A release of Flower with other limits fails here."""
    from flwr.common import constant

    assert constant.SYSTEM_TIME_TOLERANCE == reach.AHEAD
    assert constant.TIMESTAMP_TOLERANCE + constant.SYSTEM_TIME_TOLERANCE == reach.BEHIND


def test_a_server_that_tells_no_time(tmp_path: Path):
    """Nothing is claimed about the clock."""
    folder = certified(tmp_path / "t")
    with answering(folder, date="") as port:
        assert greet("localhost", port, folder / "ca.crt").ahead is None


def test_through_a_proxy_as_the_node_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Only the proxy knows the name; hosts in NO_PROXY are contacted directly."""
    folder, asked = certified(tmp_path / "t", ("fl.hospital.invalid", "localhost")), []
    with answering(folder) as port, proxying(port, asked) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy}")
        assert dial("fl.hospital.invalid", 9092) == f"the proxy 127.0.0.1:{proxy}"
        assert greet("fl.hospital.invalid", 9092, folder / "ca.crt").version == "TLSv1.3"
        assert asked == ["CONNECT fl.hospital.invalid:9092 HTTP/1.1"]
        monkeypatch.setenv("NO_PROXY", "localhost")
        assert dial("localhost", port) == f"localhost:{port}"
        greet("localhost", port, folder / "ca.crt")
        assert len(asked) == 1
