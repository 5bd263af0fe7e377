"""The append-only table of a ledger: one SQLite file, every commit synced to the disk.

Triggers refuse UPDATE and DELETE, and each row is chained to the one before by SHA-256. A file
cannot detect that it is an old copy of itself. With an anchor, a small file outside the state
folder, each row is therefore written to the anchor first and to the ledger second: a ledger that
lacks more than the anchor's row was restored from a backup and is refused, and a ledger that lacks
exactly that row gets it appended.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.ledger.anchor import held_by_anchor, write_anchor
from client.ledger.chain import LedgerError, Row, checked

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    kind TEXT NOT NULL,
    run_id TEXT NOT NULL,
    body TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE
);
CREATE INDEX IF NOT EXISTS by_run ON entries (kind, run_id);
CREATE TABLE IF NOT EXISTS refusals (
    run_id TEXT NOT NULL,
    code TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (run_id, code)
);
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""

Clock = Callable[[], str]
"""Returns the time that a row records, as ISO text in UTC; nothing depends on it."""


def utc_now() -> str:
    """Return the machine's time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Rows:
    """Open the table of one ledger, and create the file at first use.

    Args:
        path: The SQLite file.
        anchor: File that keeps the newest row, where a backup of the state folder does not reach.
        clock: Read once for each row.
    Raises:
        LedgerError: The file cannot be opened, or its index is damaged.
    """

    def __init__(self, path: Path, anchor: Path | None = None, clock: Clock = utc_now) -> None:
        self.path = path
        self._anchor = anchor
        self._clock = clock
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # SQLite gives the files that it writes beside the ledger the same mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            # No implicit transactions: `transaction` begins and ends each of them.
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._db.execute("PRAGMA journal_mode=WAL")
            # FULL syncs every commit: budget must survive a power cut before the first gradient.
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            problems = [text for (text,) in self._db.execute("PRAGMA integrity_check(1)")]
            if problems != ["ok"]:  # an index that lost a row would hide what it cost
                raise sqlite3.DatabaseError(problems[0])
        # UnicodeError: SQLite's own messages quote damaged bytes.
        except (OSError, sqlite3.Error, UnicodeError) as error:
            raise LedgerError(
                f"{path}: the ledger cannot be opened ({error}). Nothing is trained without it: "
                "restore the newest copy or repair the disk"
            ) from error

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Let one writer at a time across processes decide and write, all or nothing.

        What was written is on the disk when the block ends.

        Raises:
            LedgerError: The disk is full, read-only or damaged; then nothing was written.
        """
        try:
            # IMMEDIATE takes the writer's lock before the first read: a budget that was read
            # without it could be spent twice.
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:  # a full disk has rolled it back already
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(
                f"{self.path}: the ledger cannot be written ({error}). Nothing is trained "
                "without it: free or repair the disk"
            ) from error

    def append(self, kind: str, run_id: str, body: dict[str, Any]) -> Row:
        """Append a row, to the anchor first; at most one row in a transaction.

        Args:
            kind: What the row records, for example `reservation`.
            run_id: The run that it belongs to; empty where there is none.
            body: Written as JSON with sorted keys.
        Returns:
            The row with its number and hash.
        """
        row = Row.after(self.last(), self._clock(), kind, run_id, json.dumps(body, sort_keys=True))
        # A crash after the anchor leaves a row that `catch_up` appends: budget is never lost.
        if self._anchor is not None:
            write_anchor(self._anchor, row)
        self._insert(row)
        return row

    def of_kind(self, kind: str, run_id: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield number and body of each row of a kind, oldest first.

        Args:
            kind: As `append` took it.
            run_id: Only rows of this run.
        """
        query, args = "SELECT seq, body FROM entries WHERE kind = ?", [kind]
        if run_id is not None:
            query, args = query + " AND run_id = ?", [kind, run_id]
        for seq, body in self._db.execute(query + " ORDER BY seq", args).fetchall():
            yield seq, json.loads(body)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return all results of a SELECT.

        Args:
            sql: The statement; it must not change anything.
        """
        return self._db.execute(sql).fetchall()

    def last(self) -> Row | None:
        """Return the newest row, or None of an empty ledger."""
        found = self._db.execute("SELECT * FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        return Row(*found) if found else None

    def row(self, seq: int) -> Row | None:
        """Return a row, or None if there is no such row.

        Args:
            seq: Number of the row, from 1.
        """
        found = self._db.execute("SELECT * FROM entries WHERE seq = ?", [seq]).fetchone()
        return Row(*found) if found else None

    def holds(self, hash_: str) -> bool:
        """Tell whether a row exists; every row before it then exists too.

        Args:
            hash_: Hash of the row.
        """
        return bool(self._db.execute("SELECT 1 FROM entries WHERE hash = ?", [hash_]).fetchone())

    def all(self) -> list[Row]:
        """Return every row, oldest first, unchecked.

        Raises:
            LedgerError: The file cannot be read.
        """
        try:
            rows = self._db.execute("SELECT * FROM entries ORDER BY seq").fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            raise LedgerError(f"{self.path}: the ledger cannot be read ({error})") from error
        return [Row(*row) for row in rows]

    def verify(self) -> None:
        """Recompute the hash chain.

        Raises:
            LedgerError: Names the first row that does not fit.
        """
        for _ in checked(self.all(), str(self.path)):
            pass

    def catch_up(self) -> None:
        """Compare the ledger with its anchor, and append a row that only the anchor holds.

        Raises:
            LedgerError: The ledger is older than its anchor, or belongs to another one.
        """
        if self._anchor is None:
            return
        with self.transaction():
            rows = self.all()
            missing = held_by_anchor(rows, self._anchor, self.path)
            if missing is not None:
                self._insert(missing)
            elif not self._anchor.exists():
                # A site may add an anchor later. From this row on, a missing anchor is an error.
                self.append("anchor", "", {})

    def _insert(self, row: Row) -> None:
        self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", astuple(row))
