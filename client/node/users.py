"""Guard and node as two users of the machine, and the folder layout that keeps them apart.

    FOLDER        root   node    0710   both can pass, nobody else
      site.yaml   root   guard   0640   so are policy.yaml, and records in this folder
      state/      guard  guard   0700   ledger, answers, local tensors, the guard's inner socket
      run/        root   node    0710
        guard/    guard  node    2710   guard.sock, 0660
      kit/        root   node    0750
      node.key    node   node    0600
      flower/     node   node    0700   the node's home
      logs/       root   root    0700
      users.json  root   root    0644   names the two users

The guard is in the node's group, too. The node is in no other group.
"""

import grp
import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from client.site import Site, paths_in
from medformer.common.files import replace_file
from medformer.errors import ConfigError

FILE = "users.json"
GUARD, NODE = "fedmedformer-guard", "fedmedformer-node"
"""Names of the two users, unless others are given."""
ONE_USER = (
    "guard and node run as one user: if the consortium's code broke out of its relay, it could "
    "read records and ledger. To keep them apart, run as root: fedmedformer site install {folder}"
)


@dataclass(frozen=True)
class User:
    """A user of this machine, and its main group."""

    uid: int
    gid: int

    @classmethod
    def named(cls, text: str) -> "User":
        """Find a user by name or by number; a number needs no entry in the list of users.

        Args:
            text: Name or number.
        Raises:
            ConfigError: There is no such user, or it is root.
        """
        try:
            entry = pwd.getpwuid(int(text)) if text.isdigit() else pwd.getpwnam(text)
            user = cls(entry.pw_uid, entry.pw_gid)
        except KeyError as error:
            # A container's user is a number without an entry in this machine's list.
            if not text.isdigit():
                raise ConfigError(
                    f"this machine has no user {text!r}: useradd --system --user-group "
                    f"--shell /usr/sbin/nologin {text}"
                ) from error
            user = cls(int(text), int(text))
        if 0 in (user.uid, user.gid):
            raise ConfigError(f"{text}: is root; guard and node each need an ordinary user")
        return user

    @property
    def name(self) -> str:
        """Name of the user, or its number if it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def group(self) -> str:
        """Name of the group, or its number if it has none."""
        try:
            return grp.getgrgid(self.gid).gr_name
        except KeyError:
            return str(self.gid)

    def groups(self) -> list[int]:
        """Return all groups in which this machine has the user."""
        try:
            return os.getgrouplist(pwd.getpwuid(self.uid).pw_name, self.gid)
        except KeyError:
            return [self.gid]


@dataclass(frozen=True)
class Users:
    """The two users of a site.

    Raises:
        ConfigError: They are the same, or the node is in the guard's group.
    """

    guard: User
    node: User

    def __post_init__(self) -> None:
        if self.guard.uid == self.node.uid or self.guard.gid == self.node.gid:
            raise ConfigError("guard and node need two users with two different groups")
        if self.guard.gid in self.node.groups():
            raise ConfigError(
                f"the user {self.node.name} is in the group {self.guard.group}: remove it from "
                "that group"
            )


def users_of(folder: Path) -> Users | None:
    """Read the two users to whom a site's folder belongs.

    Args:
        folder: The site's folder.
    Returns:
        The users, as `separate` recorded them; None for a folder of one user.
    Raises:
        ConfigError: The record cannot be read.
    """
    file = folder / FILE
    try:
        known = json.loads(file.read_bytes())
        guard, node = (User(int(known[n]["uid"]), int(known[n]["gid"])) for n in ("guard", "node"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file}: does not say who guard and node are ({type(error).__name__}): "
            f"fedmedformer site install {folder}"
        ) from error
    return Users(guard, node)


def separate(folder: Path, users: Users, site: Site | None = None) -> None:
    """Give a site's folder to its two users, as root; the content stays.

    Args:
        folder: The site's folder.
        users: Guard and node.
        site: Closes records that are in the folder to the node; None before site.yaml is written.
    Raises:
        ConfigError: This is not root, or a part of the folder is a link.
    """
    if os.geteuid() != 0:
        raise ConfigError("two users need root: sudo fedmedformer site install")
    for path, uid, gid, mode in _layout(folder, users, site):
        # Root would give away whatever a link points at.
        if path.is_symlink():
            raise ConfigError(f"{path}: is a link; put the file or folder itself there")
        if not path.exists():
            # Files come later: site.yaml from the hospital, the key from `site init`.
            if path.name not in ("state", "anchor", "run", "guard", "kit", "flower", "logs"):
                continue
            path.mkdir(mode=0o700)
        os.chown(path, uid, gid, follow_symlinks=False)
        path.chmod(mode)
    known = {"guard": asdict(users.guard), "node": asdict(users.node)}
    replace_file(folder / FILE, json.dumps(known).encode())
    (folder / FILE).chmod(0o644)
    for name, user in (("state", users.guard), ("flower", users.node)):
        for place in _below(folder / name):
            os.chown(place, user.uid, user.gid, follow_symlinks=False)
    for place in _below(folder / "run" / "guard"):
        os.chown(place, users.guard.uid, users.node.gid, follow_symlinks=False)
    for place in _below(folder / "kit"):
        os.chown(place, 0, users.node.gid, follow_symlinks=False)
        if not place.is_symlink():
            place.chmod(0o750 if place.is_dir() else 0o640)


def check_layout(folder: Path, users: Users, site: Site) -> None:
    """Check that each of the two users can reach what it needs, and the node no more.

    Args:
        folder: The site's folder.
        users: Guard and node.
        site: As its site.yaml declares it.
    Raises:
        ConfigError: Names the first place that is wrong, and what to do.
    """
    remedy = f"fedmedformer site install {folder} repairs it"
    for path, uid, gid, mode in _layout(folder, users, site):
        if not os.path.lexists(path):
            continue
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise ConfigError(f"{path}: is a link; put the file or folder itself there")
        if (found.st_uid, found.st_gid) != (uid, gid):
            raise ConfigError(f"{path}: belongs to {found.st_uid}:{found.st_gid}; {remedy}")
        # A hospital may close a place further, but not open it.
        if stat.S_IMODE(found.st_mode) & ~mode:
            raise ConfigError(
                f"{path}: its mode is {stat.S_IMODE(found.st_mode):o}, not {mode:o}: others could "
                f"reach it; {remedy}"
            )
    if os.geteuid() == 0:
        _try(folder, users, site)


def records_of(site: Site) -> list[Path]:
    """Return the files and folders that site.yaml names: records, lists, the ledger's anchor.

    Args:
        site: As its site.yaml declares it.
    """
    return [*paths_in(site.data).values(), *paths_in(site).values()]


def _layout(folder: Path, users: Users, site: Site | None) -> Iterator[tuple[Path, int, int, int]]:
    """Yield path, user, group and mode of each part, the folder first."""
    guard, node = users.guard, users.node
    yield folder, 0, node.gid, 0o710
    for name in ("site.yaml", "policy.yaml"):
        yield folder / name, 0, guard.gid, 0o640
    yield folder / FILE, 0, 0, 0o644
    yield folder / "state", guard.uid, guard.gid, 0o700
    yield folder / "anchor", guard.uid, guard.gid, 0o700
    yield folder / "run", 0, node.gid, 0o710
    yield folder / "run" / "guard", guard.uid, node.gid, 0o2710
    yield folder / "kit", 0, node.gid, 0o750
    yield folder / "node.key", node.uid, node.gid, 0o600
    yield folder / "flower", node.uid, node.gid, 0o700
    yield folder / "logs", 0, 0, 0o700
    if site is None:
        return
    for place in records_of(site):
        if place == site.ledger_anchor:
            if place.exists():
                yield place, guard.uid, guard.gid, 0o600
        elif place.exists() and place.parent.resolve() == folder.resolve():
            yield place, 0, guard.gid, 0o750 if place.is_dir() else 0o640


def _below(folder: Path) -> Iterator[Path]:
    """Yield everything in a folder, without following links."""
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(root) / name


def _try(folder: Path, users: Users, site: Site) -> None:
    """Try as each user: records may be outside the folder, with the hospital's own permissions."""
    guard = [*users.guard.groups(), users.node.gid]
    node = users.node.groups()
    for user, groups in ((users.guard, guard), (users.node, node)):
        for code, need in _code().items():
            if _fails(user, groups, "test", need, code):
                raise ConfigError(
                    f"{code}: {user.name} cannot {'run' if need == '-x' else 'read'} what is "
                    "installed there: install fedmedformer where all users can read, such as /opt"
                )
        # Code that the node's user can change would run as the guard.
        if not _fails(user, groups, "test", "-w", sys.prefix):
            raise ConfigError(f"{sys.prefix}: {user.name} can change what is installed there")
    anchor = site.ledger_anchor
    if anchor is not None and _fails(users.guard, guard, "test", "-w", str(anchor.parent)):
        raise ConfigError(f"{anchor.parent}: {users.guard.name} cannot write the anchor there")
    own = [folder.absolute() / name for name in ("site.yaml", "policy.yaml", "state")]
    for place in filter(Path.exists, (*own, *records_of(site))):
        if not _fails(users.node, node, "test", "-r", str(place)):
            raise ConfigError(
                f"{place}: can be read by {users.node.name}, the user of the consortium's code: "
                f"chmod o-rwx, and give it to the group {users.guard.group}"
            )
        find = ("find", str(place), "!", "-readable", "-print", "-quit")
        # `find` fails at a folder that is closed, and prints a file that is.
        if closed := _fails(users.guard, guard, *find) or _output(users.guard, guard, *find):
            raise ConfigError(f"{closed}: {users.guard.name} cannot read it (chgrp, chmod g+r)")


def _code() -> dict[str, str]:
    """Return the places of this Python's code, and the test that its user has to pass there."""
    return {sys.executable: "-x", **{p: "-r" for p in sys.path if os.path.exists(p)}}


def _fails(user: User, groups: list[int], *command: str) -> str:
    """Run a command as a user; return what it prints if it fails, and nothing if it succeeds."""
    done = _run(user, groups, command)
    return (done.stderr.strip() or "no") if done.returncode else ""


def _output(user: User, groups: list[int], *command: str) -> str:
    return _run(user, groups, command).stdout.strip()


def _run(
    user: User, groups: list[int], command: tuple[str, ...]
) -> "subprocess.CompletedProcess[str]":
    others = [gid for gid in groups if gid != user.gid]
    # From /, because the present folder may be closed to this user.
    return subprocess.run(
        command, user=user.uid, group=user.gid, extra_groups=others, cwd="/",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
