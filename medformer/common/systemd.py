"""What keeps a role running on a machine of its own: systemd unit, compose file, `up` script.

Both roles write these from the code that is installed at their own place, never from what the other
side sent: a unit decides what runs as which user.
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
"""What every unit has (systemd.exec(5))."""


def unit(
    description: str,
    after: Sequence[str],
    service: Mapping[str, str | Sequence[str]],
    homes: Sequence[Path],
) -> str:
    """A systemd unit that is started again whenever it ends, hardened as far as it can be.

    Args:
        after: Units that it wants, and starts after.
        service: Settings of the section [Service]; replace those of `HARDENED`.
        homes: Folders that it reads; where one lies in somebody's home, homes can be read.
    """
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
        lines += [f"{key}={one}" for one in ((value,) if isinstance(value, str) else value)]
    return "\n".join([*lines, "", "[Install]", "WantedBy=multi-user.target", ""])


def compose(comment: str, services: Mapping[str, Mapping[str, Any]]) -> str:
    """A compose file; every service runs the image without rights and is started again."""
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
        {"services": {name: {**deepcopy(common), **own} for name, own in services.items()}},
        sort_keys=False,
    )
    return f"# {comment}\n{text}"


def mount(source: str | Path, target: str, *, write: bool = False) -> dict[str, Any]:
    """A file or folder of the machine in a container; it has to be there."""
    return {
        "type": "bind",
        "source": str(source),
        "target": target,
        "read_only": not write,
        "bind": {"create_host_path": False},
    }


def healthcheck(*command: str) -> dict[str, Any]:
    """Asks every half minute, and gives a start two minutes."""
    return {
        "test": ["CMD", "/opt/fedmedformer/bin/fedmedformer", *command],
        "interval": "30s",
        "timeout": "15s",
        "retries": 4,
        "start_period": "120s",
    }


def up_script(what: str, command: str, up: str) -> str:
    """A POSIX script that finds its environment and starts a role.

    Args:
        what: It does, in a sentence without an end.
        command: Of fedmedformer, before its folder.
        up: From the script's folder to the role's.
    """
    return UP.format(what=what, command=command, up=up, prefix=shlex.quote(sys.prefix))


def plain(path: Path) -> Path:
    """An absolute path that needs no quoting in a unit.

    Raises:
        ConfigError: It would.
    """
    whole = path.absolute()
    if not re.fullmatch(r"[A-Za-z0-9/._+@-]+", str(whole)) or ".." in whole.parts:
        raise ConfigError(
            f"{whole}: units and containers need a path of letters, digits and ._+@- only"
        )
    return whole
