"""`fedmedformer site install`: guard and node as services of a hospital's machine.

The hospital's installed code writes units and containers. They never come from a consortium's kit,
because what they name runs as the user who owns records and ledger.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.node.folder import HEALTH_PORT
from client.node.users import FILE, Users, check_layout, records_of, separate
from client.site import Site, load_site
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

GUARD_UNIT, NODE_UNIT = "fedmedformer-guard.service", "fedmedformer-node.service"
WAITING_UNIT = "fedmedformer-waiting.service"
EXTRAS = {"dicom": "[dicom]", "nifti": "[nifti]"}
PROXY_VARIABLES = ("https_proxy", "http_proxy", "no_proxy")
README = """\
# {site}: guard and node as services

`fedmedformer site install {folder}` wrote this folder from the code that is installed here. Run it
again when site.yaml names other folders, and after an update.

| | user | can read | can write | network |
|---|---|---|---|---|
| guard | {guard} | site.yaml, policy.yaml, records | state/, run/guard/ | none |
| node | {node} | kit/, node.key | flower/ | outgoing, to the consortium |

They share one socket, `run/guard/guard.sock`. The guard asks the kernel which user is calling.

With systemd:

    systemctl enable --now {folder}/service/{guard_unit} \\
      {folder}/service/{node_unit} \\
      {folder}/service/{waiting_unit}
    fedmedformer site status {folder}
    journalctl -u {guard_unit} -u {node_unit}

{waiting_unit} announces runs that wait for an answer (`on_waiting` in policy.yaml), as the guard's
user, without any view of the records. It is not needed where approval is automatic.

With containers: put the wheel of fedmedformer into `{folder}/service`, then

    podman-compose -f {folder}/service/compose.yaml up -d --build     # or docker compose

By hand, as root: `{folder}/service/up`.

**Proxy.** The node connects to the consortium's only port, by HTTPS. Nobody connects to the
hospital. If outgoing connections need a proxy, write `https_proxy=http://proxy.example.org:3128`
into `{folder}/proxy.env` (0640, root:{node_group}), or set it before `up`, in lower or in upper
case; `no_proxy` works, too. The proxy sees a CONNECT to the consortium's name, and then only TLS. A
proxy that decrypts TLS is refused, because its certificate is not the consortium's. The guard has
no proxy and no network.
"""


def install(folder: Path, users: Users) -> list[Path]:
    """Give a site's folder to its two users, and write units, compose file and script.

    Args:
        folder: The site's folder.
        users: Guard and node.
    Returns:
        The files that were written.
    Raises:
        ConfigError: This is not root, or the folder cannot be laid out.
    """
    site = load_site(folder / "site.yaml")
    separate(folder, users, site)
    check_layout(folder, users, site)
    written = []
    for name, text in files(folder, site, users).items():
        file = folder / "service" / name
        replace_file(file, text.encode())
        file.chmod(0o755 if name == "up" else 0o644)
        written.append(file)
    return written


def files(folder: Path, site: Site, users: Users) -> dict[str, str]:
    """Return the files that run this site's two processes: units, containers, script, page.

    Args:
        folder: The site's folder.
        site: As its site.yaml declares it.
        users: Guard and node.
    Returns:
        The text of each file, by its name.
    Raises:
        ConfigError: A path cannot be written in a unit.
    """
    home = plain(folder)
    facts = {
        "site": site.name,
        "folder": home,
        "guard": users.guard.name,
        "node": users.node.name,
        "node_group": users.node.group,
        "guard_unit": GUARD_UNIT,
        "node_unit": NODE_UNIT,
        "waiting_unit": WAITING_UNIT,
    }
    return {
        GUARD_UNIT: _guard_unit(home, site, users),
        NODE_UNIT: _node_unit(home, site, users),
        WAITING_UNIT: _waiting_unit(home, site, users),
        "compose.yaml": _compose(home, site, users),
        "Containerfile": CONTAINERFILE.format(extras=EXTRAS.get(site.data.source, "")),
        "up": up_script("Starts the site's guard and node as two users; needs root",
                        "site up", ".."),
        "README.md": README.format(**facts),
    }  # fmt: skip


def _program() -> Path:
    """Return the path of the installed `fedmedformer` command."""
    return plain(Path(sys.prefix) / "bin" / "fedmedformer")


def _guard_unit(home: Path, site: Site, users: Users) -> str:
    """Write the guard's unit: no network, and it writes only to state, socket and anchor."""
    program, records = _program(), [plain(p) for p in records_of(site)]
    # The folder, because the anchor is replaced by renaming a new file onto it.
    anchor = [plain(site.ledger_anchor).parent] if site.ledger_anchor else []
    writes = [home / "state", home / "run" / "guard", *anchor]
    own = {
        "User": users.guard.name,
        "Group": users.guard.group,
        "SupplementaryGroups": users.node.group,
        "ExecStart": f"{program} site guard {home}",
        "ExecStartPost": f"{program} site status {home} --only guard --wait 120",
        "TimeoutStartSec": "180",
        "WorkingDirectory": "/",
        # The guard talks through its socket alone.
        "PrivateNetwork": "yes",
        "RestrictAddressFamilies": "AF_UNIX",
        "IPAddressDeny": "any",
        "ReadWritePaths": " ".join(map(str, writes)),
        "InaccessiblePaths": f"-{home}/node.key -{home}/kit -{home}/flower",
    }
    description = f"FedMedformer guard of {site.name}: policy, ledger, records"
    return unit(description, (), own, [home, program, *records])


