"""The site's durable record of what its patients' privacy has cost.

One SQLite file a site, for the life of its record set: new runs, new servers and restarts compose
onto it. Append-only (triggers refuse UPDATE and DELETE), each row chained to the one before by
SHA-256, every commit synced to the disk. Budget is written before the first gradient and never
handed back.

A file cannot tell that it is an old copy of itself. With an `anchor`, a small file outside the
state folder, each row is written there first, then to the ledger: a ledger that lacks more than
this last row was put back from a backup and is refused, one that lacks just this row gets it.
"""

import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.ledger.anchor import held_by_anchor, write_anchor
from client.ledger.chain import FILE, LedgerError, Row, checked
from client.privacy.composition import Budget, Cost
from client.privacy.plan import PrivacyPlan
from client.refusals import AttemptLost, BadRequest, BudgetExhausted
from client.site import Privacy, Rule, Site
from medformer.common.rounding import digits_up, exact, rounded_up
from server.protocol import RUN_ID

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

MOST_WAITING = 100
"""Runs that may wait for approval: a server cannot fill the disk with requests."""
MOST_REFUSED = 200
"""Pairs of run and code whose refusals are counted apart; all later runs are counted as one."""
LONGEST_REASON = 300
"""Characters of a refusal's reason that are kept: some quote the request."""


@dataclass(frozen=True)
class Reservation:
    """A whole run's budget, written before its first gradient."""

    row: int
    """Ledger row; seeds of simulated noise derive from it, so no two runs share any."""
    hash: str
    """Of that row, and so of all rows before it: what a server is told."""
    run_id: str
    schedule: str
    """`server.protocol.Schedule` as canonical JSON."""
    model: str
    """The public model vocabulary as JSON."""
    plan: PrivacyPlan

    @property
    def rounds(self) -> int:
        """Planned rounds."""
        return self.plan.rounds

    @property
    def spare_rounds(self) -> int:
        """Rounds that may be trained again."""
        return self.plan.spare_rounds


