"""A site's durable record of what its patients' privacy has cost.

One file a site, for the life of its record set: new runs, new servers and restarts compose onto it.
Budget is written before the first gradient and never handed back. The table underneath
(`client.ledger.rows`) is append-only, chained by hashes and synced to the disk at every commit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.ledger.approvals import Approvals
from client.ledger.budget import Account
from client.ledger.chain import FILE, LedgerError
from client.ledger.measurements import Measurements
from client.ledger.refused import Refused
from client.ledger.reports import Reports
from client.ledger.rows import Clock, Rows, utc_now
from client.privacy.plan import PrivacyPlan
from client.refusals import AttemptLost, BadRequest, BudgetExhausted
from client.site import Privacy, Site


@dataclass(frozen=True)
class Reservation:
    """A whole run's budget, written before its first gradient."""

    row: int
    """Number of the ledger row. Seeds of simulated noise derive from it: no two runs share any."""
    hash: str
    """Hash of that row, and so of all rows before it; a server receives it."""
    run_id: str
    schedule: str
    """`server.protocol.Schedule` as canonical JSON."""
    model: str
    """The public model vocabulary as JSON."""
    plan: PrivacyPlan

    @property
    def rounds(self) -> int:
        """Number of planned rounds."""
        return self.plan.rounds

    @property
    def spare_rounds(self) -> int:
        """Number of rounds that may be trained again."""
        return self.plan.spare_rounds


