"""Signed bundles: Flower's own verification accepts ours, and nothing that was changed."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from flwr.supercore.fab import Fab
from flwr.superlink.servicer.control.control_handlers import _format_verification
from flwr.supernode.start_client_internal import _verify_fab

from client.node.joining import init as site_init
from server.consortium.authority import AuthorityError
from server.consortium.bundle import APP_ID
from server.consortium.hub import hub, new_signer, sign, signer_of
from server.consortium.serving import Serving
from server.protocol import key_id


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    new_signer(tmp_path / "bundle.key")
    key = tmp_path / "bundle.key"
    sign(tmp_path / "hub", b"a bundle", key, key_id(signer_of(key)))
    return tmp_path


@contextmanager
def served(folder: Path) -> Iterator[httpx.Client]:
    serving = Serving(hub(folder), "127.0.0.1")
    with httpx.Client(base_url=f"http://127.0.0.1:{serving.port}", trust_env=False) as client:
        yield client
    serving.close()


def fetched(folder: Path) -> Fab:
    """Ask for an app as a SuperLink does."""
    asked = {"app_id": APP_ID, "app_version": "0.1.0", "flwr_version": "1.41.0"}
    with served(folder / "hub") as client:
        found = client.post("/hub/fetch-fab", json=asked).json()
        content = client.get(found["fab_url"]).content
    verifications = _format_verification(found["verifications"])
    return Fab(hashlib.sha256(content).hexdigest(), content, verifications)


def test_a_node_that_trusts_the_signer_takes_the_bundle(signed: Path):
    """Flower's own check accepts the signature; the key's mode is 0600."""
    public = signer_of(signed / "bundle.key")
    assert _verify_fab(fetched(signed), {key_id(public): public})
    assert (signed / "bundle.key").stat().st_mode & 0o077 == 0


def test_a_changed_bundle_or_another_signer_is_not_taken(signed: Path):
    """One changed byte, another key under the same name and an unknown key are all refused."""
    public = signer_of(signed / "bundle.key")
    fab = fetched(signed)
    assert not _verify_fab(Fab("", fab.content + b"!", fab.verifications), {key_id(public): public})
    new_signer(signed / "other.key")
    other = signer_of(signed / "other.key")
    assert not _verify_fab(fab, {key_id(public): other})
    assert not _verify_fab(fab, {key_id(other): other})


def test_the_hub_has_one_app_and_says_when_there_is_none(signed: Path):
    """It offers nothing else."""
    with served(signed / "hub") as client:
        assert client.post("/hub/fetch-fab", json={"app_id": "@x/y"}).status_code == 404
        assert client.post("/hub/fetch-fab", content=b"{").status_code == 404
        assert client.get("/app.json").status_code == 404
    with served(signed / "empty") as client:
        assert client.post("/hub/fetch-fab", json={"app_id": APP_ID}).status_code == 404
        assert client.get("/app.fab").status_code == 404


def test_a_key_that_cannot_sign_is_named(signed: Path):
    """The key is missing, or is a node's key."""
    with pytest.raises(AuthorityError, match=r"missing\.key: is not a key that can sign"):
        signer_of(signed / "missing.key")
    site_init(signed / "north", "north")
    with pytest.raises(AuthorityError, match=r"node\.key: is not an Ed25519 key"):
        signer_of(signed / "north" / "node.key")
    with pytest.raises(AuthorityError, match=r"bundle\.key: cannot be written"):
        new_signer(signed / "bundle.key")
