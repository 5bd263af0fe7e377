"""As whom, where and with which environment a site's two processes run."""

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.node.users import ONE_USER, User, Users, users_of
from medformer.common.processes import KEEP_MEMORY
from medformer.errors import MedFormerError
from server.protocol import FLOWER_SWITCHES

KEPT = ("PATH", "LANG", "LANGUAGE", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
"""Variables that both may see. Whoever starts them may have secrets in others."""
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
"""What Flower's HTTP client (httpx) heeds, in small letters and in capitals."""
LOOPBACK = ("127.0.0.1", "localhost")
"""The SuperNode talks with the relays that it starts, past any proxy."""


class LaunchError(MedFormerError):
    """A process must not be started like this."""


def environment(
    name: str, folder: Path, users: Users | None, given: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Of one process. Only Flower's learn of proxies: the guard dials nobody.

    Args:
        folder: The site's.
        users: Of two users, neither has the home or the temporary folder of whoever starts them.
    """
    kept = (*KEPT, *(() if users else ("HOME", "TMPDIR")))
    found = {key: given[key] for key in kept if key in given}
    found["PATH"] = os.pathsep.join(
        filter(None, (str(Path(sys.executable).parent), given.get("PATH", "/usr/bin:/bin")))
    )
    if name == "guard":
        return {**found, **KEEP_MEMORY}
    home = str((folder / "flower").absolute())
    if users:
        found["HOME"] = home
    for key in PROXIES:
        for spelled in (key, key.upper()):
            if given.get(spelled):
                found[spelled] = given[spelled]
    past = given.get("no_proxy") or given.get("NO_PROXY") or ""
    listed = [*filter(None, (host.strip() for host in past.split(","))), *LOOPBACK]
    found["no_proxy"] = found["NO_PROXY"] = ",".join(dict.fromkeys(listed))
    return {**found, **FLOWER_SWITCHES, "FLWR_HOME": home}


def options(name: str, folder: Path, users: Users | None) -> dict[str, Any]:
    """Arguments of `subprocess.Popen`: environment, and user and groups if there are two."""
    found: dict[str, Any] = {"env": environment(name, folder, users)}
    if users and os.geteuid() == 0:
        user, others = _who(name, users)
        found |= {"user": user.uid, "group": user.gid, "extra_groups": others, "umask": 0o077}
        found["cwd"] = "/" if name == "guard" else str(folder / "flower")
    return found


def become_guard(folder: Path, command: list[str]) -> None:
    """Turn this process into the guard, for a service manager that watches it.

    Raises:
        LaunchError: This is neither the guard's user nor root.
    """
    users = users_of(folder)
    _act_as("guard", folder)
    (folder / "run" / "guard").mkdir(parents=True, exist_ok=True, mode=0o700)
    os.umask(0o077)
    os.execve(command[0], command, environment("guard", folder, users))


def act_as_node(folder: Path) -> None:
    """Go on as the node's user, where a folder has one.

    Raises:
        LaunchError: This is neither that user nor root.
    """
    _act_as("supernode", folder)
    os.umask(0o077)


def new_secret(file: Path, users: Users | None) -> None:
    """Make a secret of the node's user; root's own hands touch nothing that was put there."""
    file.unlink(missing_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as made:
        if users and os.geteuid() == 0:
            os.fchown(handle, users.node.uid, users.node.gid)
        made.write(secrets.token_bytes(32))


def act_as_guard(folder: Path) -> None:
    """As root, go on as the guard's user: what is written to the state folder stays the guard's."""
    if os.geteuid() == 0:
        _act_as("guard", folder)


def refuse_root(folder: Path, *, allow_root: bool) -> None:
    """Nobody's bundle runs as root by mistake.

    Raises:
        LaunchError: This is root, the folder is of one user, and nobody insists.
    """
    if os.geteuid() == 0 and users_of(folder) is None and not allow_root:
        raise LaunchError(
            f"{folder}: is of one user, and you are root: the consortium's code would run as "
            f"root. fedmedformer site install {folder} gives guard and node users of their own; "
            "or be a user without rights; or insist with --allow-root"
        )


def separation(folder: Path) -> str:
    """Who runs what, in a sentence."""
    users = users_of(folder)
    if users is None:
        return ONE_USER.format(folder=folder)
    return (
        f"guard as {users.guard.name}, node as {users.node.name}: the node's user cannot read "
        "records, ledger or policy"
    )


def _act_as(name: str, folder: Path) -> None:
    users = users_of(folder)
    if users is None:
        return
    user, others = _who(name, users)
    if os.geteuid() == 0:
        os.setgroups(others)
        os.setgid(user.gid)
        os.setuid(user.uid)
    elif os.geteuid() != user.uid:
        kind = "guard" if name == "guard" else "node"
        raise LaunchError(f"{folder}: the {kind} runs as the user {user.name} here")


def _who(name: str, users: Users) -> tuple[User, list[int]]:
    """The user of a process, and its groups beside its own: the guard passes through the node's."""
    if name == "guard":
        return users.guard, [users.node.gid]
    return users.node, []
