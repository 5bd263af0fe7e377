"""Guard and node as two users: a hostile relay gets nothing, and an open layout does not start."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import pytest

from client.node import supervise as node
from client.node import users
from client.node.folder import Node
from client.node.joining import init
from client.node.launch import LaunchError, environment, new_secret, options
from client.node.users import User, Users, check_layout, separate, users_of
from client.site import load_site
from medformer.common.processes import KEEP_MEMORY, Supervisor
from medformer.errors import ConfigError
from server.protocol import Phase, Schedule
from simulations.cli import main
from tests.client.node.test_node import joined
from tests.conftest import admit

ROOT = Path(__file__).parents[3]
TWO = Users(User(60_001, 60_001), User(60_002, 60_002))
STRANGER = 60_003
SITE = """
name: north
domain: {name: chest-a, modality: chest-xray, anatomy: chest, channels: 1}
tasks: [{name: finding, kind: binary-class, classes: 2}]
data: {source: folder, path: records}
privacy: {epsilon: 3, delta: 1.0e-5, epsilon_budget: 9, n_public: 100}
withdrawn: withdrawn.txt
"""

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Make a folder that other users can pass through; pytest closes its own at every start."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """Make a site of one user, with its kit and a record."""
    folder = tmp_path / "north"
    init(folder, "north")
    joined(folder)
    (folder / "site.yaml").write_text(SITE)
    (folder / "withdrawn.txt").write_text("a patient")
    (folder / "records" / "train" / "ill").mkdir(parents=True)
    (folder / "records" / "train" / "ill" / "patient.png").write_bytes(b"a patient")
    return folder


@pytest.fixture
def folder(one: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the same site as `site install` leaves it, with a ledger."""
    (one / "state").mkdir(mode=0o700)
    (one / "state" / "ledger.sqlite").write_bytes(b"ledger")
    (one / "state" / "guard.sock").write_bytes(b"")
    (one / "run" / "guard").mkdir(parents=True)
    (one / "run" / "guard" / "guard.sock").write_bytes(b"")
    separate(one, TWO, load_site(one / "site.yaml"))
    monkeypatch.setattr(users, "_code", lambda: {"/bin/sh": "-x"})  # that of the tests is closed
    return one


