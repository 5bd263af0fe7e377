"""The anchor of a ledger: its newest row, in a file that a backup of the state folder leaves out.

A ledger that is restored from a backup is valid in itself, but older than its anchor.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from client.ledger.chain import LedgerError, Row
from medformer.common.files import replace_file


def write_anchor(path: Path, row: Row) -> None:
    """Replace the anchor by the newest row, on the disk and readable by this user alone.

    Args:
        path: The anchor.
        row: The row that is about to be appended to the ledger.
    Raises:
        OSError: The file cannot be written.
    """
    replace_file(path, json.dumps(asdict(row)).encode(), mode=0o600)


def read_anchor(path: Path) -> Row | None:
    """Read the anchor.

    Args:
        path: The anchor.
    Returns:
        The newest row that was written, or None if there is no such file.
    Raises:
        LedgerError: The file is unreadable, damaged or changed.
    """
    try:
        row = Row(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise LedgerError(f"{path}: the ledger's anchor cannot be read ({error})") from error
    if not row.fits:
        raise LedgerError(f"{path}: the ledger's anchor was changed. Restore it")
    return row


def held_by_anchor(rows: Sequence[Row], anchor: Path, path: Path) -> Row | None:
    """Compare a ledger with its anchor.

    Args:
        rows: All rows of the ledger, checked.
        anchor: The anchor's file.
        path: The ledger's file, for the errors.
    Returns:
        The row that a crash left in the anchor only; None if the ledger is complete.
    Raises:
        LedgerError: The ledger is older than its anchor or not the anchor's, or has lost it.
    """
    newest = read_anchor(anchor)
    if newest is None:
        # The first row written with an anchor is of this kind: such a ledger had one.
        if any(row.kind == "anchor" for row in rows):
            raise LedgerError(
                f"{anchor}: the ledger's anchor is missing, so {path} cannot be told from an old "
                "copy. Restore the anchor"
            )
        return None
    last = rows[-1] if rows else None
    # The anchor is written first, so it may be ahead of the ledger, by one row.
    if last is None or last.seq < newest.seq:
        # One missing row is a crash between the two writes; more are an old copy.
        if newest.previous != (last.hash if last else ""):
            raise LedgerError(
                f"{path}: the ledger ends with row {last.seq if last else 0}, its anchor {anchor} "
                f"with row {newest.seq}: an old copy was put back. Budget was spent since; restore "
                "the newest copy"
            )
        return newest
    # The ledger may be ahead of its anchor, if the anchor itself comes from a backup. Its row
    # must then be in the ledger, or the anchor belongs to another one.
    if newest != rows[newest.seq - 1]:
        raise LedgerError(
            f"{path}: row {newest.seq} of the ledger is not the one that its anchor {anchor} "
            "holds. Nothing is trained on it: restore the newest copy"
        )
    return None
