"""A consortium on this machine as it will run: an installed package, real processes, TLS, keys.

One SuperLink and three sites, each a guard and a SuperNode with a HOME of its own.
"""

import json
import os
import re
import shutil
import signal
import site
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
from starlette.applications import Starlette

from server.authority import new_server_certificate
from server.bundle import APP_ID, RUN_CONFIG, VERSION, toml, write_app
from server.hub import new_signer, sign, signer_of
from server.protocol import key_id
from server.serving import Serving
from server.superlink import load_run

ROOT = Path(__file__).parents[2]
SITES = ("north", "south", "west")
SITE = """
name: {name}
domain: {{name: {name}, modality: chest-xray, anatomy: chest, channels: 1}}
tasks: [{{name: finding, kind: binary-class, classes: 2}}]
data: {{source: phantoms, kind: chest, records: 120, seed: {seed}}}
privacy: {{epsilon: 8, delta: 1.0e-5, epsilon_budget: 20, n_public: 120}}
"""
POLICY = """
signer: "{signer}"
objectives: [supervised]
max_epsilon_per_run: 8
accept_unit_image: true
approval: automatic
"""
RUN = """
name: lungs-1
phases: [{name: supervised, rounds: 3, objectives: {supervised: 1.0}, expected_batch_size: 32}]
sites:
"""

