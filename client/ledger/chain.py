"""The rows of a ledger, chained by SHA-256: how they are hashed, read and checked."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from medformer.errors import MedFormerError

FILE = "ledger.sqlite"
"""Name of the ledger in a site's state folder."""

TYPES = (int, str, str, str, str, str)
"""Of a row's fields, its hash left out."""


class LedgerError(MedFormerError):
    """The ledger cannot be read or written, or was changed: nothing may be trained."""


@dataclass(frozen=True)
class Row:
    """One entry, as it lies in the file and in an export."""

    seq: int
    """From 1, without gaps."""
    time: str
    """UTC, as the site's clock said; nothing depends on it."""
    kind: str
    run_id: str
    body: str
    """JSON."""
    previous: str
    """Hash of the row before; empty in the first."""
    hash: str

    @classmethod
    def after(cls, last: "Row | None", time: str, kind: str, run_id: str, body: str) -> "Row":
        """The row that follows `last`."""
        seq, previous = (last.seq + 1, last.hash) if last else (1, "")
        return cls(seq, time, kind, run_id, body, previous, _digest(
            seq, time, kind, run_id, body, previous
        ))  # fmt: skip

    @property
    def fits(self) -> bool:
        """Whether its hash is that of its own fields."""
        *fields, digest = asdict(self).values()
        if any(type(field) is not kind for field, kind in zip(fields, TYPES, strict=True)):
            return False
        return bool(digest == _digest(*fields))

    @property
    def values(self) -> dict[str, Any]:
        """The body."""
        values: dict[str, Any] = json.loads(self.body)
        return values


def checked(rows: Iterable[Row], name: str) -> Iterator[Row]:
    """The same rows, each after it was seen to follow the one before.

    Args:
        name: Of the file, for the error.
    Raises:
        LedgerError: Names the first row that does not fit.
    """
    last: Row | None = None
    for number, row in enumerate(rows, start=1):
        if row.seq != number or row.previous != (last.hash if last else "") or not row.fits:
            raise LedgerError(
                f"{name}: row {number} of the ledger was changed or is missing. Nothing is trained "
                "on a ledger that cannot be trusted: restore the newest copy"
            )
        yield row
        last = row


def _digest(*fields: object) -> str:
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()
