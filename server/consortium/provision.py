"""consortium.yaml -> authority, server certificate and a start-up kit for every site.

A hospital makes its own key and sends a request; what makes it a member is its key's fingerprint in
consortium.yaml, read out by telephone. No kit holds a private key but the server's.
"""

import json
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StrictFloat, StrictInt, ValidationError, model_validator

from medformer.common import certificate as certificates
from medformer.common.files import replace_file
from medformer.common.yaml_file import explain, parse_yaml, read_yaml
from medformer.config import Frozen, Name
from medformer.errors import ConfigError
from server.consortium import members
from server.consortium.authority import new_authority, new_server_certificate
from server.consortium.hub import new_signer, signer_of
from server.consortium.kits import mirror, replace_if_other, server_files, site_kit
from server.protocol import NAME, fingerprint, spaced

FILE = "consortium.yaml"
SIGNER = Path("authority") / "bundle.key"
"""Signs the app bundle; nodes run no other."""
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


Fingerprint = Annotated[str, AfterValidator(spaced)]


def _host(text: str) -> str:
    """A name or an address, without a port: it goes into the server's certificate as it is."""
    part = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123, 2.1
    named = len(text) <= 253 and re.fullmatch(rf"{part}(\.{part})*", text)
    if named and not re.fullmatch(r"[0-9.]+", text):
        return text
    try:
        return str(ip_address(text))
    except ValueError:
        port = re.fullmatch(r"[A-Za-z0-9.-]+:([0-9]+)", text)
        url = re.match(r"[a-z]+://([^/:]+)", text)
        more = f": write the port as `port: {port[1]}`" if port else ""
        more = f": write {url[1]}" if url else more
        raise ValueError(f"{text!r} is no host name and no IP address{more}") from None


def _dialled(text: str) -> str:
    """A host by which hospitals reach the server."""
    host = _host(text)
    if host in ("0.0.0.0", "::"):
        raise ValueError(f"{text!r} is where a server listens, and nobody can dial it")
    return host


def _member(name: str) -> str:
    """The names under which sites can ask to join."""
    if not re.fullmatch(NAME, name):
        raise ValueError(
            f"{name!r} is no site's name: use 1 to 40 small letters, digits or '-', starting with "
            "a letter or digit"
        )
    return name


class Consortium(Frozen):
    """consortium.yaml."""

    name: Name
    hosts: tuple[Annotated[str, AfterValidator(_dialled)], ...] = Field(min_length=1)
    listen: Annotated[str, AfterValidator(_host)] = "0.0.0.0"
    """Address of this machine that the server listens at."""
    port: StrictInt = Field(default=9092, ge=1, le=65_535)
    health_port: StrictInt = Field(default=9095, ge=1, le=65_535)
    """Of the SuperLink's health service, on this machine only."""
    start_seconds: StrictFloat = Field(default=60, gt=0, le=10_000)
    """In which the SuperLink has to start, and after a submission the run's process; Flower's own
    command may take twice as long to answer."""
    certificate_days: StrictInt = Field(default=365, ge=1, le=825)
    sites: dict[Annotated[str, AfterValidator(_member)], Fingerprint] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _two_ports(self) -> "Consortium":
        if self.port == self.health_port:
            raise ValueError(f"port and health_port are both {self.port}: give another health_port")
        return self

    @model_validator(mode="after")
    def _no_site_is_the_server(self) -> "Consortium":
        if "server" in self.sites:
            raise ValueError("a site cannot be called 'server', which is the server's kit")
        return self


@dataclass(frozen=True)
class Provisioned:
    """What `provision` did, for people."""

    kits: tuple[str, ...]
    missing: tuple[str, ...]
    """Members whose request has not come yet."""
    revoked: tuple[str, ...]
    """Members in consortium.yaml whose key was revoked."""
    signer: str
    """Fingerprint of the signing key, for the hospitals' policy.yaml."""


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
    replace_file(file, text.encode())
    return file


def load(folder: Path) -> Consortium:
    """Read consortium.yaml.

    Raises:
        ConfigError: Missing, not YAML, unknown key, wrong type or value.
    """
    found = read_yaml(folder / FILE, Consortium)
    names: dict[str, str] = {}
    for name, key in found.sites.items():
        if (other := names.setdefault(key, name)) != name:
            raise ConfigError(
                f"{folder / FILE}: sites {other!r} and {name!r} have one fingerprint: each has a "
                "key of its own"
            )
    return found


