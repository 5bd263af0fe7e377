"""Start-up kits: one for each hospital, and one that runs the server.

A hospital's kit holds a page to read and signed data: facts, authority, trusted key. It holds no
secret and no program. Units and scripts are made at the hospital, by the code that is installed
there (`fedmedformer site install`). The server's kit holds the server's private key, so it never
leaves its machine, and there is no zip of it.
"""

import io
import json
import pwd
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
    program,
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

This kit tells the hospital's node how to reach the consortium: HTTPS, port {port} of {hosts}. It
holds no secret and no program.

    fedmedformer site init {name} --kit {name}.zip      # {name}: the folder that site init made
    fedmedformer site check {name}/site.yaml            # checks your data; the result stays here
    fedmedformer site up {name}

Ask the consortium by telephone for the fingerprint of its signing key, and write it into
policy.yaml. That key signs this kit and all code that your node may run. `ca.crt` is the
certificate of the consortium's authority: your node talks only to servers that it has certified.

To run guard and node as services, each with its own user:

    sudo fedmedformer site install {name}

This writes systemd units, a compose file, and a page about both and about proxies. The hospital
only makes outgoing connections.
"""
SERVER = """\
# The server of {consortium}

`fedmedformer consortium provision {folder}` wrote this folder. It holds `server.key`, so it must
stay on this machine. `nodes/` holds the keys of the admitted nodes; a running server follows a
change within seconds. Each hospital gets its `{folder}/kits/NAME.zip`.

With systemd, as the user {user}, who owns {folder}{make}:

    systemctl enable --now {folder}/kits/server/{unit}
    fedmedformer consortium status {folder}
    journalctl -u {unit}

With containers: put the wheel of fedmedformer into this folder, then

    podman-compose -f {folder}/kits/server/compose.yaml up -d --build    # or docker compose

By hand: `{folder}/kits/server/up`.

`fedmedformer consortium install {folder} RUN.yaml --out {folder}/runs/NAME` writes a unit that
submits a run and follows it, also after a reboot.

In all three cases the service cannot see `{folder}/authority`, whose keys make certificates and
sign bundles. `consortium provision` and `consortium submit`, run by the same user, need them. Put
run folders inside `{folder}`. Port {port} is the only one that hospitals need; the health page is
at 127.0.0.1:{health}.
"""


def site_kit(
    kits: Path, name: str, facts: Mapping[str, Any], authority: bytes, signer: Path
) -> None:
    """Write a hospital's kit, as a folder and as a zip; the same facts give the same bytes.

    Args:
        kits: Folder of all kits.
        name: The site's name.
        facts: Consortium, site, hosts and port.
        authority: The authority's certificate, PEM.
        signer: File of the private key that signs the kit.
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
    """Make a zip whose bytes depend on nothing but the files.

    Args:
        files: Text of each file, by its name.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            # A fixed date and system: the same kit has the same bytes on every machine.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def server_files(folder: Path, consortium: str, port: int, health: int) -> dict[str, str]:
    """Return the files that run the server: units, containers, script and page, by name.

    Args:
        folder: Folder of the consortium.
        consortium: Its name.
        port: Port at which hospitals reach the server.
        health: Port of the health page, on this machine only.
    Raises:
        ConfigError: The folder's path cannot be written in a unit.
    """
    home = plain(folder)
    user, number = owner_of(home)
    service = {
        "User": user,
        "ExecStart": f"{program()} consortium up {home}",
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
        # The signing keys are hidden from what runs in the container.
        "tmpfs": ["/tmp", f"{home}/authority"],
        "healthcheck": healthcheck("consortium", "status", str(home), "--health"),
    }
    make = f" (useradd --system {user}; chown -R {user} {home})" if user == SERVER_USER else ""
    return {
        UNIT: unit(f"FedMedformer server of {consortium}", ("network-online.target",), service,
                   [home, program()]),
        "compose.yaml": compose(f"The server of {consortium}.", {"superlink": container}),
        "Containerfile": CONTAINERFILE.format(extras=""),
        "README.md": SERVER.format(consortium=consortium, folder=home, user=user, make=make,
                                   unit=UNIT, port=port, health=health),
        "up": up_script("Starts the consortium's server", "consortium up", "../.."),
    }  # fmt: skip


def mirror(folder: Path, files: Mapping[str, str]) -> None:
    """Make a folder hold exactly these files.

    Args:
        folder: The folder; made if missing.
        files: Text of each file, by its name.
    """
    folder.mkdir(exist_ok=True)
    # A file that stays would admit a former member, or travel in a kit.
    for old in folder.iterdir():
        if old.name not in files:
            old.unlink()
    for name, text in files.items():
        replace_if_other(folder / name, text.encode())


def replace_if_other(file: Path, data: bytes) -> None:
    """Write a file, unless it already holds these bytes.

    Args:
        file: The file.
        data: What it has to hold.
    """
    if not file.exists() or file.read_bytes() != data:
        replace_file(file, data)


def owner_of(folder: Path) -> tuple[str, str]:
    """Return a folder's owner as systemd and containers name it.

    A folder that root owns gets placeholders for a user who has yet to be made.

    Args:
        folder: The folder.
    """
    found = folder.stat()
    # The server must not run as root, so a folder of root's needs another user.
    if found.st_uid == 0:
        ask = "${FEDMEDFORMER_USER:?number of the user who owns the folder}"
        return SERVER_USER, ask
    try:
        return pwd.getpwuid(found.st_uid).pw_name, f"{found.st_uid}:{found.st_gid}"
    except KeyError:
        return str(found.st_uid), f"{found.st_uid}:{found.st_gid}"
