"""Members: a rotated or revoked key never comes back, and no other member's bytes change."""

import json
import os
import re
import socket
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from client.node.kit import FILES
from medformer.common.certificate import CertificateError
from medformer.common.locks import locked
from medformer.common.processes import Supervisor
from medformer.errors import ConfigError, MedFormerError
from server.consortium.authority import new_authority, new_server_certificate
from server.consortium.declarations import FILE, init
from server.consortium.kits import zipped
from server.consortium.members import REVOKED, revoke, revoked
from server.consortium.nodes import Admission
from server.consortium.provision import provision
from server.consortium.submission import submit
from server.consortium.superlink import SuperLink
from server.run.errors import SuperLinkError
from server.watching.runs import RUNS
from server.watching.seen import UP
from simulations.cli import main
from tests.helpers.tls import answering
from tests.server.consortium.test_provision import bytes_of, joining, members

RUN = """\
name: lungs-1
phases:
  - {{name: supervised, rounds: {rounds}, objectives: {{supervised: 1.0}}, expected_batch_size: 16}}
sites: {{north: {{name: north, modality: chest-xray, anatomy: chest, channels: 1}}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a consortium of three whose kits are ready."""
    folder = tmp_path / "c"
    init(folder, "lungs", ("localhost",))
    names = ("north", "south", "west")
    members(folder, **{name: joining(folder, name) for name in names})
    provision(folder)
    return folder


def fingerprints(folder: Path) -> dict[str, str]:
    text = (folder / "consortium.yaml").read_text()
    found: dict[str, str] = json.loads(text.split("sites: ")[1])
    return found


def changed(folder: Path, before: dict[str, str]) -> set[str]:
    after = bytes_of(folder / "kits")
    return {k for k in {*before, *after} if before.get(k) != after.get(k)}


