"""The guard as a service: it gives the same answers as in process, to listed users only."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client.app import connect
from client.guard import Guard
from client.guard_rpc import guard_pb2 as pb
from client.guard_rpc import server
from client.guard_rpc.channel import OPTIONS, TOO_LARGE, GuardChannel, reason
from client.guard_rpc.messages import (
    METHOD,
    SERVICE,
    answer_from_proto,
    answer_to_proto,
    request_from_proto,
    request_to_proto,
)
from client.guard_rpc.server import MAX_WAITING, GuardService, ServiceError
from client.ledger.chain import FILE, LedgerError
from client.node.permissions import ExposedError
from client.privacy.noise import SecureNoise
from client.site import Site
from medformer.common.health import ask
from server.protocol import (
    INTERNAL_ERROR,
    MAX_MESSAGE,
    AdmitAnswer,
    Answer,
    EvaluateAnswer,
    Hello,
    HelloAnswer,
    ProtocolError,
    Refusal,
    Request,
    Schedule,
    TrainAnswer,
    source_hash,
)
from tests.conftest import OPEN, admit, ledger_rows, train
from tests.helpers.patience import PATIENCE
from tests.test_architecture import run_python

ROOT = Path(__file__).parents[3]
NOBODY = 65_534

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")


@pytest.fixture
def guard(site: Site, tmp_path: Path) -> Guard:
    """Return a guard as in a deployment, with secure noise and without exact values."""
    return Guard(site, tmp_path / "state", lambda *_: SecureNoise(), policy=OPEN)


def test_every_field_of_the_protocol_survives_the_wire(schedule: Schedule):
    """Requests and answers are unchanged, tensors bit by bit; a loss of 0 differs from no loss."""
    rng = np.random.default_rng(0)
    tensors = {f"t{n}": np.asarray(rng.random([2] * n), dtype=np.float32) for n in range(5)}
    requests = [
        Hello("run-1", "hash"),
        admit(schedule),
        replace(train(schedule, 2, 1, acknowledged=1), tensors=tensors, ledger_hash="h"),
    ]
    for request in requests:
        again = request_from_proto(
            pb.Request.FromString(request_to_proto(request).SerializeToString())
        )
        _same(request, again)
    answers = [
        HelloAnswer("north", "{}", "hash"),
        AdmitAnswer("north", "{}", "h"),
        TrainAnswer("north", 1, 0, tensors, None, "h"),
        TrainAnswer("north", 1, 0, tensors, 0.0, "h"),
        EvaluateAnswer("north", "[]"),
        Refusal("policy", "no", "north"),
    ]
    for answer in answers:
        _same(answer, answer_from_proto(
            pb.Answer.FromString(answer_to_proto(answer).SerializeToString())))  # fmt: skip


def _same(one: object, other: object) -> None:
    assert type(one) is type(other)
    for item in fields(one):  # type: ignore[arg-type]
        a, b = getattr(one, item.name), getattr(other, item.name)
        if item.name == "tensors":
            assert list(a) == list(b)
            assert all(np.array_equal(a[k], b[k]) and a[k].shape == b[k].shape for k in a)
        else:
            assert a == b, item.name


def test_a_message_that_is_not_of_the_protocol_is_refused():
    """An empty request, tensors with the wrong number of bytes and repeated names are refused."""
    with pytest.raises(ProtocolError, match="asks for nothing"):
        request_from_proto(pb.Request(run_id="x"))
    with pytest.raises(ProtocolError, match="is empty"):
        answer_from_proto(pb.Answer())
    for tensors in (
        [pb.Tensor(name="a", shape=[2**31, 2**31], values=b"1234")],
        [pb.Tensor(name="a", shape=[1], values=b"123")],
        [pb.Tensor(name="a", shape=[1], values=b"1234")] * 2,
        [pb.Tensor(name=str(i), shape=[0]) for i in range(5_000)],
    ):
        with pytest.raises(ProtocolError):
            request_from_proto(pb.Request(train=pb.Train(tensors=tensors)))


def test_a_run_through_the_socket(guard: Guard, schedule: Schedule, tmp_path: Path):
    """Hello, admission, a round and its repetition are answered, and so is the health service."""
    path = tmp_path / "relay.sock"
    with GuardService(guard, path), GuardChannel(path, deadline=PATIENCE) as channel:
        assert stat.S_IMODE(guard.folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        hello = channel.handle(Hello("run-1", source_hash()))
        assert isinstance(hello, HelloAnswer)
        assert hello.site == "north"
        assert isinstance(channel.handle(admit(schedule)), AdmitAnswer)
        first = channel.handle(train(schedule))
        assert isinstance(first, TrainAnswer), first
        assert first.exact_loss is None
        again = channel.handle(train(schedule))
        assert isinstance(again, TrainAnswer)
        assert all(np.array_equal(first.tensors[k], again.tensors[k]) for k in first.tensors)
        late = channel.handle(train(schedule, 9))
        assert isinstance(late, Refusal)
        assert late.code == "bad-request"
        with grpc.insecure_channel(f"unix:{path}", options=OPTIONS) as plain:
            checked = health_pb2_grpc.HealthStub(plain).Check(
                health_pb2.HealthCheckRequest(service=SERVICE), timeout=PATIENCE
            )
            assert checked.status == health_pb2.HealthCheckResponse.SERVING
            raw = plain.unary_unary(METHOD, response_deserializer=pb.Answer.FromString)
            assert raw(b"", timeout=PATIENCE).refusal.code == "bad-request"
            refused = ledger_rows(guard.folder)[-1]
            assert (refused["kind"], refused["request"], refused["run_id"]) == (
                "refusal", "unknown", "",
            )  # fmt: skip
            with pytest.raises(grpc.RpcError) as large:
                raw(bytes(MAX_MESSAGE + 2**20), timeout=PATIENCE)
            assert large.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            with pytest.raises(grpc.RpcError):
                raw(b"\xff\xff\xff not protobuf", timeout=PATIENCE)
        assert isinstance(channel.handle(Hello("run-1", source_hash())), HelloAnswer)
    assert not path.exists()


def test_a_busy_guard_is_healthy_and_says_that_it_is_busy(guard: Guard, tmp_path: Path):
    """Eight of twelve requests wait, and the others are told that the guard is busy, not that a
    message is too large. The health service answers at once."""
    go_on = threading.Event()
    seen = threading.Semaphore(0)

    class Slow(Guard):
        def handle(self, request: object) -> HelloAnswer:
            seen.release()
            assert go_on.wait(PATIENCE)
            return HelloAnswer("north", "{}", "hash")

    path = tmp_path / "relay.sock"
    with (
        GuardService(Slow(**vars(guard)), path),
        GuardChannel(path, deadline=PATIENCE) as channel,
        ThreadPoolExecutor(12) as callers,
    ):
        asked = [callers.submit(channel.handle, Hello("run-1", "hash")) for _ in range(12)]
        assert all(seen.acquire(timeout=PATIENCE) for _ in range(MAX_WAITING))
        for _ in zip(range(12 - MAX_WAITING), as_completed(asked, timeout=PATIENCE), strict=False):
            pass  # these are refused at once
        assert ask(f"unix:{path}", timeout=PATIENCE) == "serving"
        go_on.set()
        answers = [one.result() for one in asked]
    refused = [a for a in answers if isinstance(a, Refusal)]
    assert {a.reason for a in refused} == {server.BUSY}
    assert len(refused) == 12 - MAX_WAITING


def test_a_relay_waits_as_long_as_a_round_may_take(tmp_path: Path):
    """`round_minutes: 600` gives the guard ten hours to answer."""
    for told, wanted in (({}, 3_600), ({"round-deadline": 36_000.0}, 36_000),
                         ({"round-deadline": 60.0}, 3_600)):  # fmt: skip
        context = SimpleNamespace(node_config={"guard-socket": str(tmp_path / "s")},
                                  run_config=told)  # fmt: skip
        assert connect(context)._deadline == wanted  # type: ignore[arg-type]


def test_each_status_of_grpc_has_its_true_sentence(guard: Guard, tmp_path: Path):
    """RESOURCE_EXHAUSTED has two meanings: a message too large, and a server that is busy."""
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    path = tmp_path / "relay.sock"
    with GuardService(guard, path), grpc.insecure_channel(f"unix:{path}", options=OPTIONS) as raw:
        with pytest.raises(grpc.RpcError) as large:
            raw.unary_unary(METHOD)(bytes(MAX_MESSAGE + 2**20), timeout=PATIENCE)
        assert reason(large.value.code(), large.value.details()) == TOO_LARGE
    assert "busy" in reason(exhausted, "Concurrent RPC limit exceeded!")
    assert "busy" in reason(exhausted)
    for code in set(grpc.StatusCode) - {grpc.StatusCode.OK}:
        assert ("larger" in reason(code)) is False
        assert reason(code).startswith("The site's guard")


def test_a_copy_of_a_state_folder_is_not_served(guard: Guard, schedule: Schedule, tmp_path: Path):
    """Neither at the start nor where it comes in the place of the ledger that is served."""
    path = tmp_path / "relay.sock"
    with GuardService(guard, path), GuardChannel(path, deadline=PATIENCE) as channel:
        channel.handle(admit(schedule))
        assert isinstance(channel.handle(admit(schedule)), AdmitAnswer)
        assert [row["kind"] for row in ledger_rows(guard.folder)].count("home") == 1
        shutil.copytree(guard.folder, tmp_path / "copy", ignore=lambda *_: ["guard.sock"])
        copy = replace(guard, folder=tmp_path / "copy")
        with pytest.raises(LedgerError, match="this is a copy"):
            GuardService(copy, tmp_path / "other.sock")
        os.replace(copy.folder / FILE, guard.folder / FILE)
        answer = channel.handle(train(schedule))
        assert isinstance(answer, Refusal)
        assert (answer.code, answer.reason) == ("internal-error", INTERNAL_ERROR)
    assert "attempt" not in {row["kind"] for row in ledger_rows(guard.folder)}


def test_without_a_guard_the_relay_gets_a_fixed_refusal(guard: Guard, tmp_path: Path):
    """Before the start and after the stop, the relay gets a text without any path of the site."""
    path = tmp_path / "relay.sock"
    for _ in range(2):
        with GuardChannel(path, deadline=5) as channel:
            answer = channel.handle(Hello("run-1", source_hash()))
        assert isinstance(answer, Refusal)
        assert answer.code == "internal-error"
        assert "not running" in answer.reason
        assert str(tmp_path) not in answer.reason
        GuardService(guard, path).close()


def test_a_socket_that_a_kill_left_behind_is_replaced_and_a_file_is_not(
    guard: Guard, tmp_path: Path
):
    """The guard starts again after kill -9, and never deletes a file that is not a socket."""
    path = tmp_path / "relay.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with GuardService(guard, path), GuardChannel(path, deadline=PATIENCE) as channel:
        assert isinstance(channel.handle(Hello("run-1", source_hash())), HelloAnswer)
    path.write_text("mine")
    with pytest.raises(ServiceError):
        GuardService(guard, path)
    assert path.read_text() == "mine"


def as_nobody(code: str) -> "subprocess.CompletedProcess[str]":
    """Run Python as another user, with the packages of this user."""
    become = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    # imports first: nobody may not be able to read this checkout
    first = "import sys, socket\nfrom grpc import _channel\n"
    first += (
        "from client.guard_rpc.channel import GuardChannel\nfrom server.protocol import Hello\n"
    )
    return subprocess.run(
        [sys.executable, "-c", first + become + textwrap.dedent(code)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip


@needs_root
def test_another_user_is_turned_away_before_a_byte_is_read(guard: Guard, tmp_path: Path):
    """The kernel names the caller, and the same call is answered once the user is on the list. The
    guard's own socket, its ledger and its records stay out of that user's reach."""
    seen: list[object] = []

    class Watched(Guard):
        def handle(self, request: Request) -> Answer:
            seen.append(request)
            return super().handle(request)

    watched = Watched(**vars(guard))
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder != Path("/tmp"):
            folder.chmod(0o755)
    path = tmp_path / "relay.sock"
    ask = f"""
        with GuardChannel(__import__("pathlib").Path({str(path)!r}), deadline=90) as channel:
            print(type(channel.handle(Hello("run-1", "x"))).__name__)
    """
    with GuardService(watched, path):
        path.chmod(0o666)  # even if somebody opens the file mode
        done = as_nobody(ask)
        assert done.stdout.strip() == "Refusal", done
        assert seen == []
        for target in ("guard.sock", "ledger.sqlite"):
            done = as_nobody(f"open({str(guard.folder / target)!r}, 'rb')")
            assert "PermissionError" in done.stderr
    with GuardService(watched, path, users=[NOBODY]):
        path.chmod(0o666)
        done = as_nobody(ask)
        assert done.stdout.strip() == "HelloAnswer", done


def test_a_state_folder_that_others_can_reach_is_not_served(guard: Guard, tmp_path: Path):
    """The guard refuses to start: another user may have read or changed something in the folder."""
    guard.folder.mkdir(mode=0o755)
    with pytest.raises(ExposedError, match=r"state: others can enter it \(chmod 700\)"):
        GuardService(guard, tmp_path / "relay.sock")
    guard.folder.chmod(0o700)
    with GuardService(guard, tmp_path / "relay.sock"):
        guard.handle(Hello("run-1", source_hash()))


def test_the_guard_refuses_to_run_code_that_is_not_installed(site: Site, tmp_path: Path):
    """Code in a checkout is refused before any file of the site is read."""
    command = [sys.executable, "-m", "client.guard_rpc", "--site", str(tmp_path / "site.yaml"),
               "--policy", str(tmp_path / "policy.yaml"),
               "--state", str(tmp_path / "state"), "--socket", str(tmp_path / "s")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "the guard runs installed code only" in done.stderr
    assert not (tmp_path / "state").exists()


def test_the_relays_end_loads_nothing_that_learns():
    """The relay imports client.guard_rpc.channel, which loads neither torch nor Opacus."""
    code = "import sys, client.guard_rpc.channel; print({'torch', 'opacus'} & set(sys.modules))"
    assert run_python(code) == "set()"