class Ledger:
    """Open one site's ledger; the file is created, and the budget registered, at first use.

    Attributes: `rows` (the table), `account` (budget and cost of all runs), `approvals` (runs that
    wait for a person), `measurements` (of final models), `reports`, `refused` (refused requests).

    Args:
        path: The SQLite file.
        privacy: The site's declaration. Budget and rule are registered once; a later declaration
            may lower the budget, never raise it.
        anchor: File that keeps the newest row, where a backup of the state folder does not reach.
        begun: Whether the site has trained before: a ledger without a row was then lost.
        clock: Time of each row.
    Raises:
        LedgerError: The file cannot be read or written, was changed by hand, is older than its
            anchor, or is registered for a smaller budget.
    """

    def __init__(
        self,
        path: Path,
        privacy: Privacy,
        anchor: Path | None = None,
        *,
        begun: bool = False,
        clock: Clock = utc_now,
    ) -> None:
        self.rows = Rows(path, anchor, clock)
        self.account = Account(self.rows)
        self.approvals = Approvals(self.rows)
        self.measurements = Measurements(self.rows)
        self.reports = Reports(self.rows)
        self.refused = Refused(self.rows)
        try:
            self.rows.verify()
            # An anchor detects a lost ledger itself, in `catch_up`.
            if begun and anchor is None and self.rows.last() is None:
                raise LedgerError(
                    f"{path}: the ledger is missing or empty, but this site has trained before: "
                    "budget was spent that no row records. Restore the newest copy"
                )
            self.rows.catch_up()
            self.account.register(privacy)
        except LedgerError:
            self.close()
            raise

    @classmethod
    def of(cls, site: Site, folder: Path) -> "Ledger":
        """Open the ledger in a site's state folder, with the site's anchor.

        Args:
            site: The site's declaration.
            folder: Its state folder.
        Raises:
            LedgerError: As the constructor; or the ledger is empty although the site has trained.
        """
        return cls(
            folder / FILE, site.privacy, site.ledger_anchor, begun=(folder / "runs").exists()
        )

    def close(self) -> None:
        """Release the file."""
        self.rows.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reserve(self, run_id: str, schedule: str, model: str, plan: PrivacyPlan) -> Reservation:
        """Admit a whole run: all planned rounds and the spares, in one durable transaction.

        Asking again for the same run and schedule returns the existing reservation.

        Args:
            run_id: The run.
            schedule: `server.protocol.Schedule` as canonical JSON.
            model: The public model vocabulary as JSON.
            plan: The run's plan at this site.
        Returns:
            The reservation, on the disk.
        Raises:
            BudgetExhausted: The lifetime budget does not cover the run; nothing is written.
            BadRequest: The run was admitted with another schedule or model.
        """
        with self.rows.transaction():
            # A server that lost the answer asks again: it must not be charged twice.
            standing = self.reservation(run_id)
            if standing is not None:
                if (standing.schedule, standing.model) != (schedule, model):
                    raise BadRequest("this run was admitted with another schedule or model")
                return standing
            self.account.check(plan)
            body = {
                "schedule": schedule,
                "model": model,
                **self.account.cost(plan).values(),
                "plan": plan.to_json(),
            }
            self.rows.append("reservation", run_id, body)
        standing = self.reservation(run_id)
        assert standing is not None
        return standing

    def reservation(self, run_id: str) -> Reservation | None:
        """Return the run's reservation, or None if it was not admitted here."""
        for seq, body in self.rows.of_kind("reservation", run_id):
            row = self.rows.row(seq)
            assert row is not None
            return Reservation(
                row=seq,
                hash=row.hash,
                run_id=run_id,
                schedule=body["schedule"],
                model=body["model"],
                plan=PrivacyPlan.from_json(body["plan"]),
            )
        return None

    def start_attempt(self, reservation: Reservation, round_: int, attempt: int, key: str) -> str:
        """Record that a round is about to be trained, before its first gradient.

        Attempt 0 uses the round's own reservation; every further attempt uses up a spare round.

        Args:
            reservation: The admitted run.
            round_: Number of the round, from 1.
            attempt: 0 at first; then the number of attempts of this round so far.
            key: Digest of the request.
        Returns:
            Hash of the row.
        Raises:
            AttemptLost: This very attempt was started before and left no answer.
            BadRequest: It is not the next attempt, another request had the same number, or the
                round is outside the schedule.
            BudgetExhausted: No spare round is left.
        """
        # Only admitted rounds were paid for.
        if not 1 <= round_ <= reservation.rounds:
            raise BadRequest(f"round {round_} is outside the admitted 1..{reservation.rounds}")
        with self.rows.transaction():
            started = [body for _, body in self.rows.of_kind("attempt", reservation.run_id)]
            _check_attempt(started, round_, attempt, key)
            # Spares belong to the run, not to the round: count those of every round.
            spares_used = sum(b["attempt"] > 0 for b in started)
            if attempt > 0 and spares_used >= reservation.spare_rounds:
                raise BudgetExhausted(
                    f"all {reservation.spare_rounds} spare rounds of this run are used: the round "
                    "cannot be trained again"
                )
            body = {"round": round_, "attempt": attempt, "key": key}
            return self.rows.append("attempt", reservation.run_id, body).hash

    def holds(self, hash_: str) -> bool:
        """Tell whether a row whose hash a server received exists; all rows before it do too."""
        return self.rows.holds(hash_)

    def record_answer(self, run_id: str, round_: int, attempt: int, key: str, sha256: str) -> None:
        """Record that an answer is on the disk, before it is sent.

        Args:
            run_id: The run.
            round_: Number of the round.
            attempt: Number of the attempt.
            key: Digest of the request that it answers.
            sha256: Digest of the stored answer.
        """
        body = {"round": round_, "attempt": attempt, "key": key, "sha256": sha256}
        with self.rows.transaction():
            self.rows.append("answer", run_id, body)

    def answers(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Return, for each request key, the row written when its answer was stored."""
        return {body["key"]: body for _, body in self.rows.of_kind("answer", run_id)}

    def record_count(self, run_id: str, sha256: str) -> None:
        """Record that the run's classes were counted, before the counts are used.

        Args:
            run_id: The run.
            sha256: Digest of the stored noisy counts.
        """
        with self.rows.transaction():
            self.rows.append("class-balance", run_id, {"sha256": sha256})

    def count(self, run_id: str) -> str | None:
        """Return the SHA-256 of the run's noisy class counts, or None before they were counted."""
        return next((b["sha256"] for _, b in self.rows.of_kind("class-balance", run_id)), None)


def _check_attempt(
    started: Sequence[Mapping[str, Any]], round_: int, attempt: int, key: str
) -> None:
    """Refuse an attempt that is not the next one of its round.

    Args:
        started: Bodies of the run's `attempt` rows.
        round_, attempt, key: As `Ledger.start_attempt` takes them.
    """
    here = {b["attempt"]: b["key"] for b in started if b["round"] == round_}
    if attempt in here:
        # Another request would be trained on the budget of the first one.
        if here[attempt] != key:
            raise BadRequest(f"attempt {attempt} of round {round_} was another request")
        raise AttemptLost(
            f"attempt {attempt} of round {round_} was started and has no answer to give: "
            "ask for the next attempt, which is paid from the spare rounds"
        )
    # A skipped number would hide an attempt from the count of spares.
    if attempt != len(here):
        raise BadRequest(f"the next attempt of round {round_} is {len(here)}")
