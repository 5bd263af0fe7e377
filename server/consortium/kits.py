"""Start-up kits: what a hospital gets of its consortium, and what keeps the server running.

A hospital's kit is a page to read, and data that the signer's key vouches for: facts, authority,
trusted key. It holds no secret and nothing that is run: units and scripts are made at the hospital
by the code that is installed there (`fedmedformer site install`). The server's kit never leaves its
machine, because its private key is in it, and so there is no zip of it.
"""

import io
import json
import pwd
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medformer.common.files import replace_file
from medformer.common.systemd import (
    CONTAINERFILE,
    compose,
    healthcheck,
    mount,
    plain,
    unit,
    up_script,
)
from server.consortium.hub import sign_kit, signer_of
from server.protocol import key_id

KIT = "kit.json"
UNIT = "fedmedformer-superlink.service"
SERVER_USER = "fedmedformer-server"
README = """\
# {name} in the consortium {consortium}

This kit tells the hospital's node how to reach the consortium, at port {port} of {hosts}, HTTPS. It
holds no secret, and nothing that is run.

    fedmedformer site init {name} --kit {name}.zip      # {name}: the folder that site init made
    fedmedformer site check {name}/site.yaml            # your data, for your own eyes
    fedmedformer site up {name}

Write the fingerprint of the consortium's signing key into policy.yaml as they read it to you by
telephone: it vouches for this kit and for all code that the node may run. `ca.crt` is the
consortium's authority: your node talks to nobody whose certificate it has not made.

As services, with a user of its own each for guard and node: `sudo fedmedformer site install {name}`
writes units, a compose file and a page on both, and on proxies. The hospital dials out only.
"""
SERVER = """\
# The server of {consortium}

Written by `fedmedformer consortium provision {folder}`; it stays on this machine, because
`server.key` is in it. `nodes/` holds the keys that are let in: a SuperLink that is up follows it
within seconds. Hospitals get `{folder}/kits/NAME.zip`.

With systemd, as the user {user}, who owns {folder}{make}:

    systemctl enable --now {folder}/kits/server/{unit}
    fedmedformer consortium status {folder}
    journalctl -u {unit}

With containers: put the wheel of fedmedformer into this folder, then

    podman-compose -f {folder}/kits/server/compose.yaml up -d --build    # or docker compose

By hand: `{folder}/kits/server/up`.

Either way the service cannot see `{folder}/authority`, whose keys make certificates and sign
bundles: `consortium provision` and `consortium submit` use them, typed by the same user. Run
folders go below `{folder}`. Port {port} is the only one that hospitals need; health is asked at
127.0.0.1:{health}.
"""


def site_kit(
    kits: Path, name: str, facts: Mapping[str, Any], authority: bytes, signer: Path
) -> None:
    """A hospital's kit, as a folder and as a zip of the same bytes; the same for the same facts.

    Args:
        kits: Folder of all kits.
        facts: Consortium, site, hosts and port.
        authority: Certificate, PEM.
        signer: The private key that vouches for it.
    Raises:
        AuthorityError: The key cannot be read.
    """
    text = json.dumps(facts, indent=1) + "\n"
    public = signer_of(signer)
    files = {
        KIT: text,
        "kit.sig": sign_kit(text.encode(), authority, signer) + "\n",
        "ca.crt": authority.decode(),
        "trusted.yaml": f'{key_id(public)}: "{public}"\n',
        "README.md": README.format(name=name, **{**facts, "hosts": " or ".join(facts["hosts"])}),
    }
    mirror(kits / name, files)
    replace_if_other(kits / f"{name}.zip", zipped(files))


def zipped(files: Mapping[str, str]) -> bytes:
    """A zip of the same bytes whenever the files are the same."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def server_files(folder: Path, consortium: str, port: int, health: int) -> dict[str, str]:
    """Name -> text of what keeps the SuperLink running.

    Args:
        folder: The consortium's.
    Raises:
        ConfigError: The folder's path cannot stand in a unit.
    """
    home, program = plain(folder), plain(Path(sys.prefix) / "bin" / "fedmedformer")
    user, number = _owner(home)
    service = {
        "User": user,
        "ExecStart": f"{program} consortium up {home}",
        "WorkingDirectory": str(home),
        "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
        "ReadWritePaths": str(home),
        "InaccessiblePaths": f"{home}/authority",
    }
    container = {
        "command": ["consortium", "up", str(home)],
        "user": number,
        "ports": [f"{port}:{port}"],
        "volumes": [mount(home, str(home), write=True)],
        "tmpfs": ["/tmp", f"{home}/authority"],
        "healthcheck": healthcheck("consortium", "status", str(home), "--health"),
    }
    make = f" (useradd --system {user}; chown -R {user} {home})" if user == SERVER_USER else ""
    return {
        UNIT: unit(f"FedMedformer server of {consortium}", ("network-online.target",), service,
                   [home, program]),
        "compose.yaml": compose(f"The server of {consortium}.", {"superlink": container}),
        "Containerfile": CONTAINERFILE.format(extras=""),
        "README.md": SERVER.format(consortium=consortium, folder=home, user=user, make=make,
                                   unit=UNIT, port=port, health=health),
        "up": up_script("Starts the consortium's server", "consortium up", "../.."),
    }  # fmt: skip


def mirror(folder: Path, files: Mapping[str, str]) -> None:
    """Exactly these files in a folder."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.name not in files:
            old.unlink()
    for name, text in files.items():
        replace_if_other(folder / name, text.encode())


def replace_if_other(file: Path, data: bytes) -> None:
    """Write a file unless it holds just that."""
    if not file.exists() or file.read_bytes() != data:
        replace_file(file, data)


def _owner(folder: Path) -> tuple[str, str]:
    """Who owns a folder, for a unit and for a container; a user that is yet to be made for root."""
    found = folder.stat()
    if found.st_uid == 0:
        ask = "${FEDMEDFORMER_USER:?number of the user who owns the folder}"
        return SERVER_USER, ask
    try:
        return pwd.getpwuid(found.st_uid).pw_name, f"{found.st_uid}:{found.st_gid}"
    except KeyError:
        return str(found.st_uid), f"{found.st_uid}:{found.st_gid}"
