"""The guard's checks before it serves."""

import argparse
import sys
import threading
from pathlib import Path

import pytest

from client.data.errors import DataError
from client.guard import Guard
from client.guard_rpc import server
from client.guard_rpc.__main__ import _serve
from client.node.permissions import ExposedError
from client.privacy.noise import SecureNoise
from client.site import Site
from tests.conftest import OPEN, write_site


def test_a_list_of_the_withdrawn_that_is_missing_or_anybodys_stops_the_start(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The guard refuses to start: in a round it could only leave out everybody."""
    monkeypatch.setattr(sys, "prefix", str(Path(__file__).parents[3]))
    file = tmp_path / "withdrawn.txt"
    own = write_site(site.model_copy(update={"withdrawn": file}), tmp_path)
    (tmp_path / "policy.yaml").write_text(OPEN.model_dump_json())
    arguments = argparse.Namespace(
        site=own, policy=tmp_path / "policy.yaml", state=tmp_path / "state",
        socket=tmp_path / "s", user=[],
    )  # fmt: skip
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(DataError, match="withdrawal list cannot be read"):
        _serve(arguments, stopped)
    file.write_text("p1")
    _serve(arguments, stopped)
    file.chmod(0o666)
    with pytest.raises(ExposedError, match=r"withdrawn\.txt: others can write there"):
        _serve(arguments, stopped)


def test_each_round_of_a_deployment_has_a_key_of_its_own(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A deployed guard draws a new key for each round, attempt and count of classes."""
    served: list[Guard] = []

    class Service:
        def __init__(self, guard: Guard, *_: object) -> None:
            served.append(guard)

        __enter__ = __exit__ = lambda *_: None

    monkeypatch.setattr(sys, "prefix", str(Path(__file__).parents[3]))
    monkeypatch.setattr(server, "GuardService", Service)
    (tmp_path / "policy.yaml").write_text(OPEN.model_dump_json())
    stopped = threading.Event()
    stopped.set()
    arguments = argparse.Namespace(
        site=write_site(site, tmp_path), policy=tmp_path / "policy.yaml",
        state=tmp_path / "state", socket=tmp_path / "s", user=[],
    )  # fmt: skip
    _serve(arguments, stopped)
    (guard,) = served
    sources = [guard.noise_for(None, round_, 0) for round_ in (1, 1, 2)]  # type: ignore[arg-type]
    assert all(isinstance(source, SecureNoise) for source in sources)
    assert len(set(map(id, sources))) == 3
    assert len({source.words(4).tobytes() for source in sources}) == 3
