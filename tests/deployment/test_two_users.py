"""A hospital whose guard and node are two users, with real processes: a round is trained, the
node's user gets nothing, and a revoked node is out within seconds."""

import json
import os
import re
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.client.node.test_users import TRIES, TWO
from tests.deployment.conftest import (
    POLICY,
    RUN,
    SITE,
    Consortium,
    built_wheel,
    free_port,
    ledger,
)
from tests.helpers.patience import PATIENCE, waited

pytestmark = [
    pytest.mark.flower,
    pytest.mark.heavy,  # a minute and a half, and what users are on a machine is its own
    pytest.mark.skipif(os.getuid() != 0, reason="two users need root"),
]


def open_python() -> Path:
    """Return a Python of this version that other users can run."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for found in (Path(sys.executable).resolve(), Path("/usr/bin") / version):
        done = subprocess.run(["test", "-x", str(found)], user=TWO.node.uid, group=TWO.node.gid)
        if done.returncode == 0:
            return found
    pytest.skip(f"no {version} that other users can run")


def open_packages(folder: Path) -> list[str]:
    """Return the dependencies where other users can read them: in place, or linked into a
    folder."""
    places = site.getsitepackages()
    if all(subprocess.run(["test", "-r", p], user=TWO.node.uid).returncode == 0 for p in places):
        return places
    links = [folder / f"borrowed-{number}" for number in range(len(places))]
    try:
        for place, link in zip(places, links, strict=True):
            shutil.copytree(place, link, copy_function=os.link)
    except shutil.Error as error:  # another disk
        pytest.skip(f"dependencies that other users cannot read: {error.args[0][0][2]}")
    return [str(link) for link in links]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """Make folders and an installation that other users can pass through."""
    base = open_python()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        venv = folder / "venv"
        subprocess.run([base, "-m", "venv", "--without-pip", str(venv)], check=True)
        packages = next((venv / "lib").glob("python3*/site-packages"))
        with zipfile.ZipFile(built_wheel(tmp_path_factory.mktemp("wheel"))) as archive:
            archive.extractall(packages)
        (packages / "zz-borrowed.pth").write_text("\n".join(open_packages(folder)) + "\n")
        here = Path(sys.executable).parent
        for tool in (*here.glob("flwr*"), *here.glob("flower-*"), here / "fedmedformer"):
            text = re.sub(r"^#!.*", f"#!{venv / 'bin' / 'python'}", tool.read_text(), count=1)
            (venv / "bin" / tool.name).write_text(text)
            (venv / "bin" / tool.name).chmod(0o755)
        subprocess.run(["chmod", "-R", "go+rX,go-w", str(venv)], check=True)
        made = Consortium(folder, venv / "bin", free_port(), {})
        try:
            yield made
        finally:
            for process in made.processes.values():
                process.send_signal(signal.SIGTERM)
            for process in made.processes.values():
                process.wait(timeout=PATIENCE)


def as_unit(own: Consortium, who: str, user: int, groups: list[int], *arguments: str) -> None:
    """Start a process as systemd would: already as its user, with a bare environment."""
    with open(own.folder / f"{who}.log", "ab") as out:
        own.processes[who] = subprocess.Popen(
            [str(own.bin / "fedmedformer"), "site", *arguments], cwd="/", stdout=out, stderr=out,
            user=user, group=user, extra_groups=groups, umask=0o077, start_new_session=True,
            env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def test_a_round_with_guard_and_node_as_two_users(own: Consortium):
    """Everything is installed, checked and started as root; then as two units; then excluded."""
    folder, health = own.folder, str(free_port())
    own.command("server", "consortium", "init", "lungs", "--name", "lungs", "--host", "localhost")
    output = own.command("north", "site", "init", "north", "--name", "north")
    file = folder / "lungs" / "consortium.yaml"
    keys = json.dumps({"north": re.findall(r"key: (.*)", output)[0]})
    text = file.read_text().replace("sites: {}", f"sites: {keys}")
    ports = f"port: {own.port}\nlisten: 127.0.0.1\nhealth_port: {free_port()}"
    file.write_text(text.replace("port: 9092", ports))
    shutil.copy(folder / "north" / "request.json", folder / "lungs" / "requests" / "north.json")
    output = own.command("server", "consortium", "provision", "lungs")
    signer = re.findall(r"signing key.*: (.*)", output)[0]
    (folder / "north" / "site.yaml").write_text(SITE.format(name="north", seed=0))
    (folder / "north" / "policy.yaml").write_text(
        POLICY.format(peers="{}").replace("FINGERPRINT-OF-SIGNER", signer)
    )
    own.command("north", "site", "init", "north", "--kit", "lungs/kits/north.zip")
    own.command(
        "north", "site", "install", "north", "--guard-user", "60001", "--node-user", "60002"
    )
    run = RUN.replace("rounds: 3", "rounds: 1")
    run += "  north: {name: north, modality: chest-xray, anatomy: chest, channels: 1}\n"
    (folder / "run.yaml").write_text(run)
    own.start("server", "consortium", "up", "lungs")
    own.start("north", "site", "up", "north", "--health-port", health)
    _dialled_in(own)

    facts = json.loads((folder / "north" / "run" / "node.json").read_text())["processes"]
    users = {name: psutil.Process(pid).uids().effective for name, pid in facts.items()}
    assert users == {"guard": 60001, "supernode": 60002, "executor": 60002}
    out = folder / "run-1"
    own.command("server", "consortium", "submit", "lungs", "run.yaml", "--out", str(out))
    waited((out / "outcome.json").exists, "no outcome")
    assert json.loads((out / "outcome.json").read_text())["outcome"] == "done"
    kinds = ledger(folder, "north")
    assert (kinds.count("reservation"), kinds.count("answer")) == (1, 1)
    owners = {f.stat().st_uid for f in (folder / "north" / "state").rglob("*")}
    assert owners == {60001}
    assert hostile(folder / "north") == []

    own.command("north", "site", "down", "north")
    own.processes.pop("north").wait(timeout=PATIENCE)
    north = str(folder / "north")
    own.command("north", "site", "node", north, "--check")
    as_unit(own, "guard", 60001, [60002], "guard", north)
    as_unit(own, "node", 60002, [], "node", north, "--health-port", health)
    probe = ("site", "status", north, "--health-port", health, "--wait", "60")
    output = own.command("north", *probe)
    said = output.splitlines()[1:4]
    assert said[:2] == ["guard: serving", "supernode: serving"]
    assert said[2].startswith("server: connected since ")
    _dialled_in(own)
    assert hostile(folder / "north") == []

    own.command("server", "consortium", "provision", "lungs", "--revoke", "north")
    waited(lambda: _connected(own) == 0, "the node is still admitted")
    assert json.loads((folder / "lungs" / "nodes.json").read_text()) == {}


def _dialled_in(own: Consortium) -> None:
    """Return once the node has connected; fail with the logs otherwise."""
    try:
        waited(lambda: _connected(own) == 1, "")
    except AssertionError:
        logs = [*own.folder.glob("*.log"), *own.folder.glob("*/logs/*.log")]
        text = "\n".join(f"{f}:\n{f.read_text(errors='replace')[-1500:]}" for f in logs)
        pytest.fail(f"the node did not dial in\n{text}")


def _connected(own: Consortium) -> int:
    done = subprocess.run(
        [str(own.bin / "fedmedformer"), "consortium", "status", "lungs", "--json"],
        cwd=own.folder, capture_output=True, text=True, env=own.environment("server"),
    )  # fmt: skip
    return done.stdout.count('"connection": "connected"')


def hostile(folder: Path) -> list[str]:
    """Return what the node's user gets from each try; imports come first, as this Python may be
    closed to it."""
    first = "import os, json, socket\nfrom pathlib import Path\n"
    become = f"os.setgroups([])\nos.setgid({TWO.node.gid})\nos.setuid({TWO.node.uid})\n"
    done = subprocess.run(
        [sys.executable, "-c", first + become + TRIES.format(folder=str(folder))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    got: dict[str, str] = json.loads(done.stdout)
    return [name for name, result in got.items() if result == "got it"]
