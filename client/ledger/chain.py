"""The rows of a ledger and their chain of SHA-256 hashes.

The hash of a row covers its fields and the hash of the row before, so the newest hash vouches for
every row.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from medformer.errors import MedFormerError

FILE = "ledger.sqlite"
"""Name of the ledger in a site's state folder."""

TYPES = (int, str, str, str, str, str)
"""Types of a row's fields, without its hash."""


class LedgerError(MedFormerError):
    """The ledger cannot be read or written, or was changed: nothing may be trained."""


@dataclass(frozen=True)
class Row:
    """One entry, as the file and an export hold it."""

    seq: int
    """Number of the row: from 1, without gaps."""
    time: str
    """Time of the site's clock, in UTC; nothing depends on it."""
    kind: str
    run_id: str
    body: str
    """Content of the row, as JSON."""
    previous: str
    """Hash of the row before; empty in the first."""
    hash: str

    @classmethod
    def after(cls, last: "Row | None", time: str, kind: str, run_id: str, body: str) -> "Row":
        """Return the row that follows `last`.

        Args:
            last: The newest row; None for the first row of a ledger.
            time: Time of the row, as ISO text.
            kind: What the row records, for example `reservation`.
            run_id: The run that it belongs to; empty where there is none.
            body: Content, as JSON.
        """
        seq, previous = (last.seq + 1, last.hash) if last else (1, "")
        return cls(seq, time, kind, run_id, body, previous, _digest(
            seq, time, kind, run_id, body, previous
        ))  # fmt: skip

    @property
    def fits(self) -> bool:
        """True if the row's hash is that of its fields."""
        *fields, digest = asdict(self).values()
        # Anyone can compute a hash: fields of other types would fit it and break every reader.
        if any(type(field) is not kind for field, kind in zip(fields, TYPES, strict=True)):
            return False
        return bool(digest == _digest(*fields))

    @property
    def values(self) -> dict[str, Any]:
        """The body, parsed."""
        values: dict[str, Any] = json.loads(self.body)
        return values


def checked(rows: Iterable[Row], name: str) -> Iterator[Row]:
    """Yield the same rows, each after a check that it follows the row before.

    Args:
        rows: Rows of a ledger, oldest first.
        name: Name of the file, for the error.
    Raises:
        LedgerError: Names the first row that does not fit.
    """
    # The number is checked besides the hash: rows cut off at the front would still be a chain.
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
    """Return the SHA-256 of a row's fields, the hash of the row before among them."""
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()