def provision(folder: Path, *, rotate: str | None = None) -> Provisioned:
    """Make what is missing: authority, server certificate, a kit a member whose request is here.

    Kits of those who are no members any more are deleted, and their keys leave the server's kit.
    Other kits keep every byte. A key that was revoked stays out, whatever consortium.yaml says.

    Args:
        rotate: `server`, a new server key and certificate of the same authority; or a member, whose
            new key takes the place of its old one while nothing of the others is looked at.
    Raises:
        ConfigError: consortium.yaml cannot be used, or a request is not the member's.
        AuthorityError: A key or certificate cannot be made.
        CertificateError: The server's has ended, or is of another authority.
    """
    consortium = load(folder)
    authority = folder / "authority" / "ca.key", folder / "authority" / "ca.crt"
    kits = folder / "kits"
    server = kits / "server"
    if rotate not in (None, "server"):
        members.rotate(folder, rotate, consortium.sites)
        _site_kit(folder, consortium, rotate)
        return Provisioned((rotate,), (), (), _told_signer(folder))
    if not authority[0].exists():
        authority[0].parent.mkdir(mode=0o700, exist_ok=True)
        new_authority(*authority, consortium.name)
    if not (folder / SIGNER).exists():
        new_signer(folder / SIGNER)
    out = members.revoked(folder)
    requests = {
        name: request
        for name, told in consortium.sites.items()
        if told not in out and (request := members.request_of(folder, name, told)) is not None
    }
    server.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = _hosts_of(server)
    if rotate == "server" or known != consortium.hosts:
        # Flower's own processes at the server dial the loopback address, over TLS as well.
        hosts = tuple(dict.fromkeys((*consortium.hosts, "localhost", "127.0.0.1")))
        files = server / "server.key", server / "server.crt"
        new_server_certificate(authority, *files, hosts, consortium.certificate_days)
        replace_file(server / "hosts.json", json.dumps(consortium.hosts).encode())
    check_certificate(folder, consortium)
    mirror(server / "nodes", {f"{n}.pub": r.public_key + "\n" for n, r in requests.items()})
    replace_file(server / "ca.crt", authority[1].read_bytes())
    running = server_files(folder, consortium.name, consortium.port, consortium.health_port)
    for name, text in running.items():
        replace_if_other(server / name, text.encode())
    (server / "up").chmod(0o755)
    for old in kits.iterdir():
        if (name := old.name.removesuffix(".zip")) != "server" and name not in requests:
            members.drop_kit(kits, name)
    for name in requests:
        _site_kit(folder, consortium, name)
    return Provisioned(
        kits=("server", *requests),
        missing=tuple(n for n, t in consortium.sites.items() if n not in requests and t not in out),
        revoked=tuple(n for n, t in consortium.sites.items() if t in out),
        signer=_told_signer(folder),
    )


def check_certificate(folder: Path, consortium: Consortium) -> None:
    """Whether hospitals will believe the server.

    Raises:
        CertificateError: It has ended, is of another authority, or of other names.
    """
    certificate = (folder / "kits" / "server" / "server.crt").read_bytes()
    authority = (folder / "authority" / "ca.crt").read_bytes()
    for host in consortium.hosts:
        certificates.check_certificate(certificate, authority, host)


def _told_signer(folder: Path) -> str:
    return fingerprint(signer_of(folder / SIGNER), "signer")


def _site_kit(folder: Path, consortium: Consortium, name: str) -> None:
    facts = {
        "consortium": consortium.name,
        "site": name,
        "hosts": consortium.hosts,
        "port": consortium.port,
    }
    authority = (folder / "authority" / "ca.crt").read_bytes()
    site_kit(folder / "kits", name, facts, authority, folder / SIGNER)


def _hosts_of(server: Path) -> tuple[str, ...] | None:
    """Hosts of the certificate that is there."""
    try:
        names = json.loads((server / "hosts.json").read_bytes())
    except (OSError, ValueError):
        return None
    there = (server / "server.crt").exists() and (server / "server.key").exists()
    return tuple(names) if there else None
