"""What the guard looks at before it serves."""

import argparse
import sys
import threading
from pathlib import Path

import pytest

from client.data.records import DataError
from client.guard_rpc.__main__ import _serve
from client.guard_rpc.server import ServiceError
from client.site import Site
from tests.conftest import OPEN, write_site


def test_a_list_of_the_withdrawn_that_is_missing_or_anybodys_stops_the_start(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """At the start it is said aloud; in a round it could only leave out everybody."""
    monkeypatch.setattr(sys, "prefix", str(Path(__file__).parents[2]))
    monkeypatch.setattr("client.permissions.only_ours", lambda path: seen.append(path))
    seen: list[Path] = []
    file = tmp_path / "withdrawn.txt"
    own = write_site(site.model_copy(update={"withdrawn": file}), tmp_path)
    (tmp_path / "policy.yaml").write_text(OPEN.model_dump_json())
    arguments = argparse.Namespace(
        site=own, policy=tmp_path / "policy.yaml", state=tmp_path / "state",
        socket=tmp_path / "s", user=[],
    )  # fmt: skip
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(DataError, match="those who withdrew cannot be read"):
        _serve(arguments, stopped)
    file.write_text("p1")
    _serve(arguments, stopped)
    assert file in seen

    def refuse(path: Path) -> None:
        if path == file:
            raise ServiceError("others can write there")

    monkeypatch.setattr("client.permissions.only_ours", refuse)
    with pytest.raises(ServiceError, match="others can write there"):
        _serve(arguments, stopped)
