"""The server remembers when it heard each admitted node, and nobody else."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from medformer.common.locks import locked
from server.protocol import fingerprint
from server.watching.seen import CONNECTED_SECONDS, SEEN, UP, Ear, Seen, read_seen, server_is_up
from tests.helpers.watched import new_key, openssh


def header(key: Any) -> str:
    """Return a key as Flower's SuperNode sends it."""
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(pem).decode()


def test_admitted_nodes_are_remembered_by_their_fingerprints(tmp_path: Path):
    """Strangers are not, nor is a header that holds no key; a revoked key is forgotten. A new
    server keeps what the one before has written."""
    north, stranger = new_key(), new_key()
    print_ = fingerprint(openssh(north))
    ear = Ear(tmp_path)
    for heard in (header(north), header(stranger), "no key", "%%"):
        ear.heard(heard)
    ear.write({"north": openssh(north)})
    seen = read_seen(tmp_path)
    assert list(seen.nodes) == [print_]
    assert seen.has_heard_lately(print_)
    assert not seen.has_heard_lately(fingerprint(openssh(stranger)))
    again = Ear(tmp_path)
    again.write({"north": openssh(north)})
    assert list(read_seen(tmp_path).nodes) == [print_]
    again.write({})
    assert read_seen(tmp_path).nodes == {}


def test_a_node_that_is_silent_for_two_heartbeats_counts_as_away():
    """Against the time of the file, which is late while the server admits nodes."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    late = at - timedelta(seconds=CONNECTED_SECONDS)
    seen = Seen(at, {"a": late + timedelta(seconds=1), "b": late})
    assert [seen.has_heard_lately(key) for key in "abc"] == [True, False, False]


def test_a_server_is_up_as_long_as_its_process_lives(tmp_path: Path):
    """The kernel knows, whatever a file says."""
    assert not server_is_up(tmp_path)
    with locked(tmp_path / UP):
        assert server_is_up(tmp_path)
    assert not server_is_up(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"at": "x", "nodes": {}}',
                                  json.dumps({"at": "2026-01-01", "nodes": []})])  # fmt: skip
def test_a_damaged_file_says_nothing(tmp_path: Path, text: str):
    """Nobody is believed to be connected."""
    (tmp_path / SEEN).write_text(text)
    assert read_seen(tmp_path) == Seen()
