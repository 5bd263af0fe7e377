"""The user, the working folder and the environment of a site's two processes."""

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
"""Variables that both processes get. Others may hold secrets of the user who starts them."""
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
"""Variables that Flower's HTTP client (httpx) obeys, in lower and in upper case."""
GUARDS = ("guard", "announcer")
"""Processes of the guard's user; all others run the consortium's code."""
LOOPBACK = ("127.0.0.1", "localhost")
"""Addresses at which the SuperNode talks to the relays that it starts, never through a proxy."""


class LaunchError(MedFormerError):
    """A process must not be started by this user."""


def environment(
    name: str, folder: Path, users: Users | None, given: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Build the environment of one process.

    Only Flower's processes get the proxies: the guard connects to nobody.

    Args:
        name: `guard`, or a process of Flower.
        folder: The site's folder.
        users: Guard and node, where they are two users: then neither gets the home or the
            temporary folder of the user who starts them.
        given: Environment of this process.
    """
    # Two users: the home of the user who starts them would be closed to both, or be root's.
    kept = (*KEPT, *(() if users else ("HOME", "TMPDIR")))
    found = {key: given[key] for key in kept if key in given}
    # Flower starts its helpers by name: they have to be those of this installation.
    found["PATH"] = os.pathsep.join(
        filter(None, (str(Path(sys.executable).parent), given.get("PATH", "/usr/bin:/bin")))
    )
    if name in GUARDS:
        return {**found, **KEEP_MEMORY}
    home = str((folder / "flower").absolute())
    if users:
        found["HOME"] = home
    for key in PROXIES:
        # Both spellings, because httpx and gRPC do not read the same one.
        for spelled in (key, key.upper()):
            if given.get(spelled):
                found[spelled] = given[spelled]
    past = given.get("no_proxy") or given.get("NO_PROXY") or ""
    listed = [*filter(None, (host.strip() for host in past.split(","))), *LOOPBACK]
    found["no_proxy"] = found["NO_PROXY"] = ",".join(dict.fromkeys(listed))
    return {**found, **FLOWER_SWITCHES, "FLWR_HOME": home}


def options(name: str, folder: Path, users: Users | None) -> dict[str, Any]:
    """Return arguments of `subprocess.Popen`: environment, and the process's user if there are two.

    Args:
        name: `guard`, or a process of Flower.
        folder: The site's folder.
        users: Guard and node; None where they are one user.
    """
    found: dict[str, Any] = {"env": environment(name, folder, users)}
    if users and os.geteuid() == 0:
        user, others = _who(name, users)
        found |= {"user": user.uid, "group": user.gid, "extra_groups": others, "umask": 0o077}
        # Python programs import from their working folder: it must be nobody else's.
        found["cwd"] = "/" if name in GUARDS else str(folder / "flower")
    return found


def become_guard(folder: Path, command: list[str]) -> None:
    """Turn this process into the guard, for a service manager that watches it.

    Args:
        folder: The site's folder.
        command: Command line of the guard.
    Raises:
        LaunchError: This is neither the guard's user nor root.
    """
    users = users_of(folder)
    _act_as("guard", folder)
    (folder / "run" / "guard").mkdir(parents=True, exist_ok=True, mode=0o700)
    os.umask(0o077)  # whatever umask the service manager has
    os.execve(command[0], command, environment("guard", folder, users))


def act_as_node(folder: Path) -> None:
    """Become the node's user, where the folder belongs to two users.

    Args:
        folder: The site's folder.
    Raises:
        LaunchError: This is neither that user nor root.
    """
    _act_as("supernode", folder)
    os.umask(0o077)


def new_secret(file: Path, users: Users | None) -> None:
    """Write a new secret that only the node's user can read.

    Root follows no link, and does not write into a file that the node has put there.

    Args:
        file: The secret's file; an older one is replaced.
        users: Guard and node; None where they are one user.
    """
    file.unlink(missing_ok=True)
    # O_EXCL, O_NOFOLLOW: the node's user can put a link into this folder at any moment.
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as made:
        if users and os.geteuid() == 0:
            os.fchown(handle, users.node.uid, users.node.gid)
        made.write(secrets.token_bytes(32))


def act_as_guard(folder: Path) -> None:
    """As root, become the guard's user, so that files in the state folder belong to the guard.

    Args:
        folder: The site's folder.
    """
    if os.geteuid() == 0:
        _act_as("guard", folder)


def refuse_root(folder: Path, *, allow_root: bool) -> None:
    """Refuse to run a consortium's bundle as root by mistake.

    Args:
        folder: The site's folder.
        allow_root: Run it as root all the same.
    Raises:
        LaunchError: This is root, the folder belongs to one user, and root is not allowed.
    """
    if os.geteuid() == 0 and users_of(folder) is None and not allow_root:
        raise LaunchError(
            f"{folder}: belongs to one user, and you are root: the consortium's code would run as "
            f"root. Run fedmedformer site install {folder}, which gives guard and node a user "
            "each; or run this as an ordinary user; or insist with --allow-root"
        )


def separation(folder: Path) -> str:
    """Say in a sentence as which users guard and node run.

    Args:
        folder: The site's folder.
    """
    users = users_of(folder)
    if users is None:
        return ONE_USER.format(folder=folder)
    return (
        f"guard as {users.guard.name}, node as {users.node.name}: the node's user cannot read "
        "records, ledger or policy"
    )


def _act_as(name: str, folder: Path) -> None:
    """Become the user of a process, where the folder belongs to two users."""
    users = users_of(folder)
    if users is None:
        return
    user, others = _who(name, users)
    if os.geteuid() == 0:
        # In this order: a process that is no longer root cannot give up its groups.
        os.setgroups(others)
        os.setgid(user.gid)
        os.setuid(user.uid)
    elif os.geteuid() != user.uid:
        kind = "guard" if name in GUARDS else "node"
        raise LaunchError(f"{folder}: the {kind} runs as the user {user.name} here")


def _who(name: str, users: Users) -> tuple[User, list[int]]:
    """Return a process's user and its further groups: the guard is in the node's group, too."""
    if name in GUARDS:
        return users.guard, [users.node.gid]
    return users.node, []