class Ledger:
    """Open one site's ledger; creates the file, and registers the budget, at first use.

    Args:
        path: The SQLite file.
        privacy: Budget and rule are registered once; later ones may lower, never raise it.
        anchor: Keeps the newest row, where a backup of the state folder does not reach.
        begun: Something was trained before: a ledger without a row was lost.
    Raises:
        LedgerError: Unreadable, unwritable, changed by hand, older than its anchor, or registered
            for a smaller budget.
    """

    def __init__(
        self, path: Path, privacy: Privacy, anchor: Path | None = None, *, begun: bool = False
    ) -> None:
        self._path = path
        self._anchor = anchor
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite's own files follow it
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            problems = [text for (text,) in self._db.execute("PRAGMA integrity_check(1)")]
            if problems != ["ok"]:  # an index that lost a row would hide what it cost
                raise sqlite3.DatabaseError(problems[0])
        except (OSError, sqlite3.Error, UnicodeError) as error:  # it names damage by its bytes
            raise LedgerError(
                f"{path}: the ledger cannot be opened ({error}). Nothing is trained without it: "
                "restore the newest copy or repair the disk"
            ) from error
        try:
            self.verify()
            if begun and anchor is None and self._last() is None:
                raise LedgerError(
                    f"{path}: the ledger is missing or empty, but this site has trained: budget "
                    "was spent that nobody knows of. Restore the newest copy"
                )
            self._catch_up()
            self._register(privacy)
        except LedgerError:
            self._db.close()
            raise

    @classmethod
    def of(cls, site: Site, folder: Path) -> "Ledger":
        """Open the ledger in a site's state folder, with the site's anchor.

        Raises:
            LedgerError: As the constructor; or nothing is in it although the site has trained.
        """
        return cls(
            folder / FILE, site.privacy, site.ledger_anchor, begun=(folder / "runs").exists()
        )

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reserve(self, run_id: str, schedule: str, model: str, plan: PrivacyPlan) -> Reservation:
        """Admit a whole run: all planned rounds and the spares, in one durable transaction.

        Asking again for the same run and schedule returns the reservation that stands.

        Raises:
            BudgetExhausted: The lifetime budget does not cover it; nothing is written.
            BadRequest: The run was admitted with another schedule.
        """
        with self._transaction():
            standing = self.reservation(run_id)
            if standing is not None:
                if (standing.schedule, standing.model) != (schedule, model):
                    raise BadRequest("this run was admitted with another schedule or model")
                return standing
            self.check_budget(plan)
            body = {
                "schedule": schedule,
                "model": model,
                **self._cost(plan).values(),
                "plan": plan.to_json(),
            }
            self._append("reservation", run_id, body)
        standing = self.reservation(run_id)
        assert standing is not None
        return standing

    def reservation(self, run_id: str) -> Reservation | None:
        """The run's reservation, if it was admitted here."""
        for seq, body in self._rows("reservation", run_id):
            row = self._row(seq)
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

    def ask(self, run_id: str, schedule: str, model: str) -> None:
        """Write down, once, that a run waits for somebody's yes.

        Raises:
            BadRequest: The run asked before with another schedule, or too many wait already.
        """
        with self._transaction():
            for _, asked in self._rows("asked", run_id):
                if (asked["schedule"], asked["model"]) != (schedule, model):
                    raise BadRequest("this run has asked with another schedule or model")
                return
            if len(self.waiting()) >= MOST_WAITING:
                raise BadRequest("too many runs wait for this site's approval")
            self._append("asked", run_id, {"schedule": schedule, "model": model})

    def waiting(self, run_id: str | None = None) -> dict[str, tuple[str, str]]:
        """Run -> schedule and model, of the runs that nobody has said yes to.

        Args:
            run_id: Only this one.
        Raises:
            BadRequest: This one does not wait.
        """
        query = (
            "SELECT run_id, body FROM entries WHERE kind = 'asked' AND run_id NOT IN "
            "(SELECT run_id FROM entries WHERE kind = 'approval') ORDER BY seq"
        )
        found = {}
        for run, text in self._db.execute(query).fetchall():
            body = json.loads(text)
            found[run] = (body["schedule"], body["model"])
        if run_id is None:
            return found
        if run_id not in found:
            known = ", ".join(sorted(found)) or "none"
            raise BadRequest(f"the run {run_id!r} does not wait for approval; waiting: {known}")
        return {run_id: found[run_id]}

    def approve(self, run_id: str, who: str) -> None:
        """Write down that somebody said yes to a run as it asked.

        Raises:
            BadRequest: No such run waits.
        """
        with self._transaction():
            self.waiting(run_id)
            self._append("approval", run_id, {"who": who})

    def approved(self, run_id: str, schedule: str, model: str) -> bool:
        """Whether somebody said yes to this run with this very schedule and model."""
        asked = [(b["schedule"], b["model"]) for _, b in self._rows("asked", run_id)]
        return (schedule, model) in asked and any(self._rows("approval", run_id))

    def start_attempt(self, reservation: Reservation, round_: int, attempt: int, key: str) -> str:
        """Write down that a round is about to be trained, before its first gradient.

        Attempt 0 uses the round's own reservation; any further attempt uses up a spare round.

        Returns:
            Hash of the row.
        Raises:
            AttemptLost: This very attempt was started before and left no answer.
            BadRequest: Not the next attempt, another request under the same number, or a round
                outside the schedule.
            BudgetExhausted: No spare round is left.
        """
        if not 1 <= round_ <= reservation.rounds:
            raise BadRequest(f"round {round_} is outside the admitted 1..{reservation.rounds}")
        with self._transaction():
            started = [body for _, body in self._rows("attempt", reservation.run_id)]
            here = {b["attempt"]: b["key"] for b in started if b["round"] == round_}
            if attempt in here:
                if here[attempt] != key:
                    raise BadRequest(f"attempt {attempt} of round {round_} was another request")
                raise AttemptLost(
                    f"attempt {attempt} of round {round_} was started and has no answer to give: "
                    "ask for the next attempt, which is paid from the spare rounds"
                )
            if attempt != len(here):
                raise BadRequest(f"the next attempt of round {round_} is {len(here)}")
            spares_used = sum(b["attempt"] > 0 for b in started)
            if attempt > 0 and spares_used >= reservation.spare_rounds:
                raise BudgetExhausted(
                    f"all {reservation.spare_rounds} spare rounds of this run are used: the round "
                    "cannot be trained again"
                )
            body = {"round": round_, "attempt": attempt, "key": key}
            return self._append("attempt", reservation.run_id, body).hash

    def holds(self, hash_: str) -> bool:
        """Whether a row that a server was told of is here; every row before it then is too."""
        return bool(self._db.execute("SELECT 1 FROM entries WHERE hash = ?", [hash_]).fetchone())

    def record_answer(self, run_id: str, round_: int, attempt: int, key: str, sha256: str) -> None:
        """Write down that an answer lies on the disk, before it is sent."""
        body = {"round": round_, "attempt": attempt, "key": key, "sha256": sha256}
        with self._transaction():
            self._append("answer", run_id, body)

    def answers(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Request key -> the row written when its answer was stored."""
        return {body["key"]: body for _, body in self._rows("answer", run_id)}

    def record_count(self, run_id: str, sha256: str) -> None:
        """Write down that the run's classes were counted, before the counts are used."""
        with self._transaction():
            self._append("class-balance", run_id, {"sha256": sha256})

    def count(self, run_id: str) -> str | None:
        """SHA-256 of the run's noisy class counts, if they were counted."""
        return next((b["sha256"] for _, b in self._rows("class-balance", run_id)), None)

    def note_refusal(self, request: str, run_id: str, code: str, reason: str) -> None:
        """Write down that a request was refused; a function of requests, never of a record.

        What is refused for one run with one code is counted, and a row is written whenever the
        count has doubled: 1, 2, 4 and so on. However often a server asks and whatever it calls its
        runs, rows grow with the logarithm of that, and it cannot fill the disk.

        Args:
            request: Its kind.
            run_id: Kept if it is one.
        """
        run_id = run_id if re.fullmatch(RUN_ID, run_id) else ""
        with self._transaction():
            counts = {
                (run, about): count
                for run, about, count in self._db.execute("SELECT * FROM refusals").fetchall()
            }
            if len(counts) >= MOST_REFUSED and (run_id, code) not in counts:
                run_id = ""
            count = counts.get((run_id, code), 0) + 1
            self._db.execute("REPLACE INTO refusals VALUES (?, ?, ?)", [run_id, code, count])
            if count & (count - 1) == 0:
                body = {"request": request, "code": code, "count": count}
                self._append("refusal", run_id, {**body, "reason": reason[:LONGEST_REASON]})

    def spent(self) -> tuple[float, float]:
        """Epsilon and delta of every admitted run together, under the registered rule."""
        return self._budget.spent(self._total())

    def used(self) -> float:
        """Part of the budget that no later run can have, 0 to 1."""
        return self._budget.used(self._total())

    def budget(self) -> tuple[float, float]:
        """Epsilon and delta that all runs together may cost: the smallest ever registered."""
        return self._budget.epsilon, self._budget.delta

    @property
    def rule(self) -> Rule:
        """How runs add up, since the records were registered."""
        return self._budget.rule

    @property
    def _budget(self) -> Budget:
        return Budget.registered([body for _, body in self._rows("cohort")])

    def _total(self) -> Cost:
        return self._budget.total(body for _, body in self._rows("reservation"))

    def _cost(self, plan: PrivacyPlan) -> Cost:
        return self._budget.cost(plan.epsilon, plan.delta, [p.mechanism() for p in plan.phases])

    def verify(self) -> None:
        """Recompute the hash chain.

        Raises:
            LedgerError: Names the first row that does not fit.
        """
        for _ in checked(self.rows(), str(self._path)):
            pass

    def rows(self) -> list[Row]:
        """All entries, unchecked."""
        try:
            rows = self._db.execute("SELECT * FROM entries ORDER BY seq").fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            raise LedgerError(f"{self._path}: the ledger cannot be read ({error})") from error
        return [Row(*row) for row in rows]

    def _catch_up(self) -> None:
        """Hold the ledger against its anchor; append the row that a crash left there only."""
        if self._anchor is None:
            return
        with self._transaction():
            rows = self.rows()
            missing = held_by_anchor(rows, self._anchor, self._path)
            if missing is not None:
                self._insert(missing)
            elif not self._anchor.exists():
                self._append("anchor", "", {})

    def _register(self, privacy: Privacy) -> None:
        with self._transaction():
            rows = [body for _, body in self._rows("cohort")]
            budget = registrable(rows, privacy, self._path)
            body = {"unit": privacy.unit, **budget.values()}
            if body not in rows:
                self._append("cohort", "", body)

    def check_budget(self, plan: PrivacyPlan, site: str = "") -> None:
        """See whether a run would fit what is left.

        Args:
            site: Named in the error.
        Raises:
            BudgetExhausted: It does not; nothing is written.
        """
        budget, total, cost = self._budget, self._total(), self._cost(plan)
        if budget.fits(total + cost):
            return
        who = f"site {site}: " if site else ""
        raise BudgetExhausted(
            f"{who}this run would cost epsilon {rounded_up(plan.epsilon)}, "
            f"delta {digits_up(plan.delta)}; "
            f"{budget.left(total, cost)} of the lifetime budget. "
            "Plan a cheaper run; spent budget does not come back"
        )

    def _rows(self, kind: str, run_id: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        query, args = "SELECT seq, body FROM entries WHERE kind = ?", [kind]
        if run_id is not None:
            query, args = query + " AND run_id = ?", [kind, run_id]
        for seq, body in self._db.execute(query + " ORDER BY seq", args).fetchall():
            yield seq, json.loads(body)

    def _append(self, kind: str, run_id: str, body: dict[str, Any]) -> Row:
        """The only way in: one row a transaction, to the anchor first."""
        row = Row.after(self._last(), _now(), kind, run_id, json.dumps(body, sort_keys=True))
        if self._anchor is not None:
            write_anchor(self._anchor, row)
        self._insert(row)
        return row

    def _insert(self, row: Row) -> None:
        self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", astuple(row))

    def _last(self) -> Row | None:
        found = self._db.execute("SELECT * FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        return Row(*found) if found else None

    def _row(self, seq: int) -> Row | None:
        found = self._db.execute("SELECT * FROM entries WHERE seq = ?", [seq]).fetchone()
        return Row(*found) if found else None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One writer at a time across processes; all or nothing; on the disk when it returns."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:  # a full disk has undone it already
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(
                f"{self._path}: the ledger cannot be written ({error}). Nothing is trained "
                "without it: free or repair the disk"
            ) from error


def registrable(rows: Sequence[Mapping[str, Any]], privacy: Privacy, path: Path) -> Budget:
    """The budget of a site.yaml, if the ledger that stands may be used with it.

    Args:
        rows: Bodies of the ledger's registrations.
        path: Of the ledger, for the errors.
    Raises:
        LedgerError: It would raise the budget, or change unit or rule.
    """
    epsilon, delta = privacy.lifetime_epsilon, privacy.lifetime_delta
    if rows and (
        epsilon > min(b["epsilon_budget"] for b in rows)
        or delta > min(b["delta_budget"] for b in rows) * (1 + 1e-12)
    ):
        raise LedgerError(
            f"{path}: a budget of epsilon {exact(epsilon)}, delta {exact(delta)} is larger "
            "than the one registered for these records: a budget can be lowered, not raised"
        )
    if any(b["unit"] != privacy.unit for b in rows):
        raise LedgerError(f"{path}: registered for unit {rows[0]['unit']!r}")
    if rows and (rule := Budget.registered(rows).rule) != privacy.rule:
        raise LedgerError(
            f"{path}: registered with the rule {rule!r}, asked for {privacy.rule!r}: "
            f"how runs add up is fixed for the life of these records. Set privacy.rule: "
            f"{rule}"
        )
    try:
        return Budget.of(privacy, rows[0].get("order") if rows else None)
    except ValueError as error:
        raise LedgerError(f"{path}: {error}") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
