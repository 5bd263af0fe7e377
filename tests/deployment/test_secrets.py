"""No private key leaves its file: it is in no kit, bundle, argument, output or log."""

import base64
import logging
import re
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_ssh_private_key,
)

from client.node.folder import Node
from medformer.common.files import is_secret
from medformer.common.processes import Supervisor
from medformer.errors import MedFormerError
from server.consortium.bundle import write_app
from simulations.cli import main

SHORTEST = 20
"""Characters of a key by which it is recognised."""


def private(path: Path) -> list[bytes]:
    """Return the private number of a key in pieces: as bytes, hexadecimal, decimal, and base64 in
    each alignment. The rest of a key file is mostly public."""
    data = path.read_bytes()
    load = load_ssh_private_key if b"OPENSSH" in data else load_pem_private_key
    key = load(data, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    raw = key.private_numbers().private_value.to_bytes((key.curve.key_size + 7) // 8, "big")
    forms = [raw.hex().encode(), str(int.from_bytes(raw, "big")).encode()]
    forms += [base64.b64encode(bytes(shift) + raw)[4:-4] for shift in range(3)]
    pieces = [f[i : i + SHORTEST] for f in forms for i in range(0, len(f) - SHORTEST, 4)]
    return [raw, *pieces]


def found(keys: dict[Path, list[bytes]], text: bytes) -> list[str]:
    flat = re.sub(rb"\s", b"", text)
    return [path.name for path, forms in keys.items() if any(f in text or f in flat for f in forms)]


def test_no_private_key_leaves_its_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    """It is searched for after all commands of a consortium and a hospital, errors included."""
    caplog.set_level(logging.DEBUG)
    hospital, consortium = tmp_path / "north", tmp_path / "lungs"
    output = ""

    def command(*words: str) -> None:
        nonlocal output
        try:
            main(list(words))
        except MedFormerError:  # what --debug shows
            output += traceback.format_exc()
        captured = capfd.readouterr()
        output += captured.out + captured.err

    command("site", "init", str(hospital), "--name", "north")
    fingerprint = re.findall(r"fingerprint of this site's key: (.*)", output)[0]
    command("consortium", "init", str(consortium), "--name", "lungs", "--host", "localhost")
    file = consortium / "consortium.yaml"
    file.write_text(file.read_text().replace("sites: {}", f"sites: {{north: {fingerprint}}}"))
    request = (hospital / "request.json").read_bytes()
    (consortium / "requests" / "north.json").write_bytes(request)
    command("consortium", "provision", str(consortium))
    (consortium / "kits" / "north").rename(hospital / "kit")
    command("site", "init", str(hospital), "--name", "north")  # refused: there is a key
    command("site", "status", str(hospital))  # refused: it is not up
    command("site", "up", str(hospital / "nowhere"), "--debug")
    command("consortium", "provision", str(tmp_path / "nowhere"))

    secrets = [hospital / "node.key", consortium / "authority" / "ca.key",
               consortium / "kits" / "server" / "server.key"]  # fmt: skip
    assert all(is_secret(path) for path in secrets)
    keys = {path: private(path) for path in secrets}
    for path, forms in keys.items():
        assert len(forms) > 8
        assert found(keys, path.read_bytes()) == [path.name]  # the search is not blind

    node = Node(hospital)
    words = [word for line in node.commands(9194).values() for word in line]
    bundle = write_app(tmp_path / "app")
    probe = 'import sys; print(sys.argv); print(open(sys.argv[1], "rb").read(0))'
    commands = {"probe": [words[0], "-c", probe, str(hospital / "node.key")]}
    supervisor = Supervisor(commands, hospital / "logs")
    supervisor.run(lambda started: started.stop())
    others = [p for p in tmp_path.rglob("*") if p.is_file() and p not in secrets]
    assert bundle / "pyproject.toml" in others
    for path in others:
        assert not found(keys, path.read_bytes()), path
    for text in ("\n".join(words), output, caplog.text):
        assert not found(keys, text.encode())