def _node_unit(home: Path, site: Site, users: Users) -> str:
    """Write the node's unit: root checks kit and layout before each start, then the node starts."""
    program = _program()
    records = [plain(p) for p in records_of(site)]
    closed = [home / "state", home / "site.yaml", home / "policy.yaml", *records]
    own = {
        "User": users.node.name,
        "Group": users.node.group,
        # `+` runs it as root, who sees every part of the folder.
        "ExecStartPre": f"+{program} site node {home} --check",
        "ExecStart": f"{program} site node {home} --health-port {HEALTH_PORT}",
        "ExecStartPost": f"{program} site status {home} --only node --health-port {HEALTH_PORT} "
        "--wait 120",
        "TimeoutStartSec": "180",
        # `-` allows the file to be missing.
        "EnvironmentFile": f"-{home}/proxy.env",
        "WorkingDirectory": "/",
        "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
        "ReadWritePaths": f"{home}/flower",
        "InaccessiblePaths": " ".join(f"-{place}" for place in closed),
    }
    description = f"FedMedformer node of {site.name}: dials out to the consortium"
    return unit(description, (GUARD_UNIT, "network-online.target"), own, [home, program])


def _waiting_unit(home: Path, site: Site, users: Users) -> str:
    """Write the unit that announces waiting runs: it has a network, and sees no record."""
    program = _program()
    hidden = [home / "node.key", home / "flower", *map(plain, records_of(site))]
    own = {
        "User": users.guard.name,
        "Group": users.guard.group,
        "SupplementaryGroups": users.node.group,  # the kit says how the consortium is called
        "ExecStart": f"{program} site announce {home} --follow",
        "WorkingDirectory": "/",
        "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
        "ReadWritePaths": f"{home}/state",
        "InaccessiblePaths": " ".join(f"-{place}" for place in hidden),
    }
    description = f"FedMedformer at {site.name}: announces runs that wait for an answer"
    return unit(description, (GUARD_UNIT, "network-online.target"), own, [home, program])


def _compose(home: Path, site: Site, users: Users) -> str:
    """Write the compose file: the same two processes with the same restrictions, as containers."""
    parts = (FILE, "site.yaml", "policy.yaml", "state", "run/guard", "kit", "node.key", "flower")
    at = {name: f"{home}/{name}" for name in parts}
    return compose(f"Guard and node of {site.name}, which share a socket and nothing else.", {
        "guard": _guard_container(home, at, site, users),
        "node": _node_container(home, at, users),
    })  # fmt: skip


def _guard_container(home: Path, at: Mapping[str, str], site: Site, users: Users) -> dict[str, Any]:
    """Describe the guard's container; `at` has the path of each part of the folder."""
    anchor = site.ledger_anchor
    records = [mount(p, str(p)) for p in map(plain, records_of(site)) if p != anchor]
    # The anchor's folder, because the anchor is replaced by renaming a new file onto it.
    remembers = [plain(anchor).parent] if anchor else []
    return {
        "command": ["site", "guard", str(home)],
        "user": f"{users.guard.uid}:{users.guard.gid}",
        "group_add": [str(users.node.gid)],
        "network_mode": "none",
        "volumes": [
            mount(at["site.yaml"], at["site.yaml"]),
            mount(at["policy.yaml"], at["policy.yaml"]),
            mount(at["state"], at["state"], write=True),
            mount(at["run/guard"], at["run/guard"], write=True),
            mount(at[FILE], at[FILE]),
            *records,
            *(mount(folder, str(folder), write=True) for folder in remembers),
        ],
        "healthcheck": healthcheck("site", "status", str(home), "--only", "guard"),
    }


def _node_container(home: Path, at: Mapping[str, str], users: Users) -> dict[str, Any]:
    """Describe the node's container, which mounts nothing that belongs to the guard."""
    return {
        "command": ["site", "node", str(home)],
        "user": f"{users.node.uid}:{users.node.gid}",
        "depends_on": {"guard": {"condition": "service_healthy"}},
        "environment": [*PROXY_VARIABLES],
        "volumes": [
            mount(at[FILE], at[FILE]),
            mount(at["kit"], at["kit"]),
            mount(at["node.key"], at["node.key"]),
            mount(at["run/guard"], at["run/guard"]),
            mount(at["flower"], at["flower"], write=True),
        ],
        "healthcheck": healthcheck("site", "status", str(home), "--only", "node"),
    }
