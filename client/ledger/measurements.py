"""Measurements of final models on the ledger: one a run, charged before a record is read."""

from typing import NamedTuple

from client.ledger.rows import Rows


class Measurement(NamedTuple):
    """The measurement of a run's final model, as the ledger has it."""

    row: str
    """Hash of the row that charged it."""
    key: str
    """Digest of the request."""
    sha256: str | None
    """Digest of the stored counts; None if the site died before they were stored."""


class Measurements:
    """The rows of a ledger that charge and answer measurements.

    Args:
        rows: The ledger's table.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def start(self, run_id: str, key: str) -> str:
        """Record that the final model is about to be measured, before a record is read.

        Args:
            run_id: The run, which has no measurement yet.
            key: Digest of the request.
        Returns:
            Hash of the row.
        """
        with self._rows.transaction():
            return self._rows.append("measurement", run_id, {"key": key}).hash

    def record(self, run_id: str, key: str, sha256: str) -> None:
        """Record that the noisy counts are on the disk, before they are sent.

        Args:
            run_id: The run.
            key: Digest of the request that they answer.
            sha256: Digest of the stored counts.
        """
        with self._rows.transaction():
            body = {"key": key, "sha256": sha256}
            self._rows.append("measurement-answer", run_id, body)

    def of(self, run_id: str) -> Measurement | None:
        """Return the run's measurement, or None before it was started.

        Args:
            run_id: The run.
        """
        for seq, started in self._rows.of_kind("measurement", run_id):
            row = self._rows.row(seq)
            assert row is not None
            answers = self._rows.of_kind("measurement-answer", run_id)
            sha256 = next((body["sha256"] for _, body in answers), None)
            return Measurement(row.hash, started["key"], sha256)
        return None
