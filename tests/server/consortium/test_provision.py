"""Provisioning: a fingerprint that was read out by telephone decides who is a member, and other
members keep every byte."""

import hashlib
import json
import stat
from pathlib import Path

import pytest

from client.node.joining import init as site_init
from medformer.common.certificate import check_certificate
from medformer.errors import ConfigError
from server.consortium.declarations import init, load
from server.consortium.kits import KIT
from server.consortium.provision import provision
from simulations.commands.verify import _of_kit


def joining(folder: Path, name: str) -> str:
    """Make a hospital's key and its request; return the fingerprint that it reads out."""
    hospital = folder.parent / f"hospital-{name}"
    (hospital / "node.key").unlink(missing_ok=True)
    shown = site_init(hospital, name)
    (folder / "requests" / f"{name}.json").write_bytes((hospital / "request.json").read_bytes())
    return shown


def members(folder: Path, **sites: str) -> None:
    text = (folder / "consortium.yaml").read_text().split("sites:")[0]
    (folder / "consortium.yaml").write_text(f"{text}sites: {json.dumps(sites)}\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init(tmp_path / "c", "lungs", ("localhost", "127.0.0.1"))
    return tmp_path / "c"


def bytes_of(kit: Path) -> dict[str, str]:
    return {
        str(f.relative_to(kit)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(kit.rglob("*"))
        if f.is_file()
    }


def test_from_an_empty_folder_to_kits(folder: Path):
    """It makes commented YAML, then authority, server and a kit for each request that has come."""
    assert load(folder).sites == {}
    assert "by telephone" in (folder / "consortium.yaml").read_text()
    keys = {name: joining(folder, name) for name in ("north", "south")}
    members(folder, **keys, west="0" * 32)
    done = provision(folder)
    assert done.kits == ("server", "north", "south")
    assert done.missing == ("west",)
    kit = folder / "kits" / "north"
    assert json.loads((kit / KIT).read_text()) == {
        "consortium": "lungs", "site": "north", "hosts": ["localhost", "127.0.0.1"], "port": 9092,
    }  # fmt: skip
    server = folder / "kits" / "server"
    check_certificate(
        (server / "server.crt").read_bytes(), (kit / "ca.crt").read_bytes(), "localhost"
    )
    assert sorted(f.name for f in (server / "nodes").iterdir()) == ["north.pub", "south.pub"]
    secrets = [f for f in folder.rglob("*") if f.is_file() and b"PRIVATE KEY" in f.read_bytes()]
    assert sorted(str(f.relative_to(folder)) for f in secrets) == [
        "authority/bundle.key", "authority/ca.key", "kits/server/server.key",
    ]  # fmt: skip
    for secret in secrets:
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    before = bytes_of(folder)
    provision(folder)
    assert bytes_of(folder) == before


def test_a_member_leaves_or_gets_a_new_key_and_the_others_keep_every_byte(folder: Path):
    """A former member loses its kit and its key at the server. With a new key only that key
    changes."""
    keys = {name: joining(folder, name) for name in ("north", "south", "west")}
    members(folder, **keys)
    provision(folder)
    before = {name: bytes_of(folder / "kits" / name) for name in ("north", "south", "server")}
    keys["south"] = joining(folder, "south")
    del keys["west"]
    members(folder, **keys)
    provision(folder)
    after = {name: bytes_of(folder / "kits" / name) for name in ("north", "south", "server")}
    assert after["north"] == before["north"]
    assert not (folder / "kits" / "west").exists()
    changed = {k for k in before["server"] if after["server"].get(k) != before["server"][k]}
    assert changed == {"nodes/south.pub", "nodes/west.pub"}


def test_the_servers_certificate_is_rotated_or_gets_another_host(folder: Path):
    """The authority stays; kits change only in the hosts that they name."""
    members(folder, north=joining(folder, "north"))
    provision(folder)
    server, north = folder / "kits" / "server", bytes_of(folder / "kits" / "north")
    first = (server / "server.crt").read_bytes()
    provision(folder, rotate="server")
    second = (server / "server.crt").read_bytes()
    assert second != first
    assert bytes_of(folder / "kits" / "north") == north
    file = folder / "consortium.yaml"
    file.write_text(file.read_text().replace("[localhost,", "[fl.example.org,"))
    provision(folder)
    third = (server / "server.crt").read_bytes()
    check_certificate(third, (server / "ca.crt").read_bytes(), "fl.example.org")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda f: joining(f, "north"), "its key has the fingerprint .* but consortium.yaml has"),
        (lambda f: (f / "requests" / "north.json").write_text("{"), "Invalid JSON"),
        (lambda f: (f / "requests" / "north.json").write_text('{"site": "n", "public_kee": "x"}'),
         "unknown key `public_kee`. Did you mean `public_key`"),
        (lambda f: (f / "requests" / "north.json").write_text(
            '{"site": "north", "public_key": "ssh-rsa x"}'), "its public_key is not a public key"),
        (lambda f: (f / "requests" / "north.json").write_text(
            (f / "requests" / "north.json").read_text().replace("north", "south")),
         "is a request of the site 'south'"),
        (lambda f: members(f, north="12 34"), "a fingerprint has 32 digits"),
        (lambda f: members(f, **{"../up": "0" * 32}), "up"),
        (lambda f: (f / "consortium.yaml").write_text("nam: x"), "Did you mean `name`"),
        (lambda f: (f / "consortium.yaml").unlink(), "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_is_lost(folder: Path, harm, reason: str):
    """Existing kits do not change."""
    members(folder, north=joining(folder, "north"))
    provision(folder)
    before = bytes_of(folder / "kits")
    harm(folder)
    with pytest.raises(ConfigError, match=reason):
        provision(folder)
    assert bytes_of(folder / "kits") == before


def test_a_consortium_is_not_begun_twice(folder: Path):
    """An edited consortium.yaml is kept."""
    with pytest.raises(ConfigError, match="exists already"):
        init(folder, "other", ("localhost",))


def test_a_kit_names_the_guards_and_verify_takes_them_from_it(folder: Path):
    """Its signature covers them: the coordinator was told, and nobody has changed it since."""
    keys = {name: joining(folder, name) for name in ("north", "south")}
    guard = "7c1e 09aa 5d3f 2b61 e480 1f0c 93d7 66be"
    members(folder, **keys)
    before = provision(folder) and bytes_of(folder / "kits" / "north")
    text = (folder / "consortium.yaml").read_text().replace("guards: {}", "")
    (folder / "consortium.yaml").write_text(f"{text}guards: {json.dumps({'south': guard})}\n")
    done = provision(folder)
    kit = folder / "kits" / "north"
    assert bytes_of(kit) != before
    assert _of_kit(kit) == (done.signer, {"south": guard})
    facts = (kit / KIT).read_text()
    (kit / KIT).write_text(facts.replace("7c1e", "0000"))
    with pytest.raises(ConfigError, match="was changed after the consortium signed it"):
        _of_kit(kit)
    (folder / "consortium.yaml").write_text(f"{text}guards: {json.dumps({'west': guard})}\n")
    with pytest.raises(ConfigError, match="'west' is no member"):
        provision(folder)
