"""Rows of a ledger -> runs, questions, refusals and budget, for `site status` and `site report`.

Everything here is read from the ledger alone. No record, list or log is opened.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from client.ledger.chain import LedgerError, Row
from client.privacy.composition import Budget, Cost
from client.privacy.plan import PrivacyPlan
from medformer.errors import one_line


@dataclass(frozen=True)
class Question:
    """A run that has asked for a person's approval, and the answer."""

    run_id: str
    since: str
    """Time of the first request."""
    epsilon: float | None
    """Cost of the run as the guard computed it then; None in rows of older versions."""
    delta: float | None
    answer: str = ""
    """`approved`, `refused`, or empty while it waits."""
    answered: str = ""
    """Time of the answer."""
    who: str = ""
    """Account of the person who answered."""
    why: str = ""
    """Reason of a refusal."""


@dataclass(frozen=True)
class Attempt:
    """The newest attempt of a run's rounds."""

    round: int
    time: str
    answered: bool
    """Its answer was stored, and may have been sent."""


@dataclass(frozen=True)
class Run:
    """A run that was admitted: its whole cost was charged then."""

    run_id: str
    admitted: str
    """Time of the reservation."""
    plan: PrivacyPlan
    cost: Cost
    after: Cost
    """All runs together, this one included."""
    trained: int
    """Number of rounds that were started at least once."""
    spares_used: int
    """Number of attempts that were paid from the spare rounds."""
    answers: int
    """Number of answers that were stored, each to be sent."""
    newest: Attempt | None
    measured: str
    """Time at which the final model was measured, or in a run that asks for statistics the records;
    empty if they were not."""
    counted: str
    """Time at which classes were counted with noise; empty if they were not."""

    @property
    def unfinished(self) -> bool:
        """True while planned rounds are left. The site is not told when a run is given up."""
        if not self.plan.rounds:  # it counts records, and is answered at once
            return not self.measured
        return self.trained < self.plan.rounds or not (self.newest and self.newest.answered)


@dataclass(frozen=True)
class Refusal:
    """Refusals of one run with one code."""

    run_id: str
    """Empty for requests whose run has no valid id, and for those beyond the counted ones."""
    request: str
    code: str
    reason: str
    first: str
    last: str
    """Time of the newest row; there may have been more refusals since."""
    count: int
    """Smallest possible number: a row is written whenever it has doubled."""


@dataclass(frozen=True)
class Lifetime:
    """All that one ledger tells."""

    rows: tuple[Row, ...]
    """Every row, checked, oldest first; at least one registers a budget."""

    @property
    def unit(self) -> str:
        """Unit of privacy: image or patient."""
        return str(self._cohorts[0]["unit"])

    @cached_property
    def budget(self) -> Budget:
        """The smallest budget that was registered."""
        return Budget.registered(self._cohorts)

    @cached_property
    def total(self) -> Cost:
        """Cost of all runs together."""
        return self.budget.total(row.values for row in self.of_kind("reservation"))

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Admitted runs, oldest first."""
        found: list[Run] = []
        total = self.budget.nothing
        for row in self.of_kind("reservation"):
            cost = self.budget.total([row.values])
            total = total + cost
            found.append(self._run(row, cost, total))
        return tuple(found)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """Runs that have asked for approval, oldest first."""
        answers = {row.run_id: row for row in self.of_kind("approval", "denial")}
        return tuple(_question(row, answers.get(row.run_id)) for row in self.of_kind("asked"))

    @property
    def waiting(self) -> tuple[Question, ...]:
        """Questions that nobody has answered."""
        return tuple(one for one in self.questions if not one.answer)

    @cached_property
    def refusals(self) -> tuple[Refusal, ...]:
        """Refused requests by run and code, in the order of their newest rows."""
        found: dict[tuple[str, str], Refusal] = {}
        for row in self.of_kind("refusal"):
            body, key = row.values, (row.run_id, row.values["code"])
            first = found.pop(key).first if key in found else row.time
            found[key] = Refusal(
                run_id=row.run_id,
                request=str(body["request"]),
                code=str(body["code"]),
                reason=one_line(str(body["reason"]), 300),  # some quote a request
                first=first,
                last=row.time,
                count=int(body["count"]),
            )
        return tuple(found.values())

    @property
    def current(self) -> Run | None:
        """The newest run, if it has planned rounds left."""
        return self.runs[-1] if self.runs and self.runs[-1].unfinished else None

    def of_kind(self, *kinds: str) -> list[Row]:
        """Return the rows of some kinds, oldest first.

        Args:
            kinds: For example `reservation`.
        """
        return [row for row in self.rows if row.kind in kinds]

    @property
    def _cohorts(self) -> list[dict[str, object]]:
        return [row.values for row in self.of_kind("cohort")]

    def _run(self, row: Row, cost: Cost, after: Cost) -> Run:
        mine = [other for other in self.rows if other.run_id == row.run_id]
        attempts = [other for other in mine if other.kind == "attempt"]
        answered = {other.values["key"] for other in mine if other.kind == "answer"}
        last = attempts[-1] if attempts else None
        newest = None
        if last is not None:
            done = last.values["key"] in answered
            newest = Attempt(int(last.values["round"]), last.time, done)
        bodies = [other.values for other in attempts]
        return Run(
            run_id=row.run_id,
            admitted=row.time,
            plan=PrivacyPlan.from_json(row.values["plan"]),
            cost=cost,
            after=after,
            trained=len({body["round"] for body in bodies}),
            spares_used=sum(body["attempt"] > 0 for body in bodies),
            answers=len(answered),
            newest=newest,
            measured=_time_of(mine, "measurement"),
            counted=_time_of(mine, "class-balance"),
        )


def lifetime(rows: Sequence[Row]) -> Lifetime:
    """Return what a ledger tells.

    Args:
        rows: Every row, checked, oldest first.
    Raises:
        LedgerError: No budget is registered.
    """
    if not any(row.kind == "cohort" for row in rows):
        raise LedgerError("this ledger registers no budget: it is not complete")
    return Lifetime(tuple(rows))


def utc(time: str) -> str:
    """Return a time of the ledger for people.

    Args:
        time: ISO text in UTC, as rows hold it.

    >>> utc("2026-03-01T12:30:05+00:00")
    '2026-03-01 12:30:05 UTC'
    """
    return time.replace("T", " ").removesuffix("+00:00") + " UTC" if time else ""


def _question(row: Row, answer: Row | None) -> Question:
    """Return a question with its answer, if somebody gave one."""
    body, said = row.values, answer.values if answer else {}
    # Names and reasons were typed at this site, but a file can hold anything.
    return Question(
        run_id=row.run_id,
        since=row.time,
        epsilon=body.get("epsilon"),
        delta=body.get("delta"),
        answer=("approved" if answer.kind == "approval" else "refused") if answer else "",
        answered=answer.time if answer else "",
        who=one_line(str(said.get("who", "")), 80),
        why=one_line(str(said.get("why", "")), 200),
    )


def _time_of(rows: Iterable[Row], kind: str) -> str:
    return next((row.time for row in rows if row.kind == kind), "")
