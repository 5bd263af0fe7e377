"""Writes what keeps a role running on its machine: systemd unit, compose file, `up` script.

Hospital and operator each write these from the code that is installed on their machine, never from
what the other side sent: a unit decides which program runs as which user.
"""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from medformer.errors import ConfigError

IMAGE = "fedmedformer"
CONTAINERFILE = """\
# The image of every service in compose.yaml: podman build -t fedmedformer .
# Put beside this file the wheel of fedmedformer that the others have, too.
FROM docker.io/library/python:3.11-slim
COPY fedmedformer-*.whl /tmp/
RUN python -m venv /opt/fedmedformer \\
 && /opt/fedmedformer/bin/pip install --no-cache-dir /tmp/fedmedformer-*.whl{extras} \\
 && rm /tmp/fedmedformer-*.whl
ENV PATH=/opt/fedmedformer/bin:$PATH
ENTRYPOINT ["/opt/fedmedformer/bin/fedmedformer"]
"""
UP = """\
#!/bin/sh
# {what}. Stops with Ctrl-C or SIGTERM.
# Takes the environment $FEDMEDFORMER_VENV, or .venv beside this file, or the one it was written by.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
folder=$(CDPATH= cd -- "$here/{up}" && pwd)
for venv in ${{FEDMEDFORMER_VENV:+"$FEDMEDFORMER_VENV"}} "$here/.venv" {prefix}; do
    if [ -x "$venv/bin/fedmedformer" ]; then
        exec "$venv/bin/fedmedformer" {command} "$folder" "$@"
    fi
    if [ "$venv" = "${{FEDMEDFORMER_VENV:-}}" ]; then
        echo "up: FEDMEDFORMER_VENV is $venv, and there is no bin/fedmedformer in it" >&2
        exit 1
    fi
done
echo "up: fedmedformer is installed neither in $here/.venv nor in "{prefix}": install it, or set" \\
    "FEDMEDFORMER_VENV to its environment" >&2
exit 1
"""
HARDENED: Mapping[str, str] = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "UMask": "0077",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectControlGroups": "yes",
    "ProtectProc": "invisible",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "RemoveIPC": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service",
    "SystemCallErrorNumber": "EPERM",
}
"""Settings of every unit that limit what its process can do (systemd.exec(5))."""


def unit(
    description: str,
    after: Sequence[str],
    service: Mapping[str, str | Sequence[str]],
    homes: Sequence[Path],
) -> str:
    """Return the text of a hardened systemd unit that is restarted whenever it ends.

    Args:
        description: One line about the service.
        after: Units that it wants, and starts after.
        service: Settings of the section [Service]; they replace those of `HARDENED`.
        homes: Folders that it reads; if one lies in a user's home, homes become readable.
    """
    # ProtectHome=yes would hide the folders of the service itself.
    at_home = any(part in ("home", "root") for home in homes for part in home.parts[1:2])
    settings: dict[str, str | Sequence[str]] = {
        "Type": "exec",
        "Restart": "always",
        "RestartSec": "5",
        "TimeoutStopSec": "60",
        **HARDENED,
        **({"ProtectHome": "read-only"} if at_home else {}),
        **service,
    }
    lines = ["[Unit]", f"Description={description}"]
    if after:
        lines += [f"Wants={' '.join(after)}", f"After={' '.join(after)}"]
    lines += ["StartLimitIntervalSec=0", "", "[Service]"]
    for key, value in settings.items():
        # A setting can be repeated, such as ReadWritePaths.
        lines += [f"{key}={one}" for one in ((value,) if isinstance(value, str) else value)]
    return "\n".join([*lines, "", "[Install]", "WantedBy=multi-user.target", ""])


def compose(comment: str, services: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the text of a compose file whose services run without privileges and are restarted.

    Args:
        comment: First line of the file.
        services: Name -> settings of a service, added to those that all services have.
    """
    common = {
        "image": IMAGE,
        "build": {"context": "."},
        "restart": "always",
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }
    text: str = yaml.safe_dump(
        # A deep copy: YAML would write shared lists as aliases.
        {"services": {name: {**deepcopy(common), **more} for name, more in services.items()}},
        sort_keys=False,
    )
    return f"# {comment}\n{text}"


def mount(source: str | Path, target: str, *, write: bool = False) -> dict[str, Any]:
    """Return a bind mount of a file or folder that has to exist on the machine.

    Args:
        source: Path on the machine.
        target: Path in the container.
        write: Whether the container can write to it.
    """
    return {
        "type": "bind",
        "source": str(source),
        "target": target,
        "read_only": not write,
        # A missing path is an error, not a new empty folder of root.
        "bind": {"create_host_path": False},
    }


def healthcheck(*command: str) -> dict[str, Any]:
    """Return a health check that runs every half minute and allows a start two minutes.

    Args:
        command: Arguments of `fedmedformer`.
    """
    return {
        "test": ["CMD", "/opt/fedmedformer/bin/fedmedformer", *command],
        "interval": "30s",
        "timeout": "15s",
        "retries": 4,
        "start_period": "120s",
    }


def up_script(what: str, command: str, up: str) -> str:
    """Return a POSIX script that finds its virtual environment and starts a role.

    Args:
        what: A sentence about what the script does, without a full stop.
        command: Command of fedmedformer, to which the role's folder is added.
        up: Path from the script's folder to the role's folder.
    """
    return UP.format(what=what, command=command, up=up, prefix=shlex.quote(sys.prefix))


def program() -> Path:
    """Return the path of the installed `fedmedformer` command.

    Raises:
        ConfigError: It holds characters that a unit would interpret.
    """
    return plain(Path(sys.prefix) / "bin" / "fedmedformer")


def plain(path: Path) -> Path:
    """Return an absolute path that needs no quoting in a unit.

    Args:
        path: Any path.
    Raises:
        ConfigError: It holds characters that a unit or a container would interpret.
    """
    absolute = path.absolute()
    if not re.fullmatch(r"[A-Za-z0-9/._+@-]+", str(absolute)) or ".." in absolute.parts:
        raise ConfigError(
            f"{absolute}: units and containers need a path of letters, digits and ._+@- only"
        )
    return absolute
