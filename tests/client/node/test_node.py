"""A hospital's node is checked before it starts, kept running, and stopped as a whole."""

import json
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from client.node import supervise as node
from client.node.folder import Node, NodeError, running
from client.node.joining import init
from client.node.permissions import ExposedError
from medformer.common import processes
from medformer.common.processes import Supervisor
from medformer.errors import ConfigError
from server.consortium.hub import new_signer, sign_kit, signer_of
from server.protocol import fingerprint, key_id
from simulations.cli import main
from tests.helpers.patience import PATIENCE, waited

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a site that has its kit and is ready."""
    folder = tmp_path / "north"
    init(folder, "north")
    joined(folder)
    return folder


def opened(file: Path) -> Path:
    file.write_text("")
    file.chmod(0o644)
    return file


def joined(folder: Path, signer: str = "bundle.key", **facts: object) -> None:
    """Write a kit as the consortium makes it, and its signer's fingerprint into policy.yaml."""
    key = folder.parent / signer
    if not key.exists():
        new_signer(key)
    (folder / "kit").mkdir(exist_ok=True)
    known = {"consortium": "lungs", "site": "north", "hosts": ["localhost"], "port": 9092, **facts}
    text, authority = json.dumps(known), b"certificate"
    (folder / "kit" / "kit.json").write_text(text)
    (folder / "kit" / "ca.crt").write_bytes(authority)
    (folder / "kit" / "kit.sig").write_text(sign_kit(text.encode(), authority, key))
    public = signer_of(key)
    (folder / "kit" / "trusted.yaml").write_text(f'{key_id(public)}: "{public}"')
    policy = (folder / "policy.yaml").read_text().splitlines()
    shown = fingerprint(public, "signer")
    policy = [line for line in policy if "signer" not in line] + [f'signer: "{shown}"']
    (folder / "policy.yaml").write_text("\n".join(policy))


