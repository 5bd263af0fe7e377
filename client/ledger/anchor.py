"""The newest row of a ledger, kept where a backup of the state folder does not reach."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from client.ledger.chain import LedgerError, Row
from medformer.common.files import replace_file


def write_anchor(path: Path, row: Row) -> None:
    """Keep the newest row, durably, for this user's eyes."""
    replace_file(path, json.dumps(asdict(row)).encode(), mode=0o600)


def read_anchor(path: Path) -> Row | None:
    """The newest row that was written, or None if there is no such file.

    Raises:
        LedgerError: Unreadable or damaged.
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
    """Hold a ledger against its anchor.

    Args:
        rows: All of the ledger, checked.
        path: Of the ledger, for the errors.
    Returns:
        The row that a crash left in the anchor only; None where nothing is to be done.
    Raises:
        LedgerError: The ledger is older than its anchor, or not the anchor's; or the anchor is
            gone.
    """
    newest = read_anchor(anchor)
    if newest is None:
        if any(row.kind == "anchor" for row in rows):
            raise LedgerError(
                f"{anchor}: the ledger's anchor is missing, so nobody can tell whether {path} is "
                "an old copy. Restore the anchor"
            )
        return None
    last = rows[-1] if rows else None
    if last is None or last.seq < newest.seq:
        if newest.previous != (last.hash if last else ""):
            raise LedgerError(
                f"{path}: the ledger ends with row {last.seq if last else 0}, its anchor {anchor} "
                f"with row {newest.seq}: an old copy was put back. Budget was spent since then; "
                "restore the newest copy"
            )
        return newest
    if newest != rows[newest.seq - 1]:
        raise LedgerError(
            f"{path}: row {newest.seq} of the ledger is not the one that its anchor {anchor} "
            "holds. Nothing is trained on it: restore the newest copy"
        )
    return None
