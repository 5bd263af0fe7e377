"""A consortium on this machine as it will run: an installed package, real processes, TLS, keys.

One SuperLink and three sites, each a guard and a SuperNode.
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
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simulations.rehearsal.consortium import Rehearsal
from simulations.rehearsal.terminal import Terminal
from simulations.rehearsal.texts import MEMBER
from tests.helpers.patience import PATIENCE
from tests.helpers.sources import copy_sources

SITES = ("north", "south", "west")
SITE = """
name: {name}
domain: {{name: {name}, modality: chest-xray, anatomy: chest, channels: 1}}
tasks: [{{name: finding, kind: binary-class, classes: 2}}]
data: {{source: phantoms, kind: chest, records: 120, seed: {seed}}}
privacy: {{epsilon: 8, delta: 1.0e-5, epsilon_budget: 400, n_public: 120}}
"""
POLICY = """
signer: "FINGERPRINT-OF-SIGNER"
objectives: [supervised, orientation, domain_adversarial]
max_epsilon_per_run: 8
accept_unit_image: true
approval: automatic
min_sites: 2
max_epsilon_all_collude: 40
max_epsilon_evaluation: 2
max_epsilon_statistics: 1
peers: {peers}
"""
RUN = """
name: lungs-1
phases: [{name: supervised, rounds: 3, objectives: {supervised: 1.0}, expected_batch_size: 32}]
sites:
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@dataclass
class Consortium:
    """The folders of a consortium and its sites, and the commands of a separate installation."""

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
            text=True, timeout=PATIENCE, env=self.environment(who),
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
        self.start(name, "site", "up", name, "--allow-root", "--health-port", str(free_port()))

    def node(self, key: Path, authority: Path, folder: Path, port: int | None = None) -> str:
        """Return what a SuperNode with this key and authority prints in that time; like any node
        whose server is away, it never gives up."""
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
        """Run Flower's own command as the coordinator does, or against another port."""
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
            timeout=PATIENCE, env={**self.environment("server"), "FLWR_HOME": str(home)},
        )  # fmt: skip

    def built(self, app: str) -> bytes:
        """Build the bundle of an app."""
        folder = self.folder / "built"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        subprocess.run([str(self.bin / "flwr"), "build", "--app", app], cwd=folder, check=True,
                       capture_output=True, env=self.environment("server"))  # fmt: skip
        (found,) = folder.glob("*.fab")
        return found.read_bytes()

    def status(self) -> str:
        """Return Flower's own lists of nodes and runs."""
        return self.command("server", "consortium", "status", "lungs", "--flower")

    def facts(self) -> dict[str, Any]:
        """Return what `consortium status` knows, of a server that serves."""
        text = self.command("server", "consortium", "status", "lungs", "--json")
        found: dict[str, Any] = json.loads(text)
        return found

    def connected(self) -> list[str]:
        """Return the names of the members whose nodes are connected now."""
        return [m["name"] for m in self.facts()["members"] if m["connection"] == "connected"]


def built_wheel(folder: Path) -> Path:
    """Build the package's wheel in `folder`, from a copy of its sources. In the sources themselves
    setuptools would keep what it builds: two processes would disturb each other there, and a
    deleted module would be packed again."""
    sources = copy_sources(folder / "sources")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder)]
    subprocess.run([*command, str(sources)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package into a separate environment, as the guard demands; dependencies are
    shared."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = built_wheel(folder)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-q", "--no-deps", str(wheel)]
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
    """Return a consortium that was brought up with the commands that people type, as `fedmedformer
    poc` types them; server and sites are up."""
    folder = tmp_path_factory.mktemp("c")
    folder.chmod(0o755)
    own = Consortium(folder, installed, 0, {})
    terminal = Terminal(folder, own.environment("people"), print, PATIENCE)
    people = Rehearsal(terminal, "lungs", "lungs", SITES, SITE, POLICY)
    own.port, own.processes = people.port, terminal.processes
    run = RUN + "".join(f"{MEMBER.format(name=name)}\n" for name in SITES)
    (folder / "run.yaml").write_text(run)
    try:
        for step in ("begin", "provision", "serve", "declare", "connect"):
            getattr(people, step)()
        yield own
    finally:
        terminal.stop()


def ledger(folder: Path, name: str) -> list[str]:
    """Return the kinds of a ledger's rows in their order, without those of countersigned reports,
    which come with whatever the server asks next."""
    file = folder / name / "state" / "ledger.sqlite"
    if not file.exists():
        return []
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        kinds = [kind for (kind,) in db.execute("SELECT kind FROM entries ORDER BY seq")]
    return [kind for kind in kinds if kind != "report"]