def test_the_command_lines_hold_no_secret_and_point_at_the_kit(folder: Path):
    """Every user of a machine can read the arguments of a process."""
    Node(folder).check()
    commands = Node(folder).commands(9194)
    assert set(commands) == {"guard", "supernode", "executor"}
    words = [word for command in commands.values() for word in command]
    key = (folder / "node.key").read_text()
    assert not [word for word in words if word in key and len(word) > 20]
    assert commands["guard"][1] == "-I"
    assert "localhost:9092" in commands["supernode"]
    assert "--insecure" not in commands["supernode"]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda f: (f / "kit" / "kit.json").unlink(), "is not a start-up kit"),
        (lambda f: (f / "kit" / "kit.json").write_text("[]"), "is not a start-up kit"),
        (lambda f: (f / "kit" / "kit.json").write_text(
            (f / "kit" / "kit.json").read_text().replace("north", "south")),
         "the kit is for the site 'south', but site.yaml is of 'north'"),
        (lambda f: (f / "kit" / "ca.crt").write_text("other"), "was changed after the consortium"),
        (lambda f: (f / "kit" / "kit.sig").unlink(), "was changed after the consortium"),
        (lambda f: (f / "kit" / "kit.json").write_text(
            (f / "kit" / "kit.json").read_text().replace("9092", "9093")), "was changed after"),
        (lambda f: joined(f, port=9093) or (f / "kit" / "kit.sig").write_text("AAAA"),
         "was changed after"),
        (lambda f: (f / "kit" / "trusted.yaml").write_text("a: b\nc: d"), "one signing key"),
        (lambda f: (f / "policy.yaml").write_text("objectives: [supervised]\n"
         "max_epsilon_per_run: 3\n"), "names no signer"),
        (lambda f: (f / "site.yaml").write_text("nam: x"), "Did you mean `name`"),
        (lambda f: (f / "policy.yaml").unlink(), "policy.yaml: cannot be read"),
        (lambda f: (f / "node.key").chmod(0o644), "others can read it"),
        (lambda f: (f / "node.key").unlink(), "is missing"),
        (lambda f: f.chmod(0o755), "others can enter it"),
        (lambda f: (f / "state").mkdir(mode=0o750), "state: others can enter it"),
        (lambda f: (f / "state").mkdir(mode=0o700) or opened(f / "state" / "ledger.sqlite"),
         "ledger.sqlite: others can read it"),
        (lambda f: (f / "site.yaml").write_text((f / "site.yaml").read_text()
         .replace("anchor/newest.json", str(opened(f.parent / "anchor")))),
         "anchor: others can read it"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_before_anything_starts(folder: Path, harm, reason: str):
    """The error says what to do."""
    harm(folder)
    with pytest.raises((ConfigError, ExposedError), match=reason):
        node.up(folder, 9194, allow_root=True)
    assert not (folder / "run").exists()


def test_a_kit_of_somebody_else_is_refused(folder: Path):
    """A complete kit with another authority and signer is not accepted in place of the
    consortium's."""
    policy = (folder / "policy.yaml").read_text()
    joined(folder, "other.key")
    (folder / "policy.yaml").write_text(policy)
    with pytest.raises(ConfigError, match="this kit is somebody else's"):
        Node(folder).check()


def test_a_process_that_ends_is_started_again_and_all_end_together(
    tmp_path: Path,
):
    """kill -9 of one process leaves the other alone; children of a process end with it."""
    child = "import subprocess; subprocess.run(['sleep', '99'])"
    commands = {"a": [sys.executable, "-c", "import time; time.sleep(99)"],
                "b": [sys.executable, "-c", child]}  # fmt: skip
    supervisor = Supervisor(commands, tmp_path / "logs", backoff=(0.05,))
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        waited(lambda: len(supervisor.pids) == 2)
        before = supervisor.pids
        os.kill(before["a"], signal.SIGKILL)
        waited(lambda: supervisor.pids.get("a", before["a"]) != before["a"])
        assert supervisor.pids["b"] == before["b"]
        after = supervisor.pids
    finally:
        supervisor.stop()
        thread.join(timeout=PATIENCE)
    assert not thread.is_alive()
    left = [p for p in psutil.process_iter(["status"]) if _group(p.pid) in after.values()]
    assert [p for p in left if p.info["status"] != psutil.STATUS_ZOMBIE] == []


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def test_a_process_that_cannot_start_waits_longer_each_time(
    tmp_path: Path,
):
    """Its output is in its log."""
    starts: list[float] = []
    supervisor = Supervisor({"bad": [sys.executable, "-c", "print('why'); raise SystemExit(3)"]},
                            tmp_path / "logs", backoff=(0.05, 0.3, 30.0))  # fmt: skip
    thread = threading.Thread(target=supervisor.run, args=(lambda _: starts.append(time.time()),))
    thread.start()
    try:
        waited(lambda: len(starts) == 3)
        time.sleep(1.0)
        assert len(starts) == 3
    finally:
        supervisor.stop()
        thread.join(timeout=PATIENCE)
    lines = (tmp_path / "logs" / "bad.log").read_text().splitlines()
    assert [line.partition(" INFO bad: ")[2] for line in lines] == ["why"] * 3


def test_a_node_that_is_not_up_is_said_to_be_down(folder: Path, capsys: pytest.CaptureFixture[str]):
    """Facts that a killed node has left behind do not count."""
    assert main(["site", "status", str(folder)]) == 1
    assert f"not up: fedmedformer site up {folder}" in capsys.readouterr().err
    assert main(["site", "down", str(folder)]) == 1
    (folder / "run").mkdir()
    (folder / "run" / "node.json").write_text('{"pid": 1, "health_port": 1}')
    assert running(folder) is None
    with pytest.raises(NodeError, match="not up"):
        node.down(folder)


def test_a_port_that_is_taken_is_said_before_anything_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """gRPC would share the port, and two nodes would answer for each other."""
    monkeypatch.setattr(sys, "prefix", str(ROOT))  # as if this checkout were installed there
    started: list[object] = []
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(NodeError, match=f"port {port} .* is taken.*--health-port"):
        node.up(folder, port, allow_root=True, patience=0, supervisor=started.append)
    server.stop(None).wait()
    assert not started


def test_a_port_is_waited_for_while_who_has_it_ends():
    """Child processes end a moment after a parent that was killed."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    assert processes.is_taken(port, 0.3)
    threading.Timer(0.5, server.close).start()
    assert not processes.is_taken(port, 20)
