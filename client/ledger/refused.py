"""Refused requests in a ledger, counted for each run and code in logarithmically many rows."""

import re

from client.ledger.rows import Rows
from server.protocol import RUN_ID

MAX_COUNTED = 200
"""Number of pairs of run and code that are counted apart; all later runs are counted as one."""
MAX_REASON = 300
"""Characters of a refusal's reason that are recorded: some reasons quote the request."""


class Refused:
    """Refusals of a site, as rows of its ledger.

    Args:
        rows: The ledger's table.
        max_counted: Number of pairs of run and code that are counted apart.
    """

    def __init__(self, rows: Rows, max_counted: int = MAX_COUNTED) -> None:
        self._rows = rows
        self._max_counted = max_counted

    def note(self, request: str, run_id: str, code: str, reason: str) -> None:
        """Record that a request was refused; a function of requests, never of a record.

        Refusals of one run with one code are counted, and a row is written whenever the count has
        doubled: 1, 2, 4 and so on. However often a server asks and whatever it calls its runs, the
        rows grow with the logarithm of that number, so it cannot fill the disk.

        Args:
            request: Kind of the request.
            run_id: Recorded if it has the form of a run id.
            code: Code of the refusal.
            reason: The refusal's text; the first `MAX_REASON` characters are recorded.
        """
        run_id = run_id if re.fullmatch(RUN_ID, run_id) else ""
        with self._rows.transaction() as db:
            counts = {
                (run, about): count
                for run, about, count in db.execute("SELECT * FROM refusals").fetchall()
            }
            # A server that invents runs would otherwise add a pair with every request.
            if len(counts) >= self._max_counted and (run_id, code) not in counts:
                run_id = ""
            count = counts.get((run_id, code), 0) + 1
            db.execute("REPLACE INTO refusals VALUES (?, ?, ?)", [run_id, code, count])
            if count & (count - 1) == 0:  # a power of two
                body = {"request": request, "code": code, "count": count}
                self._rows.append("refusal", run_id, {**body, "reason": reason[:MAX_REASON]})