def as_user(user: int, groups: list[int], code: str, first: str = "") -> dict[str, str]:
    """Run code as another user, and return the JSON it prints; imports come before the change of
    user."""
    first += "import os, json, socket\nfrom grpc import _channel\nfrom pathlib import Path\n"
    become = f"os.setgroups({groups})\nos.setgid({user})\nos.setuid({user})\n"
    done = subprocess.run(
        [PYTHON, "-c", first + become + textwrap.dedent(code)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


PYTHON = sys.executable

TRIES = """
folder = Path({folder!r})
tries = {{
    "record": lambda: (folder / "records/train/ill/patient.png").read_bytes(),
    "records": lambda: list((folder / "records").iterdir()),
    "withdrawn": lambda: (folder / "withdrawn.txt").read_text(),
    "ledger": lambda: (folder / "state/ledger.sqlite").read_bytes(),
    "ledger written": lambda: open(folder / "state/ledger.sqlite", "ab"),
    "state": lambda: list((folder / "state").iterdir()),
    "policy": lambda: (folder / "policy.yaml").read_text(),
    "policy written": lambda: (folder / "policy.yaml").write_text(""),
    "site": lambda: (folder / "site.yaml").read_text(),
    "logs": lambda: list((folder / "logs").iterdir()),
    "kit written": lambda: (folder / "kit/kit.json").write_text(""),
    "kit replaced": lambda: (folder / "kit").rename(folder / "flower/kit"),
    "socket replaced": lambda: (folder / "run/guard/guard.sock").unlink(),
    "socket beside": lambda: (folder / "run/guard/other").write_text(""),
    "users": lambda: (folder / "users.json").write_text(""),
    "folder": lambda: list(folder.iterdir()),
    "inner socket": lambda: socket.socket(socket.AF_UNIX).connect(str(folder / "state/guard.sock")),
}}
got = {{}}
for name, attempt in tries.items():
    try:
        attempt()
        got[name] = "got it"
    except OSError as error:
        got[name] = type(error).__name__
print(json.dumps(got))
"""
"""Tries of a bundle that has broken out of its relay."""


def hostile(folder: Path) -> list[str]:
    """Return what the node's user gets from each try."""
    got = as_user(TWO.node.uid, [], TRIES.format(folder=str(folder)))
    return [name for name, result in got.items() if result == "got it"]


@needs_root
def test_the_nodes_user_gets_nothing_and_the_guards_user_what_it_needs(folder: Path):
    """The kernel refuses each try; none fails because a file is missing."""
    site = load_site(folder / "site.yaml")
    check_layout(folder, TWO, site)
    assert users_of(folder) == TWO
    got = as_user(TWO.node.uid, [], TRIES.format(folder=str(folder)))
    assert set(got.values()) == {"PermissionError"}, got
    code = f"""
        from pathlib import Path
        folder = Path({str(folder)!r})
        (folder / "flower" / "x").write_text("")
        sizes = [len((folder / name).read_bytes()) for name in ("node.key", "kit/ca.crt")]
        print(json.dumps(sizes))
    """
    assert all(as_user(TWO.node.uid, [], code))
    code = f"""
        from pathlib import Path
        folder = Path({str(folder)!r})
        (folder / "state" / "x").write_text("")
        (folder / "run/guard/x").write_text("")
        names = ("site.yaml", "policy.yaml", "records/train/ill/patient.png", "state/ledger.sqlite")
        sizes = [len((folder / name).read_bytes()) for name in names]
        try:
            (folder / "node.key").read_bytes()
        except PermissionError:
            print(json.dumps(sizes))
    """
    assert all(as_user(TWO.guard.uid, [TWO.node.gid], code))


LOOSE = {
    "state": (lambda f: (f / "state").chmod(0o755), "state"),
    "ledger": (lambda f: [(f / "state").chmod(0o711), (f / "state/ledger.sqlite").chmod(0o644)],
               "ledger"),
    "policy": (lambda f: (f / "policy.yaml").chmod(0o644), "policy"),
    "policy of the node": (lambda f: os.chown(f / "policy.yaml", 0, TWO.node.gid), "policy"),
    "site": (lambda f: (f / "site.yaml").chmod(0o646), "site"),
    "records": (lambda f: (f / "records").chmod(0o755), "record"),
    "withdrawn": (lambda f: (f / "withdrawn.txt").chmod(0o644), "withdrawn"),
    "run": (lambda f: (f / "run/guard").chmod(0o2770), "socket beside"),
    "kit": (lambda f: [(f / "kit").chmod(0o770), (f / "kit/kit.json").chmod(0o660)],
            "kit written"),
    "folder": (lambda f: f.chmod(0o750), "folder"),
    "users": (lambda f: (f / "users.json").chmod(0o666), "users"),
}  # fmt: skip


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("name", LOOSE)
def test_a_layout_that_gives_the_node_something_does_not_start(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    """Each fault really opens something to the node's user, is named, and `site install` repairs
    it."""
    loosen, gained = LOOSE[name]
    loosen(folder)
    assert main(["site", "up", str(folder)]) == 1
    assert "repairs it" in capsys.readouterr().err
    assert main(["site", "node", str(folder), "--check"]) == 1
    kit = (folder / "kit" / "kit.json").read_bytes()
    assert gained in hostile(folder)
    (folder / "kit" / "kit.json").write_bytes(kit)
    separate(folder, TWO, load_site(folder / "site.yaml"))
    assert hostile(folder) == []
    assert main(["site", "node", str(folder), "--check"]) == 0


@needs_root
@pytest.mark.slow
def test_records_elsewhere_are_tried_as_either_user(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Records outside the folder are not ours to lay out. If the node can read them, or the guard
    cannot, nothing starts."""
    monkeypatch.chdir(folder.parent)
    folder = Path(folder.name)  # as people type it
    elsewhere = tmp_path / "archive"
    (elsewhere / "ill").mkdir(parents=True)
    (elsewhere / "ill" / "a.png").write_bytes(b"x")
    (folder / "site.yaml").write_text(SITE.replace("path: records", f"path: {elsewhere}"))
    site = load_site(folder / "site.yaml")
    with pytest.raises(ConfigError, match="can be read by 60002"):
        check_layout(folder, TWO, site)
    os.chown(elsewhere, 0, TWO.guard.gid)
    elsewhere.chmod(0o750)
    check_layout(folder, TWO, site)
    (elsewhere / "ill" / "a.png").chmod(0o600)
    with pytest.raises(ConfigError, match=r"a.png: 60001 cannot read it"):
        check_layout(folder, TWO, site)


@needs_root
def test_an_installation_closed_to_either_user_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Guard and node would fail at their first import, again and again."""
    monkeypatch.undo()
    site, packages = load_site(folder / "site.yaml"), tmp_path / "home" / "packages"
    packages.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    monkeypatch.setattr(sys, "path", [str(packages)])
    check_layout(folder, TWO, site)
    packages.parent.chmod(0o700)
    with pytest.raises(ConfigError, match="packages: 60001 cannot read what is installed there"):
        check_layout(folder, TWO, site)


GUARD = """
import sys, threading
from pathlib import Path
from grpc import _server  # which grpc loads late, when this user may not read it any more
sys.path.insert(0, {root!r})
from client.guard import Guard
from client.guard_rpc.server import GuardService
from client.policy import load_policy
from client.privacy.noise import SecureNoise
from client.site import load_site
from server.protocol import Admit
folder = Path({folder!r})
def guard(state):
    site, policy = load_site(folder / "site.yaml"), load_policy(folder / "policy.yaml")
    return Guard(site, state, lambda *_: SecureNoise(), policy=policy)
guard(Path({spare!r})).handle(Admit(**{asked!r}))  # loads what it loads late
"""


def forbidden() -> dict[str, object]:
    """Return the fields of an admission that the policy below does not allow."""
    phase = Phase(name="p", rounds=1, objectives={"contrastive": 1.0})
    return asdict(admit(Schedule(phases=(phase,), spare_rounds=1)))


@pytest.fixture
def served(folder: Path, tmp_path: Path) -> Iterator[Path]:
    """Serve the folder by a guard that runs as its own user."""
    for left in (folder / "state/ledger.sqlite", folder / "state/guard.sock"):
        left.unlink()
    (folder / "run" / "guard" / "guard.sock").unlink()
    text = (folder / "policy.yaml").read_text()
    (folder / "policy.yaml").write_text(text + "\naccept_unit_image: true")
    first = GUARD.format(root=str(ROOT), folder=str(folder), spare=str(tmp_path / "spare"),
                         asked=forbidden())  # fmt: skip
    become = (
        f"import os\nos.setgroups([{TWO.node.gid}])\nos.setgid({TWO.guard.gid})\n"
        f"os.setuid({TWO.guard.uid})\nos.umask(0o077)\n"
    )
    serve = (
        f"with GuardService(guard(folder / 'state'), folder / 'run/guard/guard.sock', "
        f"[{TWO.node.uid}]):\n    print('up', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [PYTHON, "-c", first + become + serve], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (folder / "guard.pid").write_text(str(process.pid))
        try:
            yield folder
        finally:
            process.stdin.close()
            process.wait()


def by_root(*arguments: str) -> str:
    """Run a command of `fedmedformer site`, and return what it prints."""
    code = "import sys; from simulations.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [PYTHON, "-c", code, "site", *arguments], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done
    return done.stdout.strip()


ASK = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from client.guard_rpc.channel import GuardChannel
from server.protocol import Admit, Hello
asked = {{"hello": Hello("run-1", "x"), "forbidden": Admit(**{asked!r})}}
"""


@needs_root
def test_a_hostile_relay_of_the_nodes_user_gets_the_guards_answers_and_no_more(served: Path):
    """The relay can ask. The guard refuses what policy forbids, and its inner socket, memory,
    environment and process are closed to the relay. It does not answer another user at all."""
    socket = served / "run" / "guard" / "guard.sock"
    found = socket.stat()
    assert (found.st_uid, found.st_gid) == (TWO.guard.uid, TWO.node.gid)
    assert stat.S_IMODE(found.st_mode) == 0o660
    pid = (served / "guard.pid").read_text()
    code = f"""
        got = {{}}
        with GuardChannel(Path({str(socket)!r}), deadline=600) as channel:
            for name, request in asked.items():
                answer = channel.handle(request)
                got[name] = getattr(answer, "code", type(answer).__name__)
        inner = Path({str(served / "state" / "guard.sock")!r})
        with GuardChannel(inner, deadline=5) as channel:
            got["inner"] = channel.handle(asked["hello"]).code
        for name, attempt in {{
            "memory": lambda: open("/proc/{pid}/mem", "rb").read(1),
            "environment": lambda: open("/proc/{pid}/environ", "rb").read(1),
            "signal": lambda: os.kill({pid}, 9),
        }}.items():
            try:
                attempt()
                got[name] = "got it"
            except OSError as error:
                got[name] = type(error).__name__
        print(json.dumps(got))
    """
    first = ASK.format(root=str(ROOT), asked=forbidden())
    got = as_user(TWO.node.uid, [], code, first)
    no = "PermissionError"
    assert got == {
        "hello": "HelloAnswer", "forbidden": "policy", "inner": "internal-error",
        "memory": no, "environment": no, "signal": no,
    }  # fmt: skip
    assert hostile(served) == []
    assert by_root("status", str(served), "--only", "guard") == "guard: serving"
    socket.chmod(0o666)
    served.chmod(0o755)
    (served / "run").chmod(0o755)
    (served / "run" / "guard").chmod(0o755)
    got = as_user(STRANGER, [], code, first)
    assert (got["hello"], got["forbidden"]) == ("internal-error", "internal-error")


@needs_root
def test_the_two_are_started_as_the_two_and_see_no_secret_of_root(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """The kernel shows user, groups, environment and open files as `site up` should have set
    them."""
    monkeypatch.setenv("SECRET", "of root")
    seen = {}
    how = {
        name: options(name, folder, users_of(folder))
        for name in ("guard", "announcer", "supernode")
    }
    for name, more in how.items():
        done = subprocess.run(
            ["/bin/sh", "-c", "id -u; id -g; id -G; umask; env"], capture_output=True, text=True,
            **more,
        )  # fmt: skip
        seen[name] = done.stdout.split("\n")
    assert seen["announcer"] == seen["guard"]
    assert seen["guard"][:4] == ["60001", "60001", "60001 60002", "0077"]
    assert seen["supernode"][:4] == ["60002", "60002", "60002", "0077"]
    assert not [line for lines in seen.values() for line in lines if "SECRET" in line]
    home = str(folder / "flower")
    assert {f"HOME={home}", f"FLWR_HOME={home}"} <= set(seen["supernode"])
    command = Node(folder).guard()
    assert command[command.index("--user") + 1] == "60002"


@needs_root
def test_as_root_nothing_of_one_user_starts_without_insisting(
    one: Path, capsys: pytest.CaptureFixture[str]
):
    """The consortium's code would run as root."""
    for action in ("up", "guard", "node"):
        assert main(["site", action, str(one)]) == 1
        assert "would run as root" in capsys.readouterr().err


@needs_root
def test_site_install_with_numbers_in_place_of_users(
    one: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """It lays the folder out, writes what starts it, and keeps what was there."""
    monkeypatch.setattr(users, "_code", lambda: {"/bin/sh": "-x"})
    before = (one / "node.key").read_bytes()
    again = ["site", "install", str(one), "--guard-user", "60001", "--node-user", "60002"]
    for _ in range(2):
        assert main(again) == 0
        output = capsys.readouterr().out
        assert "systemctl enable --now" in output
        assert users_of(one) == TWO
    names = {f.name for f in (one / "service").iterdir()}
    assert {"fedmedformer-guard.service", "fedmedformer-node.service", "up"} <= names
    assert (one / "node.key").read_bytes() == before
    (one / "node.key").rename(one.parent / "old.key")
    init(one, "north")
    assert (one / "node.key").stat().st_uid == TWO.node.uid
    check_layout(one, TWO, load_site(one / "site.yaml"))
    assert main(["site", "install", str(one), "--guard-user", "0"]) == 1
    assert "is root" in capsys.readouterr().err
    assert main(["site", "install", str(one), "--guard-user", "nobody-here"]) == 1
    assert "useradd --system" in capsys.readouterr().err


@needs_root
def test_a_link_in_the_folder_is_not_followed(folder: Path, tmp_path: Path):
    """Root would give away the file to which it points."""
    other = tmp_path / "shadow"
    other.write_text("")
    (folder / "state" / "x").symlink_to(other)
    separate(folder, TWO)
    assert other.stat().st_uid == 0
    (folder / "policy.yaml").unlink()
    (folder / "policy.yaml").symlink_to(other)
    with pytest.raises(ConfigError, match="is a link"):
        separate(folder, TWO)


@needs_root
def test_the_secret_of_flowers_processes_is_the_nodes_and_follows_no_link(
    folder: Path, tmp_path: Path
):
    """Root writes it into a folder of the node's user, who could have put a link there."""
    other, secret = tmp_path / "shadow", Node(folder).secret
    other.write_text("root's")
    secret.symlink_to(other)
    new_secret(secret, TWO)
    assert (other.read_text(), other.stat().st_uid) == ("root's", 0)
    found = secret.lstat()
    assert stat.S_ISREG(found.st_mode)
    assert (found.st_uid, stat.S_IMODE(found.st_mode), found.st_size) == (60_002, 0o600, 32)


@needs_root
def test_what_root_types_writes_as_the_guard(folder: Path):
    """Otherwise the ledger's files would belong to root, and the guard could not go on."""
    (folder / "state" / "ledger.sqlite").unlink()
    output = by_root("approve", str(folder / "site.yaml"), str(folder / "state"))
    assert output == "no run waits for approval"
    owners = {f.stat().st_uid for f in (folder / "state").iterdir()}
    assert owners == {TWO.guard.uid}


@needs_root
@pytest.mark.slow
def test_roots_check_reads_records_as_the_guard(folder: Path):
    """Root checks key and layout; the guard's user checks the rest. So a record that the guard
    cannot read is found, and no file of root's is left in the guard's folder."""
    (folder / "state" / "ledger.sqlite").unlink()
    (folder / "records" / "labels.csv").write_text(
        "file,labels,patient,split\n"
        "train/ill/patient.png,1,p0,train\n"
        "train/ill/closed.png,1,p1,train\n"
    )
    shutil.copy(Path(__file__), folder / "records/train/ill/closed.png")
    for place in (folder / "records").rglob("*"):
        os.chown(place, 0, TWO.guard.gid)
        place.chmod(0o750 if place.is_dir() else 0o640)
    (folder / "records/train/ill/closed.png").chmod(0o600)
    code = "import sys, encodings.utf_8_sig, PIL.Image\n"
    code += "import client.node.check.run, client.data.card.content\n"
    code += "from simulations.cli import main\n"
    code += "PIL.Image.init(); sys.exit(main(sys.argv[1:]))"  # this Python may be closed to others
    done = subprocess.run(
        [PYTHON, "-c", code, "site", "check", str(folder), "--offline", "--json",
         str(folder / "check.json")],
        capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done
    assert (folder / "check.json").stat().st_size, done
    found = json.loads((folder / "check.json").read_text())
    states = {line["name"]: (line["state"], line["text"]) for line in found["checks"]}
    assert states["users"][0] == "OK"
    assert states["key"][0] == "OK"
    assert "PermissionError" in "".join(line["text"] for line in found["checks"])
    assert (folder / "check.json").stat().st_mode & 0o777 == 0o600
    assert {f.stat().st_uid for f in (folder / "state").iterdir()} == {TWO.guard.uid}
    assert (folder / "state" / "manifest.json").exists()


def test_two_users_are_two():
    """One user, one group or root does not separate anything."""
    for guard, other in (((5, 5), (5, 6)), ((5, 5), (6, 5))):
        with pytest.raises(ConfigError, match="need two users"):
            Users(User(*guard), User(*other))
    with pytest.raises(ConfigError, match="is root"):
        User.named("root")


class Idle(Supervisor):
    """A supervisor that starts nothing."""

    def __init__(self, commands: dict[str, list[str]], *more: object, **named: object) -> None:
        super().__init__(commands, *more, **named)  # type: ignore[arg-type]
        self.given.append(set(commands))

    given: ClassVar[list[set[str]]] = []

    def run(self, *_: object, **__: object) -> None:
        """End at once."""


def test_one_user_is_said_plainly(one: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    """It is printed by `site up` and by `site check`."""
    monkeypatch.setattr(sys, "prefix", str(ROOT))  # as if this checkout were installed there
    node.up(one, allow_root=True, supervisor=Idle)
    assert "guard and node run as one user" in caplog.text
    assert Idle.given.pop() == {"guard", "supernode", "executor", "announcer"}
    policy = (one / "policy.yaml").read_text().replace("approval: manual", "approval: automatic")
    (one / "policy.yaml").write_text(policy)
    node.up(one, allow_root=True, supervisor=Idle)
    assert Idle.given.pop() == {"guard", "supernode", "executor"}  # nothing waits at this site


def test_a_users_file_that_cannot_be_read_is_no_folder_of_one_user(one: Path):
    """Otherwise both would be started as the present user."""
    (one / "users.json").write_text("{}")
    with pytest.raises(ConfigError, match="does not say who guard and node are"):
        node.up(one, allow_root=True)


@pytest.mark.skipif(os.getuid() == 0, reason="for those who are not root")
def test_two_users_cannot_be_started_by_one(one: Path):
    """Only root, or the units, can start them."""
    (one / "users.json").write_text(
        '{"guard": {"uid": 60001, "gid": 60001}, "node": {"uid": 60002, "gid": 60002}}'
    )
    with pytest.raises(LaunchError, match="start it as root"):
        node.up(one)


def test_proxies_are_for_the_node_and_never_for_the_loopback_address(tmp_path: Path):
    """Variables work in lower and upper case, and a hospital's own exceptions stay."""
    given = {"PATH": "/bin", "HTTPS_PROXY": "http://p:3128", "https_proxy": "http://q:3128",
             "no_proxy": "pacs.local, 10.0.0.1", "HOME": "/h", "AWS_SECRET": "s"}  # fmt: skip
    guard = environment("guard", tmp_path, None, given)
    assert not [key for key in guard if "proxy" in key.lower()]
    assert KEEP_MEMORY.items() <= guard.items()  # what trains is the guard
    found = environment("supernode", tmp_path, None, given)
    assert (found["HTTPS_PROXY"], found["https_proxy"]) == ("http://p:3128", "http://q:3128")
    assert found["no_proxy"] == found["NO_PROXY"] == "pacs.local,10.0.0.1,127.0.0.1,localhost"
    assert "AWS_SECRET" not in found
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
