"""The place at which a ledger is in use, as a row of it: a copy elsewhere is found and refused.

Two guards with a copy each of one state folder would spend its budget twice. Each copy is valid in
itself, so that its chain shows nothing. A copy of a file has another inode, and another machine has
another machine id: the guard writes both to the ledger when it first serves it, and serves no
ledger that names another place. Whoever restores a backup, or moves the folder to another disk or
machine, says so with `fedmedformer site restored`, which is a row, too.

Not found: a clone of a whole disk or virtual machine with its machine id, or a snapshot of a file
system, which keeps inodes; and a copy that was made before the first of these rows.
"""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from client.ledger.approvals import MAX_REASON
from client.ledger.chain import FILE, LedgerError, Row
from client.ledger.rows import Rows
from client.site import Site
from medformer.errors import ConfigError, one_line

MACHINE_ID = Path("/etc/machine-id")
KINDS = ("home", "restored")
"""Kinds of rows that name a place."""


@dataclass(frozen=True)
class Place:
    """A file on a machine."""

    inode: int
    """Number of the ledger's file in its file system; a copy has another one."""
    machine: str
    """Digest of the machine's id; empty where there is none, as in most containers."""
    host: str
    """Name of the machine, for people; nothing depends on it."""

    def same(self, other: "Place") -> bool:
        """Tell whether both are one place, as far as can be known.

        Args:
            other: Another place.
        """
        one_machine = self.machine == other.machine or not (self.machine and other.machine)
        return self.inode == other.inode and one_machine


def place_of(path: Path, machine_id: Path = MACHINE_ID) -> Place:
    """Return the place of a ledger's file.

    Args:
        path: The ledger's file.
        machine_id: File of the machine's id, as systemd writes it.
    Raises:
        LedgerError: The file has a second name, under which it could be used, too.
    """
    found = path.stat()
    if found.st_nlink > 1:
        raise LedgerError(
            f"{path}: the ledger's file has {found.st_nlink} names (hard links): remove the other "
            "ones. A backup is a copy, not a link"
        )
    try:
        text = machine_id.read_text().strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    # As systemd asks: the id itself stays on the machine. `uninitialized` is no id.
    digest = hashlib.sha256(f"fedmedformer ledger {text}".encode()).hexdigest()[:16]
    return Place(found.st_ino, digest if len(text) == 32 else "", one_line(platform.node(), 80))


def refuse_copy(rows: Sequence[Row], path: Path) -> None:
    """Refuse a ledger that is in use at another place.

    Args:
        rows: Its rows, oldest first.
        path: Its file.
    Raises:
        LedgerError: It is a copy; says of what, and what to do if it is to be used.
    """
    last = next((row for row in reversed(rows) if row.kind in KINDS), None)
    if last is None:
        return
    known, here = _place(last), place_of(path)
    if not known.same(here):
        raise LedgerError(
            f"{path}: this ledger was in use elsewhere (row {last.seq}, {last.time}, on "
            f"{known.host or 'another machine'}), so this is a copy: used by two guards, it would "
            "spend the budget twice. If it was restored or moved, and the other one is gone for "
            "good: fedmedformer site restored FOLDER --why 'REASON'"
        )


class Home:
    """Looks at where a site's ledger is, before a guard answers.

    Args:
        site: The site's declaration.
        folder: Its state folder.
    """

    def __init__(self, site: Site, folder: Path) -> None:
        self._path, self._anchor = folder / FILE, site.ledger_anchor
        self._checked: int | None = None

    def check(self) -> None:
        """Refuse a copy, and write the place of a ledger that names none; else cost nothing.

        Raises:
            LedgerError: The ledger is a copy, or cannot be read or written.
        """
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            return  # the first request makes it
        # Another file under this name, while the guard is up, is looked at, too.
        if inode == self._checked:
            return
        rows = Rows(self._path, self._anchor)
        try:
            rows.verify()
            rows.catch_up()
            with rows.transaction():
                known = rows.all()
                refuse_copy(known, self._path)
                # An empty ledger is not in use: its first row is the budget.
                if known and not any(row.kind in KINDS for row in known):
                    rows.append("home", "", asdict(place_of(self._path)))
            if known:
                self._checked = inode
        finally:
            rows.close()


def restore(site: Site, folder: Path, who: str, why: str) -> Row | None:
    """Take a copy of a state folder into use, because the other one is gone for good.

    Args:
        site: The site's declaration.
        folder: The state folder.
        who: Name of the person's account.
        why: One line of 1 to 200 characters.
    Returns:
        The new row; None if it is in use at this very place: the file system may give the number
        of a file that was deleted to the next one.
    Raises:
        ConfigError: The reason is not one line.
        LedgerError: There is no ledger, it is older than its anchor, or it was changed.
    """
    if not 0 < len(why.strip()) <= MAX_REASON or not why.isprintable():
        raise ConfigError(f"--why has to be one line of 1 to {MAX_REASON} characters")
    path = folder / FILE
    if not path.is_file():
        raise LedgerError(f"{path}: there is no ledger here. Put the copy into its place first")
    rows = Rows(path, site.ledger_anchor)
    try:
        rows.verify()
        rows.catch_up()
        here = place_of(path)
        with rows.transaction():
            named = [row for row in rows.all() if row.kind in KINDS]
            if not named or _place(named[-1]).same(here):
                return None
            body = {**asdict(here), "who": one_line(who, 80), "why": why.strip()}
            return rows.append("restored", "", body)
    finally:
        rows.close()


def _place(row: Row) -> Place:
    """Return the place that a row names; a row that nobody can read names none here."""
    body = row.values
    try:
        return Place(int(body["inode"]), str(body["machine"]), one_line(str(body["host"]), 80))
    except (KeyError, TypeError, ValueError):
        return Place(-1, "", "")
