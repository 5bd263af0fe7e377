"""Sockets in folders of every name are served and asked, or refused with the reason."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from medformer.common.health import ask
from medformer.common.sockets import MAX_PATH, fit, target
from medformer.errors import ConfigError
from tests.helpers.patience import PATIENCE

ODD = ["a b", "50%41", "what?x=1", "#1", "\U0001f600", "q'u\"", "new\nline", "back\\", "k=v&w;:[x]"]
"""Names that mean something to a URI, to TOML, to a shell or to Flower's options."""


@pytest.fixture
def short() -> Iterator[Path]:
    """Make a folder whose path leaves room for a name."""
    folder = Path(tempfile.mkdtemp(prefix="s-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", [*ODD, os.fsdecode(b"\xff")])
def test_a_socket_in_a_folder_of_any_name_is_found(short: Path, name: str):
    """gRPC takes its path for a URI."""
    path = short / name / "s"
    path.parent.mkdir()
    fit(path)
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(target(path))
    server.start()
    assert path.is_socket()
    assert ask(target(path), timeout=PATIENCE) == "serving"
    server.stop(None)


def test_what_no_socket_can_have_is_refused(short: Path):
    """The kernel counts bytes, not characters; a comma divides addresses in gRPC."""
    room = MAX_PATH - len(os.fsencode(short)) - 1
    fit(short / ("x" * room))
    with pytest.raises(ConfigError, match="108 bytes, which is too long for a socket"):
        fit(short / ("x" * (room + 1)))
    with pytest.raises(ConfigError, match="too long"):
        fit(short / ("ü" * (room // 2 + 1)))
    with pytest.raises(ConfigError, match="a comma, which separates"):
        fit(short / "a,b")
