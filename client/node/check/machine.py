"""The lines of `site check` about the machine: users, files, installed code, disk, the start."""

import os
import shlex
import shutil
from pathlib import Path

import client
from client.node.check.line import Check
from client.node.check.place import Lines, Place
from client.node.folder import HEALTH_PORT, Node
from client.node.joining import KEY, known_by
from client.node.launch import separation
from client.node.permissions import installed_code, private_key
from client.node.starting import AlreadyUp, Start, conditions, only_ours_to_write
from client.node.users import users_of
from medformer.errors import ConfigError, MedFormerError

NEEDED = 2**30
"""Bytes: two kept answers and five local states of the largest preset, and as much again as one of
them for ledger, manifest and logs."""


def check_key(place: Place) -> Lines:
    """Check that the node's key is private and is the one that the consortium was sent.

    Args:
        place: The site and its folder.
    Raises:
        ExposedError: Others can read the key, or it is missing.
        ConfigError: It is not a key, or not the one in the request.
    """
    private_key(place.folder / KEY)
    yield Check("key", "OK", f"fingerprint {known_by(place.folder)}")


def check_users(place: Place) -> Lines:
    """Report as which users guard and node run.

    Args:
        place: The site and its folder.
    """
    two = users_of(place.folder) is not None
    yield Check("users", "OK" if two else "NOTE", separation(place.folder))


def check_files(place: Place) -> Lines:
    """Check that other users of this machine cannot reach the site's folder.

    Args:
        place: The site and its folder.
    Raises:
        ExposedError: They can.
        ConfigError: The folder is not laid out for its two users.
    """
    Node(place.folder).private(place.site)
    yield Check("files", "OK", f"other users cannot enter {place.folder}")


def check_settings(place: Place) -> Lines:
    """Check that others cannot write the files that the guard obeys; no line if all is well.

    Args:
        place: The site and its folder.
    Raises:
        ExposedError: They can.
    """
    only_ours_to_write(place.folder, place.site)
    yield from ()


def check_code(place: Place) -> Lines:
    """Check that our code is installed, and that other users cannot change it.

    Args:
        place: The site and its folder.
    Raises:
        ExposedError: It is a checkout, or others can write a file of it.
    """
    package = Path(str(client.__file__)).parent
    installed_code(package)
    yield Check("code", "OK", f"installed in {package.parent}, which others cannot change")


def check_disk(place: Place, needed: int = NEEDED) -> Lines:
    """Check that the state folder can be written and has room for a run.

    Args:
        place: The site.
        needed: Free bytes that a run may need.
    Raises:
        ConfigError: The folder cannot be written, or the disk is too full.
    """
    # The guard makes the state folder at its first start; until then its parent's disk counts.
    there = next(p for p in (place.state, *place.state.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{there}: cannot be written by this user (chown)")
    if free < needed:
        raise ConfigError(
            f"{there}: {free >> 20} MiB are free, and a run may need {needed >> 20} MiB for its "
            "answers, local tensors and logs: free some space. A run stops when the disk is full"
        )
    yield Check("disk", "OK", f"{free / 2**30:.1f} GiB free, {needed / 2**30:.1f} GiB needed")


def check_start(place: Place) -> Lines:
    """Check all conditions of `site up`, from the same list; one line if all of them hold.

    Args:
        place: The site and its folder.
    """
    how = Start(place.folder, place.health_port, allow_root=place.allow_root)
    good = True
    for name, look in conditions(how):
        try:
            look()
        except AlreadyUp as error:
            yield Check("start", "NOTE", str(error))
            return  # the running node itself holds the port that is checked next
        except MedFormerError as error:
            good = False
            yield Check(name, "FIX", str(error))
    if good:
        # The command is printed so that it can be typed as it stands.
        port = [] if how.health_port == HEALTH_PORT else ["--health-port", str(how.health_port)]
        command = ["fedmedformer", "site", "up", str(how.folder), *port]
        yield Check("start", "OK", shlex.join([*command, *(["--allow-root"] * how.allow_root)]))