pytestmark = [pytest.mark.flower, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@dataclass
class Consortium:
    """Folders of everybody, and the commands of an installation of its own."""

    folder: Path
    bin: Path
    port: int
    processes: dict[str, "subprocess.Popen[bytes]"]

    def environment(self, who: str) -> dict[str, str]:
        home = self.folder / f"home-{who}"
        home.mkdir(exist_ok=True)
        path = f"{self.bin}{os.pathsep}/usr/bin{os.pathsep}/bin"
        return {"PATH": path, "HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0",
                "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip

    def command(self, who: str, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [str(self.bin / "fedmedformer"), *arguments], cwd=self.folder, capture_output=True,
            text=True, timeout=180, env=self.environment(who),
        )  # fmt: skip
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def start(self, who: str, *arguments: str) -> None:
        with open(self.folder / f"{who}.log", "ab") as out:
            self.processes[who] = subprocess.Popen(
                [str(self.bin / "fedmedformer"), *arguments], cwd=self.folder, stdout=out,
                stderr=out, start_new_session=True, env=self.environment(who),
            )  # fmt: skip

    def site_up(self, name: str) -> None:
        self.start(name, "site", "up", name, "--health-port", str(free_port()))

    def node(self, key: Path, authority: Path, folder: Path, port: int | None = None) -> str:
        """What a SuperNode with this key and authority says in so many seconds; it goes on trying,
        as nodes do whose server is away."""
        with subprocess.Popen(
            [str(self.bin / "flower-supernode"), "--superlink", f"localhost:{port or self.port}",
             "--root-certificates", str(authority), "--auth-supernode-private-key", str(key),
             "--port", str(free_port())],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=self.environment("stranger"), start_new_session=True,
        ) as process:  # fmt: skip
            time.sleep(12)
            os.killpg(process.pid, signal.SIGKILL)
            return str(process.communicate()[0])

    def flwr(self, *arguments: str, port: int | None = None) -> "subprocess.CompletedProcess[str]":
        """Flower's own command, as the coordinator's machine has it, or dialling another port."""
        home = self.folder / "lungs" / "flower"
        if port is not None:
            text = (home / "config.toml").read_text()
            home = self.folder / "elsewhere"
            home.mkdir(exist_ok=True)
            (home / "config.toml").write_text(
                re.sub(r'"127.0.0.1:\d+"', f'"localhost:{port}"', text)
            )
        return subprocess.run(
            [str(self.bin / "flwr"), *arguments], cwd=self.folder, capture_output=True, text=True,
            timeout=120, env={**self.environment("server"), "FLWR_HOME": str(home)},
        )  # fmt: skip

    def built(self, app: str) -> bytes:
        """The bundle of an app."""
        folder = self.folder / "built"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        subprocess.run([str(self.bin / "flwr"), "build", "--app", app], cwd=folder, check=True,
                       capture_output=True, env=self.environment("server"))  # fmt: skip
        (found,) = folder.glob("*.fab")
        return found.read_bytes()

    def status(self) -> str:
        return self.command("server", "consortium", "status", "lungs")


def waited(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.3)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package in an environment of its own, as the guard demands; dependencies are borrowed."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
    subprocess.run([*wheel, "-w", str(folder), str(ROOT)], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    (found,) = folder.glob("*.whl")
    install = [str(python), "-m", "pip", "install", "-q", "--no-deps", str(found)]
    subprocess.run(install, check=True, capture_output=True)
    packages = next((folder / "venv" / "lib").glob("python3*/site-packages"))
    (packages / "zz-borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    own = Path(sys.executable).parent
    for tool in (*own.glob("flwr*"), *own.glob("flower-*")):
        text = re.sub(r"^#!.*", f"#!{python}", tool.read_text(), count=1)
        (python.parent / tool.name).write_text(text)
        (python.parent / tool.name).chmod(0o755)
    return python.parent


@pytest.fixture(scope="module")
def consortium(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """Provisioned with the commands that people type; server and sites are up."""
    folder = tmp_path_factory.mktemp("c")
    folder.chmod(0o755)
    own = Consortium(folder, installed, free_port(), {})
    own.command("server", "consortium", "init", "lungs", "--name", "lungs", "--host", "localhost")
    told = {}
    for seed, name in enumerate(SITES):
        said = own.command(name, "site", "init", name, "--name", name)
        told[name] = re.findall(r"key: (.*)", said)[0]
        (folder / name / "site.yaml").write_text(SITE.format(name=name, seed=seed))
        request = (folder / name / "request.json").read_bytes()
        (folder / "lungs" / "requests" / f"{name}.json").write_bytes(request)
    file = folder / "lungs" / "consortium.yaml"
    text = file.read_text().replace("sites: {}", f"sites: {json.dumps(told)}")
    file.write_text(text.replace("port: 9092", f"port: {own.port}\nlisten: 127.0.0.1"))
    said = own.command("server", "consortium", "provision", "lungs")
    signer = re.findall(r"signing key.*: (.*)", said)[0]
    for name in SITES:
        (folder / name / "policy.yaml").write_text(POLICY.format(signer=signer))
        subprocess.run(["cp", "-r", str(folder / "lungs" / "kits" / name),
                        str(folder / name / "kit")], check=True)  # fmt: skip
    run = RUN + "".join(
        f"  {n}: {{name: {n}, modality: chest-xray, anatomy: chest, channels: 1}}\n" for n in SITES
    )
    (folder / "run.yaml").write_text(run)
    try:
        own.start("server", "consortium", "up", "lungs")
        waited(lambda: len(_nodes(folder)) == len(SITES), 90, (folder / "server.log").read_text())
        for name in SITES:
            own.site_up(name)
        waited(lambda: own.status().count("online") == len(SITES), 90, "the nodes did not dial in")
        yield own
    finally:
        for process in own.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in own.processes.values():
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _nodes(folder: Path) -> dict[str, object]:
    try:
        found: dict[str, object] = json.loads((folder / "lungs" / "nodes.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def ledger(folder: Path, name: str) -> list[str]:
    file = folder / name / "state" / "ledger.sqlite"
    if not file.exists():
        return []
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        return [kind for (kind,) in db.execute("SELECT kind FROM entries ORDER BY seq")]


def test_three_sites_train_under_secure_noise_and_the_report_says_so(consortium: Consortium):
    """Three rounds; nothing exact in any file; each ledger has the run and its rounds."""
    folder, out = consortium.folder, consortium.folder / "run-1"
    consortium.command("server", "consortium", "submit", "lungs", "run.yaml", "--out", str(out))
    waited((out / "outcome.json").exists, 240, "no outcome")
    assert json.loads((out / "outcome.json").read_text())["outcome"] == "done"
    report = json.loads((out / "report.json").read_text())
    jsonschema.validate(report, json.loads((out / "report.schema.json").read_text()))
    assert (report["noise_source"], report["simulation"]) == ("secure", False)
    assert [s["name"] for s in report["sites"] if s["participated"]] == list(SITES)
    assert all(s["epsilon"] <= 8 and s["epsilon_lifetime"] is None for s in report["sites"])
    assert report["results"] == []
    for name in SITES:
        kinds = ledger(folder, name)
        assert kinds.count("reservation") == 1
        assert kinds.count("attempt") == kinds.count("answer") == 3
        said = consortium.command(name, "site", "ledger", "verify", f"{name}/state",
                                  "--report", str(out / "report.json"), "--site", name)  # fmt: skip
        assert "chain intact" in said
    texts = [f.read_text() for f in out.glob("*.json*")]
    assert not [t for t in texts if '"exact_loss": 0' in t]


def test_an_unknown_key_a_foreign_authority_and_plain_http_are_refused(consortium: Consortium):
    """None of them becomes a node; each says something about it."""
    folder = consortium.folder
    before = consortium.status().count("online")
    stranger = folder / "stranger"
    consortium.command("stranger", "site", "init", "stranger", "--name", "stranger")
    authority = folder / "lungs" / "kits" / "server" / "ca.crt"
    consortium.node(stranger / "node.key", authority, stranger)
    consortium.command("other", "consortium", "init", "other", "--name", "other", "--host", "x")
    consortium.command("other", "consortium", "provision", "other")
    foreign = folder / "other" / "kits" / "server" / "ca.crt"
    said = consortium.node(folder / "north" / "node.key", foreign, stranger)
    assert re.search("certificate|CERTIFICATE|SSL", said), said
    with socket.create_connection(("localhost", consortium.port), timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        plain.settimeout(10)
        try:
            answer = plain.recv(1_000)
        except OSError:
            answer = b""
    assert b"200" not in answer
    assert consortium.status().count("online") == before


def test_from_outside_nobody_can_start_a_run_or_register_a_node(
    consortium: Consortium, tmp_path: Path
):
    """At the port that hospitals dial there is no Control API; on the server's machine there is."""
    consortium.command("stranger", "site", "init", "guest", "--name", "guest")
    key = str(consortium.folder / "guest" / "node.pub")
    app = str(write_app(tmp_path / "app"))
    assert consortium.flwr("list", "own").returncode == 0
    for arguments in (("list", "own"), ("supernode", "register", key, "own"), ("run", app, "own")):
        done = consortium.flwr(*arguments, port=consortium.port)
        assert done.returncode != 0, (arguments, done.stdout)
    assert "guest" not in consortium.status()


def test_an_expired_certificate_is_refused_by_the_node(consortium: Consortium, tmp_path: Path):
    """It says so, and goes on trying."""
    folder = consortium.folder
    authority = folder / "lungs" / "authority" / "ca.key", folder / "lungs" / "authority" / "ca.crt"
    files = tmp_path / "server.key", tmp_path / "server.crt"
    new_server_certificate(authority, *files, ["localhost"], 0)
    door = Serving(Starlette(), "127.0.0.1", tls=(files[1], files[0]))
    try:
        said = consortium.node(folder / "north" / "node.key", authority[1], tmp_path, door.port)
    finally:
        door.close()
    assert "certificate has expired" in said, said


@pytest.mark.parametrize("how", ["unsigned", "tampered", "another key"])
def test_a_bundle_that_the_consortium_did_not_sign_is_not_run(
    consortium: Consortium, tmp_path: Path, how: str
):
    """By no site: no question of it reaches a guard, and no ledger gets a row."""
    folder, home = consortium.folder, consortium.folder / "lungs" / "flower"
    before = {name: ledger(folder, name) for name in SITES}
    out = folder / f"run-{how.replace(' ', '-')}"
    key = folder / "lungs" / "authority" / "bundle.key"
    own = key.read_bytes()
    if how == "another key":
        key.unlink()
        new_signer(key)
        consortium.command("server", "consortium", "submit", "lungs", "run.yaml", "--out", str(out))
    else:  # what a submit does, but for the signature
        app = str(write_app(tmp_path / "app"))
        if how == "tampered":
            sign(home / "hub", consortium.built(app), key, key_id(signer_of(key)))
            with zipfile.ZipFile(home / "hub" / "app.fab", "a") as file:
                file.writestr("client/extra.py", "print('somebody else wrote this')\n")
            app = f"{APP_ID}=={VERSION}"
        out.mkdir()
        (out / "federation.json").write_text(
            load_run(folder / "run.yaml").federation().model_dump_json()
        )
        config = tmp_path / "run-config.toml"
        config.write_text(toml({**RUN_CONFIG, "out": str(out), "deployment": True}))
        done = consortium.flwr("run", app, "own", "--run-config", str(config))
        assert done.returncode == 0, done.stdout + done.stderr
    key.write_bytes(own)
    waited((out / "outcome.json").exists, 240, "no outcome")
    outcome = json.loads((out / "outcome.json").read_text())
    assert outcome["outcome"] == "failed", outcome
    assert "did not answer hello" in outcome["reason"], outcome
    assert {name: ledger(folder, name) for name in SITES} == before
    said = (folder / "north" / "logs" / "supernode.log").read_text()
    assert "could not be verified" in said or "could not verify the FAB" in said


def test_a_guard_that_is_killed_in_mid_run_costs_a_spare_at_most(consortium: Consortium):
    """kill -9; the node starts it again, and submitting the run once more ends it."""
    folder, out = consortium.folder, consortium.folder / "run-2"
    before = {name: ledger(folder, name).count("attempt") for name in SITES}
    submit = ("consortium", "submit", "lungs", "run.yaml", "--out", str(out))
    consortium.command("server", *submit)
    waited(lambda: ledger(folder, "south").count("attempt") > before["south"], 120, "no attempt")
    facts = json.loads((folder / "south" / "run" / "node.json").read_text())
    os.kill(facts["processes"]["guard"], signal.SIGKILL)
    for _ in range(3):
        waited((out / "outcome.json").exists, 240, "no outcome")
        outcome = json.loads((out / "outcome.json").read_text())
        if outcome["outcome"] == "done":
            break
        assert outcome["kind"] == "RunInterrupted", outcome
        waited(lambda: "serving" in consortium.command("south", "site", "status", "south"), 60, "")
        consortium.command("server", *submit)
    assert outcome["outcome"] == "done"
    for name in SITES:
        kinds = ledger(folder, name)
        assert kinds.count("reservation") == 2
        assert 3 <= kinds.count("attempt") - before[name] <= 4
