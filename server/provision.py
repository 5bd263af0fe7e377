"""consortium.yaml -> authority, server certificate and a start-up kit for every site.

A hospital makes its own key and sends a request; what makes it a member is its key's fingerprint in
consortium.yaml, read out by telephone. No kit holds a private key but the server's.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from medformer.config import Frozen, Name
from medformer.errors import ConfigError
from medformer.files import replace_file
from medformer.settings import explain, parse_yaml, read_yaml
from server.authority import new_authority, new_server_certificate
from server.protocol import JoinRequest, fingerprint, grouped

FILE = "consortium.yaml"
KIT = "kit.json"
TEMPLATE = """\
# What this consortium is. `fedmedformer consortium provision` reads it.
name: {name}

# Names and addresses by which hospitals reach the server; they are in its certificate.
hosts: [{hosts}]

# One port for everything, HTTPS. Hospitals dial out to it; nobody dials a hospital.
port: 9092

# After so many days `provision --rotate server` makes a new certificate; nothing changes at the
# hospitals.
certificate_days: 365

# Members: the site's name, and the fingerprint that `fedmedformer site init` printed there. Let
# them read it to you by telephone; put the request.json they send into requests/NAME.json.
sites: {{}}
#  north: "8c1f 02aa 9b7e 4410 5d3c e0f1 77aa 1b2c"
"""


def _spaced(text: str) -> str:
    """A fingerprint however it was typed."""
    plain = "".join(text.split()).lower()
    if len(plain) != 32 or not set(plain) <= set("0123456789abcdef"):
        raise ValueError(f"a fingerprint has 32 digits 0-9 a-f, got {text!r}")
    return grouped(plain)


Fingerprint = Annotated[str, AfterValidator(_spaced)]


class Consortium(Frozen):
    """consortium.yaml."""

    name: Name
    hosts: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")], ...] = Field(
        min_length=1
    )
    listen: str = "0.0.0.0"
    """Address of this machine that the server listens at."""
    port: int = Field(default=9092, ge=1, le=65_535)
    certificate_days: int = Field(default=365, ge=1, le=825)
    sites: dict[Name, Fingerprint] = Field(default_factory=dict)


@dataclass(frozen=True)
class Provisioned:
    """What `provision` did, for people."""

    kits: tuple[str, ...]
    missing: tuple[str, ...]
    """Members whose request has not come yet."""


def init(folder: Path, name: str, hosts: tuple[str, ...]) -> Path:
    """Write a commented consortium.yaml.

    Raises:
        ConfigError: There is one already, or the name or a host is impossible.
    """
    file = folder / FILE
    if file.exists():
        raise ConfigError(f"{file}: is there already; edit it, then run provision")
    text = TEMPLATE.format(name=name, hosts=", ".join(hosts))
    try:
        Consortium.model_validate(parse_yaml(text))
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error, Consortium)}") from error
    (folder / "requests").mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def load(folder: Path) -> Consortium:
    """Read consortium.yaml.

    Raises:
        ConfigError: Missing, not YAML, unknown key, wrong type or value.
    """
    return read_yaml(folder / FILE, Consortium)


def provision(folder: Path, *, rotate_server: bool = False) -> Provisioned:
    """Make what is missing: authority, server certificate, a kit a member whose request is here.

    Kits of those who are no members any more are deleted, and their keys leave the server's kit:
    that is how a node is revoked, and a changed fingerprint with a new request how its key is
    rotated. Other kits keep every byte.

    Args:
        rotate_server: A new server key and certificate, of the same authority.
    Raises:
        ConfigError: consortium.yaml cannot be used, or a request is not the member's.
        AuthorityError: A key or certificate cannot be made.
    """
    consortium = load(folder)
    authority = folder / "authority" / "ca.key", folder / "authority" / "ca.crt"
    if not authority[0].exists():
        authority[0].parent.mkdir(mode=0o700, exist_ok=True)
        new_authority(*authority, consortium.name)
    requests = {
        name: request
        for name, told in consortium.sites.items()
        if (request := _request(folder, name, told)) is not None
    }
    kits = folder / "kits"
    server = kits / "server"
    server.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = _hosts_of(server)
    if rotate_server or known != consortium.hosts:
        # Flower's own processes at the server dial the loopback address, over TLS as well.
        hosts = tuple(dict.fromkeys((*consortium.hosts, "localhost", "127.0.0.1")))
        files = server / "server.key", server / "server.crt"
        new_server_certificate(authority, *files, hosts, consortium.certificate_days)
        replace_file(server / "hosts.json", json.dumps(consortium.hosts).encode())
    _mirror(server / "nodes", {f"{n}.pub": r.public_key + "\n" for n, r in requests.items()})
    replace_file(server / "ca.crt", authority[1].read_bytes())
    for old in kits.iterdir():
        if old.name != "server" and old.name not in requests:
            shutil.rmtree(old)
    for name in requests:
        _site_kit(kits / name, consortium, name, authority[1].read_bytes())
    missing = tuple(name for name in consortium.sites if name not in requests)
    return Provisioned(("server", *requests), missing)


def _request(folder: Path, name: str, told: str) -> JoinRequest | None:
    """A member's request, if it has come and is the member's own."""
    file = folder / "requests" / f"{name}.json"
    if not file.exists():
        return None
    try:
        request = JoinRequest.model_validate_json(file.read_bytes())
        shown = fingerprint(request.public_key)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error, JoinRequest)}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: its public_key {error}") from error
    if request.site != name:
        raise ConfigError(f"{file}: is a request of the site {request.site!r}, not of {name!r}")
    if shown != told:
        raise ConfigError(
            f"{file}: its key has the fingerprint {shown}, {FILE} says {told}: somebody else's "
            "key, or a typing error. Ask the hospital again by telephone"
        )
    return request


def _hosts_of(server: Path) -> tuple[str, ...] | None:
    """Hosts of the certificate that is there."""
    try:
        names = json.loads((server / "hosts.json").read_bytes())
    except (OSError, ValueError):
        return None
    there = (server / "server.crt").exists() and (server / "server.key").exists()
    return tuple(names) if there else None


def _mirror(folder: Path, files: Mapping[str, str]) -> None:
    """Exactly these files in a folder."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.name not in files:
            old.unlink()
    for name, text in files.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:
            replace_file(folder / name, text.encode())


def _site_kit(folder: Path, consortium: Consortium, name: str, authority: bytes) -> None:
    """What a hospital needs of the consortium; nothing in it is secret."""
    folder.mkdir(exist_ok=True)
    facts = {
        "consortium": consortium.name,
        "site": name,
        "hosts": consortium.hosts,
        "port": consortium.port,
    }
    files = {
        KIT: json.dumps(facts, indent=1) + "\n",
        "ca.crt": authority.decode(),
        "README.md": README.format(name=name, consortium=consortium.name),
    }
    _mirror(folder, files)


README = """\
# {name} in the consortium {consortium}

This folder tells the hospital's node how to reach the consortium. It holds no secret.

1. Put it beside your own site.yaml and policy.yaml, as `kit`.
2. `fedmedformer site check site.yaml` reads your data and prints a data card for your own eyes.
3. `fedmedformer site up` starts the guard and the node.

`ca.crt` is the consortium's authority: your node talks to nobody whose certificate it has not made.
"""
