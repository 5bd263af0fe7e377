"""Reports on the ledger: those that the site has compared with it, and countersigned."""

import re

from client.ledger.rows import Rows
from client.refusals import BadRequest

MAX_REPORTS = 100
"""Number of reports of one run that a site countersigns: a coordinator may make one again."""


class Reports:
    """The rows of a ledger that keep the hashes of reports.

    Args:
        rows: The ledger's table.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def check_open(self, run_id: str) -> None:
        """Refuse to go on with a run whose report the site has countersigned: it would hide that.

        Args:
            run_id: The run.
        Raises:
            BadRequest: There is such a report.
        """
        if any(True for _ in self._rows.of_kind("report", run_id)):
            raise BadRequest(
                "this site has countersigned the report of this run: it takes part in no more of it"
            )

    def keep(self, run_id: str, sha256: str) -> str:
        """Keep the hash of a report; the same report has one row.

        Args:
            run_id: The run.
            sha256: SHA-256 of its report.
        Returns:
            Hash of the row.
        Raises:
            BadRequest: It is no such hash, or there are too many reports of this run.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise BadRequest("the hash of a report is 64 hexadecimal digits")
        with self._rows.transaction():
            known = list(self._rows.of_kind("report", run_id))
            for seq, body in known:
                if body["sha256"] == sha256:
                    row = self._rows.row(seq)
                    assert row is not None
                    return row.hash
            if len(known) >= MAX_REPORTS:
                raise BadRequest(f"this site has countersigned {MAX_REPORTS} reports of this run")
            return self._rows.append("report", run_id, {"sha256": sha256}).hash
