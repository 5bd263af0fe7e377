"""One round: every site is asked for its update, and again where it was lost, until all are in."""

import time
from dataclasses import dataclass, field

from server.protocol import Answer, Refusal, Tensors, Train, TrainAnswer, source_hash
from server.protocol.receipt import takes_no_step
from server.run.errors import RunInterrupted, UpdateRefused
from server.run.federation import Federation
from server.run.fleet import Fleet, ask
from server.run.journal import Journal
from server.run.strategy import State, check_update

RETRY_PAUSE = 5.0
"""Seconds before a site that was lost is asked again in the same round."""
FINAL = ("budget-exhausted", "ledger-rolled-back")
"""Refusals after which a site is asked no more in this run."""


@dataclass
class Round:
    """A round in progress."""

    state: State
    attempts: dict[str, int]
    """Site -> attempt that it is asked for; 0 is the first."""
    began: float
    end: float
    """Time on the monotonic clock until which sites that are away are asked again."""
    pending: set[str]
    """Sites that are to be asked next."""
    away: dict[str, str] = field(default_factory=dict)
    """Sites that the last question did not reach, and why."""
    updates: dict[str, Tensors] = field(default_factory=dict)
    losses: dict[str, float | None] = field(default_factory=dict)
    asked_again: bool = False

    @property
    def number(self) -> int:
        """The round's number, from 1."""
        return self.state.round + 1


@dataclass
class Rounds:
    """Collects the updates of one round after the other."""

    fleet: Fleet
    federation: Federation
    journal: Journal
    deadline: float
    """Seconds in which a round has to find its quorum, if the federation has one."""
    approval_wait: float
    """Seconds to wait, from the beginning of a round, for sites that train at certain hours."""
    retry_pause: float = RETRY_PAUSE

    def collect(self, state: State) -> dict[str, Tensors]:
        """Ask all sites for their updates of the next round.

        Args:
            state: What the round starts from.
        Returns:
            Site -> its checked tensors.
        Raises:
            RunInterrupted: Fewer updates than the quorum, or, without one, a site was lost.
        """
        round_ = self._begin(state)
        while round_.pending:
            self._ask(round_)
            # All others have answered: the round waits for these alone.
            if round_.away and not round_.pending:
                if self._is_over(round_):
                    for name, why in sorted(round_.away.items()):
                        self.journal.note(round_.number, name, "absent", why)
                    break
                round_.asked_again, round_.pending = True, set(round_.away)
                time.sleep(self.retry_pause)
        # Before anything can fail: a site whose ledger is older than this was restored.
        self.journal.save_ledgers()
        if len(round_.updates) < self._quorum:
            raise RunInterrupted(
                f"round {round_.number} needs the updates of {self._quorum} sites and got "
                f"{len(round_.updates)}"
            )
        schedule = self.federation.schedule
        self.journal.trained(
            round_.number,
            schedule.rounds,
            schedule.phase_of(round_.number).name,
            round_.attempts,
            round_.losses,
            time.monotonic() - round_.began,
        )
        return round_.updates

    @property
    def _quorum(self) -> int:
        return self.federation.quorum or 1

    def _begin(self, state: State) -> Round:
        now = time.monotonic()
        names = sorted(set(self.journal.receipts) - set(self.journal.excluded))
        return Round(state, dict.fromkeys(names, 0), now, now + self.deadline, set(names))

    def _ask(self, round_: Round) -> None:
        """Ask the pending sites once and sort their answers."""
        quorum = self.federation.quorum
        enough = None if quorum is None else max(0, quorum - len(round_.updates))
        # Sorted, so that log and events have the same order in every run.
        requests = {name: self._request(round_, name) for name in sorted(round_.pending)}
        answers, round_.away = ask(self.fleet, requests, quorum, enough)
        for name, answer in answers.items():
            self._answered(round_, name, answer)
        # Not asked at once: a process that died needs a moment.
        round_.pending -= set(round_.away)

    def _request(self, round_: Round, name: str) -> Train:
        return Train(
            self.journal.run_id,
            source_hash(),
            schedule_hash=self.federation.schedule.hash(),
            round=round_.number,
            attempt=round_.attempts[name],
            acknowledged_round=round_.state.round,
            tensors=self._shared(round_, name),
            ledger_hash=self.journal.ledgers[name],
        )

    def _shared(self, round_: Round, name: str) -> Tensors:
        """Return the tensors from which a site starts the round: those of its kind of image."""
        return round_.state.of(self.federation.kind_of(name)).shared

    def _answered(self, round_: Round, name: str, answer: Answer) -> None:
        """Take one site's answer: an update, a wait, a loss or a refusal."""
        lost = isinstance(answer, Refusal) and answer.code == "attempt-lost"
        if lost and round_.attempts[name] < self.federation.schedule.spare_rounds:
            round_.attempts[name] += 1  # paid from the spare rounds; the site stays pending
            return
        round_.pending.discard(name)
        if isinstance(answer, TrainAnswer):
            self._updated(round_, name, answer)
        # Another answer than was asked for: it is hostile or of another version.
        elif not isinstance(answer, Refusal):
            text = f"bad-answer: {type(answer).__name__} to a Train request"
            self.journal.note(round_.number, name, "refusal", text)
        elif answer.code in FINAL:
            self.journal.exclude(name, answer, round_.number)
        # Its policy allows training at certain hours only: wait for them.
        elif answer.code == "closed-now":
            round_.away[name] = f"{answer.code}: {answer.reason}"
            round_.end = max(round_.end, round_.began + self.approval_wait)
        else:
            text = f"{answer.code}: {answer.reason}"
            self.journal.note(round_.number, name, "refusal", text)

    def _updated(self, round_: Round, name: str, answer: TrainAnswer) -> None:
        unsigned = self.journal.reported(name, answer)
        phase = self.federation.schedule.phase_of(round_.number)
        try:
            if unsigned:
                raise UpdateRefused(unsigned)
            check_update(
                answer,
                self._shared(round_, name),
                self.federation.max_update_norm,
                site=name,
                round_=round_.number,
                attempt=round_.attempts[name],
                phase=phase,
                idle=takes_no_step(self.journal.receipts[name], phase.name),
            )
        except UpdateRefused as error:
            self.journal.note(round_.number, name, "refused-update", str(error))
            return
        round_.updates[name] = answer.tensors
        round_.losses[name] = answer.exact_loss

    def _is_over(self, round_: Round) -> bool:
        """Return True if the sites that are away are not asked again.

        A process that died is there again at once, so sites that are not needed for the quorum get
        one more question. Sites that are needed are asked until the deadline.
        """
        enough = round_.asked_again and len(round_.updates) >= self._quorum
        return enough or time.monotonic() > round_.end
