"""Runs that wait for a person's approval, and the answers given."""

import json
from collections.abc import Mapping

from client.ledger.rows import Rows
from client.refusals import BadRequest

MAX_WAITING = 100
"""Number of runs that may wait for approval: a server cannot fill the disk with requests."""

MAX_REASON = 200
"""Characters of the reason of a no."""


class Approvals:
    """Requests for approval and the answers to them, as rows of a ledger.

    Args:
        rows: The ledger's table.
        max_waiting: Number of runs that may wait at a time.
    """

    def __init__(self, rows: Rows, max_waiting: int = MAX_WAITING) -> None:
        self._rows = rows
        self._max_waiting = max_waiting

    def ask(self, run_id: str, schedule: str, model: str, cost: Mapping[str, float] = {}) -> None:
        """Record, once, that a run waits for approval.

        Args:
            run_id: The run.
            schedule: `server.protocol.Schedule` as canonical JSON.
            model: The public model vocabulary as JSON.
            cost: What the run would cost, for who reads the question; `reserve` computes it anew.
        Raises:
            BadRequest: The run asked before with another schedule or model, or too many wait.
        """
        with self._rows.transaction():
            # A server asks again after every restart: only the first request is recorded.
            for _, asked in self._rows.of_kind("asked", run_id):
                if (asked["schedule"], asked["model"]) != (schedule, model):
                    raise BadRequest("this run has asked with another schedule or model")
                return
            if len(self.waiting()) >= self._max_waiting:
                raise BadRequest("too many runs wait for this site's approval")
            self._rows.append("asked", run_id, {"schedule": schedule, "model": model, **cost})

    def waiting(self, run_id: str | None = None) -> dict[str, tuple[str, str]]:
        """Return schedule and model of each run that nobody has answered.

        Args:
            run_id: Only this run.
        Returns:
            Run -> (schedule, model), as `ask` recorded them, oldest first.
        Raises:
            BadRequest: `run_id` does not wait.
        """
        # An answer is one to every request under the same name: `ask` admits only one.
        query = (
            "SELECT run_id, body FROM entries WHERE kind = 'asked' AND run_id NOT IN "
            "(SELECT run_id FROM entries WHERE kind IN ('approval', 'denial')) ORDER BY seq"
        )
        found = {}
        for run, text in self._rows.query(query):
            body = json.loads(text)
            found[run] = (body["schedule"], body["model"])
        if run_id is None:
            return found
        if run_id not in found:
            known = ", ".join(sorted(found)) or "none"
            raise BadRequest(f"the run {run_id!r} does not wait for approval; waiting: {known}")
        return {run_id: found[run_id]}

    def approve(self, run_id: str, who: str) -> None:
        """Record that a person approved a run as it asked.

        Args:
            run_id: The run.
            who: Name of the person's account.
        Raises:
            BadRequest: No such run waits.
        """
        with self._rows.transaction():
            # Checked within the transaction: two people may approve at the same time.
            self.waiting(run_id)
            self._rows.append("approval", run_id, {"who": who})

    def deny(self, run_id: str, who: str, why: str) -> None:
        """Record that a person said no to a run; the same run cannot be approved any more.

        Args:
            run_id: The run.
            who: Name of the person's account.
            why: The reason, which the coordinator will read: one line of 1 to 200 characters.
        Raises:
            BadRequest: No such run waits, or the reason is empty, too long or not one line.
        """
        if not 0 < len(why.strip()) <= MAX_REASON or not why.isprintable():
            raise BadRequest(f"the reason has to be one line of 1 to {MAX_REASON} characters")
        with self._rows.transaction():
            self.waiting(run_id)
            self._rows.append("denial", run_id, {"who": who, "why": why.strip()})

    def denied(self, run_id: str) -> str | None:
        """Return the reason for which a person said no to a run; None if nobody has.

        Args:
            run_id: The run.
        """
        return next((body["why"] for _, body in self._rows.of_kind("denial", run_id)), None)

    def approved(self, run_id: str, schedule: str, model: str) -> bool:
        """Tell whether a run was approved with exactly this schedule and model.

        Args:
            run_id: The run.
            schedule: `server.protocol.Schedule` as canonical JSON.
            model: The public model vocabulary as JSON.
        """
        # The request is compared, too: what a person read is what may run.
        asked = [(b["schedule"], b["model"]) for _, b in self._rows.of_kind("asked", run_id)]
        return (schedule, model) in asked and any(self._rows.of_kind("approval", run_id))
