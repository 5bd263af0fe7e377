"""`site status`: connected or not, what waits, which run, what was spent; in words and as JSON."""

import json
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2

from client.node import overview, supernode
from client.node.supernode import Health, Heard
from medformer.common.health import SUPERLINK, ask_more
from simulations.cli import main
from tests.helpers.ledgers import lived, one_plan


@pytest.fixture(scope="module")
def north(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a site's folder whose ledger has a question, a run in progress and a refusal."""
    return lived(tmp_path_factory.mktemp("s") / "north", one_plan())


@pytest.fixture
def up(north: Path) -> Iterator[int]:
    """Serve health as guard and SuperNode do; return the SuperNode's port."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    from grpc_health.v1 import health_pb2_grpc

    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    (north / "run" / "guard").mkdir(parents=True, exist_ok=True)
    server.add_insecure_port(f"unix:{north / 'run' / 'guard' / 'guard.sock'}")
    server.start()
    yield port
    server.stop(None).wait()


def status(folder: Path, *more: str, code: int, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["site", "status", str(folder), *more]) == code
    return capsys.readouterr().out


def test_a_connected_site_says_what_waits_what_runs_and_what_is_left(
    north: Path, up: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The command that answers a question stands below it."""
    monkeypatch.setattr(supernode, "HEARD", Heard())
    supernode.HEARD.now()
    text = status(north, "--health-port", str(up), code=0, capsys=capsys)
    lines = text.splitlines()
    assert lines[0] == "consortium: lungs (server.example:9092)"
    assert lines[1:3] == ["guard: serving", "supernode: serving"]
    assert lines[3].startswith("server: connected since 20")
    assert "waits for an answer: 2" in lines
    (late,) = [n for n, line in enumerate(lines) if line.startswith("  run late, asked by lungs")]
    assert lines[late].endswith("UTC; it would cost epsilon 2.999, delta 1e-06")
    assert lines[late + 1] == f"  fedmedformer site approve {north} late"
    assert "its cost is shown by the command" in lines[late + 2]
    assert "run in progress: done, round 2 of 3 answered, last asked 2026-03-01 12:00:1" in text
    assert "budget of all runs: epsilon: 2.999 of 9 spent, 6.001 left" in lines
    assert "last refusal: 2026-03-01 12:00:" in lines[-1]
    assert lines[-1].endswith(", run evil: policy: <b>no</b>\\x1b[2J run evil: approved")


def test_the_same_as_json(
    north: Path, up: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """For a hospital's own monitoring; the exit code says whether all of them serve."""
    monkeypatch.setattr(supernode, "HEARD", Heard())
    found = json.loads(status(north, "--health-port", str(up), "--json", code=1, capsys=capsys))
    assert found["connected"] is False
    assert found["why"] == supernode.NEVER
    assert [one["run_id"] for one in found["waiting"]] == ["late", "old"]
    assert found["waiting"][0]["command"] == f"fedmedformer site approve {north} late"
    assert found["run"]["newest"] == {"round": 2, "time": found["run"]["newest"]["time"],
                                      "answered": True}  # fmt: skip
    assert found["budget"]["epsilon"] == found["run"]["epsilon_charged"] <= 3
    assert found["last_refusal"]["count"] == 2


def test_a_node_that_is_down_hides_nothing_of_the_ledger(
    north: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The exit code is 1, and the question is still there. A new site has no question."""
    text = status(north, code=1, capsys=capsys)
    assert "server: not connected: this node is not up" in text
    assert "run late, asked by lungs" in text
    (tmp_path / "site.yaml").write_text("")
    assert "no run has asked" in status(tmp_path, code=1, capsys=capsys)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "ledger.sqlite").write_text("x" * 100)
    assert "ledger: cannot be read: " in status(tmp_path, code=1, capsys=capsys)


def test_the_nodes_user_sees_the_processes_and_no_ledger(
    north: Path, up: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The state folder is closed to it, which is no failure of the node."""
    monkeypatch.setattr(supernode, "HEARD", Heard())
    supernode.HEARD.now()

    def closed(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(overview, "_life", closed)
    text = status(north, "--health-port", str(up), code=0, capsys=capsys)
    assert text.endswith("ledger: closed to this user: ask as root or as the guard's user\n")


class Context:
    """The part of gRPC's context that the health page uses."""

    def set_trailing_metadata(self, facts: Any) -> None:
        self.facts = dict(facts)


def facts(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(supernode, "HEARD", heard)
    Health().Check(health_pb2.HealthCheckRequest(service=SUPERLINK), context := Context())
    return {str(key): str(value) for key, value in context.facts.items()}


def test_since_when_and_why_without_a_word_of_the_other_side(monkeypatch: pytest.MonkeyPatch):
    """A proxy's page is hostile: its code is told, its text is not."""
    now = 1_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    heard = Heard()
    now = 1_010.0
    heard.now()
    now = 1_020.0
    heard.now()
    assert facts(heard, monkeypatch) == {"since": "1970-01-01T00:16:50+00:00"}
    page = httpx.Response(503, text="call 0900 <script>", request=httpx.Request("GET", "http://x"))
    now = 1_030.0
    heard.silent(supernode._why(httpx.HTTPStatusError("call 0900", request=page.request,
                                                       response=page)))  # fmt: skip
    now = 1_040.0
    heard.silent()  # Flower keeps the reason to itself: the one that is known stays
    assert facts(heard, monkeypatch) == {
        "since": "1970-01-01T00:17:10+00:00", "why": "it answered with HTTP code 503",
    }  # fmt: skip
    now = 1_050.0
    heard.answered()
    assert facts(heard, monkeypatch) == {"since": "1970-01-01T00:17:30+00:00"}
    refused = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] of evil.example")
    assert supernode._why(refused) == "it cannot be asked (certificate refused)"


def test_a_heartbeat_that_is_overdue_is_told_from_when_it_was_due(monkeypatch: pytest.MonkeyPatch):
    """No request notes it, because none was made."""
    heard = Heard(seconds=30)
    heard.now()
    assert heard.lately
    real = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: real + 100)
    assert not heard.lately
    assert facts(heard, monkeypatch)["why"] == "no heartbeat was taken in time"


def test_what_another_program_says_at_that_port_is_bounded(
    up: int, monkeypatch: pytest.MonkeyPatch
):
    """Only two keys are read, each as one short line."""
    long = {"since": "2" * 900, "why": "w " * 450, "other": "x"}
    monkeypatch.setattr(Heard, "facts", lambda _: long)
    found = ask_more(f"127.0.0.1:{up}", 5, SUPERLINK)[1]
    assert set(found) == {"since", "why"}
    assert max(map(len, found.values())) <= 200