def test_a_revoked_node_is_out_for_good_and_the_others_keep_every_byte(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    """Its kit and its key at the server are gone. Provisioning again with the same consortium.yaml
    does not admit it, and says so."""
    before = bytes_of(folder / "kits")
    assert main(["consortium", "provision", str(folder), "--revoke", "south"]) == 0
    gone = {k for k in before if k.startswith("south")} | {"server/nodes/south.pub"}
    assert changed(folder, before) == gone
    assert "revoked: south" in capsys.readouterr().out
    assert main(["consortium", "provision", str(folder)]) == 0
    assert "south: its key was revoked" in capsys.readouterr().out
    assert changed(folder, before) == gone
    assert main(["consortium", "provision", str(folder), "--revoke", "south"]) == 1
    assert "no key of 'south' is admitted; there are north, west" in capsys.readouterr().err


def test_a_node_is_revoked_even_if_somebody_elses_entry_is_broken(folder: Path):
    """A revocation must not wait until other entries are corrected."""
    (folder / "requests" / "north.json").write_text("{")
    (folder / "consortium.yaml").write_text("nam: x")
    revoke(folder, "west")
    assert not (folder / "kits" / "west.zip").exists()
    assert list(revoked(folder).values()) == ["west"]


def test_a_rotated_node_has_its_new_key_and_nothing_else_changes(folder: Path):
    """No other member's files are read, and the old key is revoked."""
    before, old = bytes_of(folder / "kits"), fingerprints(folder)
    members(folder, **{**old, "south": joining(folder, "south"), "west": "0" * 32})
    done = provision(folder, rotate="south")
    assert done.kits == ("south",)
    assert changed(folder, before) == {"server/nodes/south.pub"}
    assert revoked(folder) == {old["south"]: "south"}
    members(folder, **old)
    assert provision(folder).revoked == ("south",)
    assert not (folder / "kits" / "server" / "nodes" / "south.pub").exists()


@pytest.mark.parametrize(
    ("harm", "node", "reason"),
    [
        (lambda f: None, "nort", "has no member 'nort'; there are north, south, west"),
        (lambda f: None, "south", "still has the fingerprint of south's old key"),
        (lambda f: members(f, **{**fingerprints(f), "south": "1" * 32}), "south",
         "its key has the fingerprint"),
        (lambda f: members(f, **{**fingerprints(f), "south": "1" * 32})
         or (f / "requests" / "south.json").unlink(), "south", "the request has not come yet"),
        (lambda f: revoke(f, "south"), "south", "no key of 'south' is admitted yet"),
        (lambda f: (f / REVOKED).write_text("["), "south", "still has|cannot be read"),
    ],
)  # fmt: skip
def test_what_keeps_a_node_from_being_rotated_is_said(folder: Path, harm, node: str, reason: str):
    """Nothing is changed."""
    harm(folder)
    before = bytes_of(folder / "kits")
    with pytest.raises(ConfigError, match=reason):
        provision(folder, rotate=node)
    assert bytes_of(folder / "kits") == before


def test_without_the_list_of_revoked_keys_nobody_is_let_in(folder: Path):
    """A damaged list could hide a revoked key."""
    (folder / REVOKED).write_text("[]")
    with pytest.raises(ConfigError, match=r"revoked.json: cannot be read"):
        provision(folder)


def test_a_server_certificate_of_no_use_is_noticed_before_the_hospitals_do(folder: Path):
    """An expired or foreign certificate is refused, with the remedy, and nothing starts."""
    server = folder / "kits" / "server"
    own = folder / "authority" / "ca.key", folder / "authority" / "ca.crt"
    other = folder / "o" / "ca.key", folder / "o" / "ca.crt"
    new_authority(*other, "other")
    for authority, days, reason in ((own, 0, "ended on .* --rotate server"),
                                    (other, 9, "not by this consortium's authority")):  # fmt: skip
        new_server_certificate(
            authority, server / "server.key", server / "server.crt", ["localhost"], days
        )
        for act in (lambda: provision(folder), lambda: SuperLink(folder).up()):
            with pytest.raises(CertificateError, match=reason):
                act()
    provision(folder, rotate="server")
    provision(folder)


def test_two_consortia_on_one_machine_need_two_health_ports(
    folder: Path,
):
    """Otherwise one would take the other's answers for its own."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with open(folder / FILE, "a") as file:
            file.write(f"health_port: {port}\n")
        with pytest.raises(SuperLinkError, match=f"port {port} .* is taken.* health_port in"):
            SuperLink(folder).up(patience=0)


def test_a_consortium_has_one_server(folder: Path):
    """The lock is free as soon as the other process has ended, however it ended."""

    def never(*_: object) -> Supervisor:
        raise AssertionError("a second server is starting")

    with locked(folder / UP), pytest.raises(SuperLinkError, match="is up already"):
        SuperLink(folder).up(patience=0, supervisor=never)


def test_a_superlink_whose_gateway_is_down_does_not_serve(
    folder: Path,
):
    """Hospitals come through the gateway, which may be down or have no SuperLink behind it."""
    provision(folder)
    with answering(folder / "kits" / "server") as port:
        reconfigured(folder, port)
        SuperLink(folder).check_health(lambda _: True)
        with pytest.raises(SuperLinkError, match="does not serve"):
            SuperLink(folder).check_health(lambda _: False)
    with pytest.raises(SuperLinkError, match=f"do not reach it at port {port}"):
        SuperLink(folder).check_health(lambda _: True)
    with answering(folder / "kits" / "server", status=503) as port:
        reconfigured(folder, port)
        with pytest.raises(SuperLinkError, match="HTTP 503"):
            SuperLink(folder).check_health(lambda _: True)


def reconfigured(folder: Path, port: int) -> None:
    """Give the server another port."""
    text = re.sub(r"^port: .*", f"port: {port}", (folder / FILE).read_text(), flags=re.MULTILINE)
    (folder / FILE).write_text(text)


def test_a_submission_that_never_began_leaves_its_folder_free(folder: Path, tmp_path: Path):
    """The SuperLink was down, say, and run.yaml was edited meanwhile."""

    def refuses(*_: object, **__: object) -> str:
        raise SuperLinkError("is not up")

    members(folder, north="0" * 32)
    file, out = tmp_path / "run.yaml", tmp_path / "run"
    for rounds in (2, 3):
        file.write_text(RUN.format(rounds=rounds))
        with pytest.raises(SuperLinkError, match="is not up"):
            submit(folder, file, out, refuses)
    (out / "run.json").write_text("{}")
    file.write_text(RUN.format(rounds=4))
    with pytest.raises(ConfigError, match="holds another run; choose another folder"):
        submit(folder, file, out, refuses)


def test_a_list_of_runs_that_cannot_be_written_costs_no_run(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """It has begun by then; only `consortium status` misses it."""

    def takes(arguments: Sequence[str], cwd: Path | None = None) -> str:
        if arguments[0] == "build":
            assert cwd is not None
            (cwd / "app.fab").write_bytes(b"bundle")
        return '{"run-id": 7}'

    provision(folder)
    (folder / RUNS).mkdir()
    (folder / RUNS / "in-the-way").touch()
    (tmp_path / "run.yaml").write_text(RUN.format(rounds=2))
    assert submit(folder, tmp_path / "run.yaml", tmp_path / "run", takes) == "7"
    assert "is not on the list" in caplog.text


def test_statements_of_consortium_and_run_come_into_the_run_folder(folder: Path, tmp_path: Path):
    """Those of the run replace those of the consortium one by one; the federation has neither."""

    def refuses(*_: object, **__: object) -> str:
        raise SuperLinkError("is not up")

    members(folder, north="0" * 32)
    with open(folder / FILE, "a") as yaml:
        yaml.write("about: {controllers: [North], purpose: All runs}\n")
    file, out = tmp_path / "run.yaml", tmp_path / "run"
    file.write_text(RUN.format(rounds=2) + "\nabout: {purpose: This run}\n")
    with pytest.raises(SuperLinkError, match="is not up"):
        submit(folder, file, out, refuses)
    stated = json.loads((out / "about.json").read_text())
    assert stated == {"controllers": ["North"], "purpose": "This run"}
    assert "This run" not in (out / "federation.json").read_text()


def test_a_site_cannot_be_called_server(folder: Path):
    """That name is the kit with the private key."""
    members(folder, server="0" * 32)
    with pytest.raises(ConfigError, match="cannot be called 'server'"):
        provision(folder)


def test_a_kit_as_zip_has_the_bytes_of_the_folder_and_always_the_same(folder: Path):
    """It holds the five files that a hospital unpacks, no secret and no program."""
    with zipfile.ZipFile(folder / "kits" / "north.zip") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
        dates = {entry.date_time for entry in archive.infolist()}
    assert dates == {(1980, 1, 1, 0, 0, 0)}
    assert set(held) == set(FILES)
    assert held == {f.name: f.read_bytes() for f in (folder / "kits" / "north").iterdir()}
    assert not [data for data in held.values() if b"PRIVATE" in data or b"#!" in data]
    texts = {name: data.decode() for name, data in held.items()}
    assert zipped(texts) == (folder / "kits" / "north.zip").read_bytes()
    assert not (folder / "kits" / "server.zip").exists()


class Flower:
    """A stand-in for Flower's command that keeps a list of the admitted nodes."""

    def __init__(self) -> None:
        self.nodes: dict[str, str] = {}
        self.down = False

    def __call__(self, arguments: list[str]) -> str:
        if self.down:
            raise MedFormerError("flwr supernode failed: away")
        if arguments[1] == "register":
            name = arguments[arguments.index("--name") + 1]
            number = str(100 + len(self.nodes))
            self.nodes[number] = f"{name} {Path(arguments[2]).read_text()}"
            return f'registered\n{{"node-id": {number}}}'
        assert arguments[1] == "unregister"
        del self.nodes[arguments[2]]
        return "done"

    def names(self) -> list[str]:
        return sorted(text.split()[0] for text in self.nodes.values())


def test_a_superlink_that_is_up_follows_the_kit(folder: Path):
    """A revoked node is excluded. A rotated one is admitted with its new key only. Without a change
    Flower is not asked. If Flower is away, the change is tried again, because a revoked key must
    not stay."""
    flower = Flower()
    admission = Admission(folder, flower)
    admission.follow()
    assert flower.names() == ["north", "south", "west"]
    revoke(folder, "west")
    flower.down = True
    admission.follow()
    assert flower.names() == ["north", "south", "west"]
    flower.down = False
    admission.follow()
    assert flower.names() == ["north", "south"]
    old = next(text for text in flower.nodes.values() if text.startswith("south"))
    members(folder, **{**fingerprints(folder), "south": joining(folder, "south")})
    provision(folder, rotate="south")
    admission.follow()
    assert flower.names() == ["north", "south"]
    assert old not in flower.nodes.values()
    flower.down = True  # would raise if it were asked
    admission.follow()
    again = Admission(folder, flower)  # a SuperLink that was started again
    again.follow()
    assert set(again.known()) == {"north", "south"}


def test_the_servers_script_finds_an_environment_or_says_which_it_looked_for(
    folder: Path, tmp_path: Path
):
    """FEDMEDFORMER_VENV comes first, and a wrong one is an error."""
    up = folder / "kits" / "server" / "up"
    assert os.access(up, os.X_OK)
    subprocess.run(["sh", "-n", str(up)], check=True)
    program = tmp_path / "a venv" / "bin" / "fedmedformer"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    run = {"capture_output": True, "text": True, "cwd": "/"}
    environment = {"FEDMEDFORMER_VENV": str(program.parents[1])}
    done = subprocess.run([str(up), "--debug"], env=environment, **run)
    assert done.stdout == f"consortium up {folder.resolve()} --debug\n", done
    done = subprocess.run([str(up)], env={"FEDMEDFORMER_VENV": "/nowhere"}, **run)
    assert (done.returncode, done.stdout) == (1, "")
    assert "FEDMEDFORMER_VENV is /nowhere" in done.stderr
    text = up.read_text()
    up.write_text(text.replace(f"{_prefix(text)}; do", "/nowhere; do"))
    done = subprocess.run([str(up)], env={"PATH": "/usr/bin:/bin"}, **run)
    assert done.returncode == 1
    assert "fedmedformer is installed neither in" in done.stderr


def _prefix(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("for venv")]
    return line.removesuffix("; do").split()[-1]
