"""Makes a consortium from consortium.yaml: its authority, its server's certificate, its kits.

A hospital makes its own key and sends a request. It becomes a member when the fingerprint of its
key, read out by telephone, is in consortium.yaml. The server's kit is the only one with a private
key.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from medformer.common import certificate as certificates
from medformer.common.files import replace_file
from server.consortium import members
from server.consortium.authority import new_authority, new_server_certificate
from server.consortium.declarations import Consortium, load
from server.consortium.hub import new_signer, signer_of
from server.consortium.kits import mirror, replace_if_other, server_files, site_kit
from server.protocol import JoinRequest, fingerprint

SIGNER = Path("authority") / "bundle.key"
"""The key that signs start-up kits and app bundles; nodes run no other bundle."""


@dataclass(frozen=True)
class Provisioned:
    """The result of `provision`, for the operator."""

    kits: tuple[str, ...]
    """Names of the kits that are ready."""
    missing: tuple[str, ...]
    """Members whose request has not come yet."""
    revoked: tuple[str, ...]
    """Members in consortium.yaml whose key was revoked."""
    signer: str
    """Fingerprint of the signing key, for the hospitals' policy.yaml."""


def provision(folder: Path, *, rotate: str | None = None) -> Provisioned:
    """Make what is missing: authority, server certificate, and a kit for each request.

    Kits of former members are deleted, and their keys leave the server's kit. The other kits keep
    every byte. A revoked key stays out, whatever consortium.yaml says.

    Args:
        folder: Folder of the consortium.
        rotate: `server` makes a new server key and certificate of the same authority. A member's
            name puts its new key in place of the old one, and looks at no other member.
    Raises:
        ConfigError: consortium.yaml cannot be used, or a request is not the member's.
        AuthorityError: A key or certificate cannot be made.
        CertificateError: The server's certificate has expired, or is of another authority.
    """
    consortium = load(folder)
    # One member's new key must not wait for what is wrong with the others.
    if rotate not in (None, "server"):
        members.rotate(folder, rotate, consortium.sites)
        _site_kit(folder, consortium, rotate)
        return Provisioned((rotate,), (), (), _signer_fingerprint(folder))
    _make_keys(folder, consortium)
    out = members.revoked(folder)
    requests = _requests(folder, consortium, out)
    _server_kit(folder, consortium, requests, renew=rotate == "server")
    kits = folder / "kits"
    for old in kits.iterdir():
        if (name := old.name.removesuffix(".zip")) != "server" and name not in requests:
            members.drop_kit(kits, name)
    for name in requests:
        _site_kit(folder, consortium, name)
    return Provisioned(
        kits=("server", *requests),
        missing=tuple(n for n, k in consortium.sites.items() if n not in requests and k not in out),
        revoked=tuple(n for n, k in consortium.sites.items() if k in out),
        signer=_signer_fingerprint(folder),
    )


def check_certificate(folder: Path, consortium: Consortium) -> None:
    """Check that hospitals will accept the server's certificate.

    Args:
        folder: Folder of the consortium.
        consortium: As consortium.yaml has it.
    Raises:
        CertificateError: It has expired, is of another authority, or lacks a host's name.
    """
    certificate = (folder / "kits" / "server" / "server.crt").read_bytes()
    authority = (folder / "authority" / "ca.crt").read_bytes()
    for host in consortium.hosts:
        certificates.check_certificate(certificate, authority, host)


def _authority(folder: Path) -> tuple[Path, Path]:
    """Return the files of the authority's key and certificate."""
    return folder / "authority" / "ca.key", folder / "authority" / "ca.crt"


def _make_keys(folder: Path, consortium: Consortium) -> None:
    """Make the authority and the signing key, unless they are there."""
    key, certificate = _authority(folder)
    if not key.exists():  # never replaced: every kit holds the authority's certificate
        key.parent.mkdir(mode=0o700, exist_ok=True)
        new_authority(key, certificate, consortium.name)
    if not (folder / SIGNER).exists():
        new_signer(folder / SIGNER)


def _requests(
    folder: Path, consortium: Consortium, revoked: Collection[str]
) -> dict[str, JoinRequest]:
    """Read the requests that have come, of members whose key is not revoked."""
    return {
        name: request
        for name, key in consortium.sites.items()
        if key not in revoked and (request := members.request_of(folder, name, key)) is not None
    }


def _server_kit(
    folder: Path, consortium: Consortium, requests: Mapping[str, JoinRequest], *, renew: bool
) -> None:
    """Write the server's kit: certificate, the members' keys, and what runs the server."""
    server = folder / "kits" / "server"
    server.mkdir(parents=True, exist_ok=True, mode=0o700)
    if renew or _certified_hosts(server) != consortium.hosts:
        # Flower's own processes at the server dial the loopback address, over TLS as well.
        hosts = tuple(dict.fromkeys((*consortium.hosts, "localhost", "127.0.0.1")))
        files = server / "server.key", server / "server.crt"
        new_server_certificate(_authority(folder), *files, hosts, consortium.certificate_days)
        replace_file(server / "hosts.json", json.dumps(consortium.hosts).encode())
    check_certificate(folder, consortium)  # before members are changed
    mirror(server / "nodes", {f"{n}.pub": r.public_key + "\n" for n, r in requests.items()})
    replace_file(server / "ca.crt", _authority(folder)[1].read_bytes())
    running = server_files(folder, consortium.name, consortium.port, consortium.health_port)
    for name, text in running.items():
        replace_if_other(server / name, text.encode())
    (server / "up").chmod(0o755)


def _signer_fingerprint(folder: Path) -> str:
    return fingerprint(signer_of(folder / SIGNER), "signer")


def _site_kit(folder: Path, consortium: Consortium, name: str) -> None:
    """Write one hospital's kit."""
    facts = {
        "consortium": consortium.name,
        "site": name,
        "hosts": consortium.hosts,
        "port": consortium.port,
        # Kits of consortia that name none keep every byte.
        **({"guards": consortium.guards} if consortium.guards else {}),
    }
    authority = _authority(folder)[1].read_bytes()
    site_kit(folder / "kits", name, facts, authority, folder / SIGNER)


def _certified_hosts(server: Path) -> tuple[str, ...] | None:
    """Return the hosts of the server's certificate; None if key or certificate is missing."""
    try:
        names = json.loads((server / "hosts.json").read_bytes())
    except (OSError, ValueError):
        return None
    there = (server / "server.crt").exists() and (server / "server.key").exists()
    return tuple(names) if there else None
