"""One federated run from hello to the last round; knows neither Flower nor records."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from server.extensions.rule import check_sources
from server.measures.collect import Measurements
from server.protocol import Evaluate, EvaluateAnswer, Tensors, source_hash
from server.protocol.receipt import read_receipt
from server.run.agreement import Agreement
from server.run.checkpoints import load_state, save_state
from server.run.enrolment import APPROVAL_POLL, Enrolment
from server.run.federation import Federation
from server.run.fleet import Fleet, ask
from server.run.journal import CHECKPOINTS, Journal
from server.run.masked import MaskedRounds
from server.run.metrics import Row
from server.run.rounds import RETRY_PAUSE, Rounds
from server.run.strategy import CollectSums, State, advance

Start = Callable[[], Tensors]
"""Makes the shared tensors of round 0: from public pre-training, or from a seed."""


@dataclass
class Run:
    """One run in progress."""

    fleet: Fleet
    """The sites, as they are reached."""
    federation: Federation
    """Sites, model, schedule and strategy."""
    folder: Path
    """The run folder; checkpoints, metrics and receipts are written there."""
    evaluate: bool = False
    """Ask for exact metrics at the end (simulations only)."""
    validate: bool = False
    """Ask for exact metrics on the validation splits after each phase but the last, too, so that
    the progress of a simulation can show them. It does not change the training."""
    approval_wait: float = 0
    """Seconds to wait for sites at which a person has to approve the run, or that train at certain
    hours only."""
    deadline: float = 3_600.0
    """Seconds in which a round has to find its quorum, if the federation has one."""
    receipt_of: Callable[[str], dict[str, Any]] = read_receipt
    """Reads a site's receipt. Baselines without privacy have another: they have no plan."""
    on_row: Callable[[Row], None] = lambda row: None
    """Called with every row of metrics.jsonl, for example to draw it."""
    approval_poll: float = APPROVAL_POLL
    """Seconds between two questions whether a site has approved the run."""
    retry_pause: float = RETRY_PAUSE
    """Seconds before a site that was lost is asked again in the same round."""

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder)

    def execute(self, start: Start) -> State:
        """Train all rounds, from the last checkpoint if there is one.

        Args:
            start: Makes the shared tensors of round 0; called for a new run only.
        Returns:
            The state after the last round; without tensors if the run asks for statistics alone.
        Raises:
            FederationError: The run cannot start.
            RunInterrupted: A site was lost; the checkpoint of the round before stands.
        """
        self.journal.on_row = self.on_row
        own, asked = self.federation.extensions, self.federation.schedule.extensions
        check_sources([*own.items(), *asked.items()])
        enrolment = self._enrolment()
        rounds = self._rounds()
        checkpoints = self.folder / CHECKPOINTS

        # The order matters: the run id is in every question, and a site admits before it trains.
        self.journal.open()
        enrolment.hello()
        enrolment.admit()
        if self.federation.schedule.statistics is not None:
            # A site whose answer came late has paid, too.
            enrolment.join(1)
            self._measurements().collect({})
            self.journal.summarise(0, [])
            return State(0, {}, {}, {})
        state = load_state(checkpoints, on_damage=self.journal.damaged)
        # A new run, or one that was interrupted before its first checkpoint.
        if state is None:
            state = State(0, start(), {}, {})
            save_state(checkpoints, state)
        while state.round < self.federation.schedule.rounds:
            # Before the round, so that a site that has just joined trains in it.
            enrolment.join(state.round + 1)
            state = advance(state, self.federation, rounds.collect, sums=self._sums())
            save_state(checkpoints, state)
            # After the checkpoint: a site that is lost here costs no round.
            if self.validate and self._ends_a_phase(state.round):
                self._validate(state)
        self._measurements().collect(self._final(state))
        self.journal.summarise(state.round, self._results(state) if self.evaluate else [])
        return state

    def _enrolment(self) -> Enrolment:
        return Enrolment(
            self.fleet,
            self.federation,
            self.journal,
            self.receipt_of,
            self.approval_wait,
            self.approval_poll,
        )

    def _rounds(self) -> Rounds:
        return Rounds(
            self.fleet,
            self.federation,
            self.journal,
            self.deadline,
            self.approval_wait,
            self.retry_pause,
        )

    def _measurements(self) -> Measurements:
        return Measurements(
            self.fleet,
            self.federation,
            self.journal,
            self.folder,
            self.approval_wait,
            self.retry_pause,
        )

    def _final(self, state: State) -> dict[str, Tensors]:
        """Return the final shared tensors of each site that took part: those of its kind."""
        names = sorted(self.journal.receipts)
        return {name: state.of(self.federation.kind_of(name)).final() for name in names}

    def _sums(self) -> CollectSums | None:
        """Return what adds up masked answers, if the run's answers are masked."""
        if not self.federation.schedule.aggregation.secure:
            return None
        return self._masked.sums

    @cached_property
    def _masked(self) -> MaskedRounds:
        agreement = Agreement(self.fleet, self.federation, self.journal)
        return MaskedRounds(
            self.fleet,
            self.federation,
            self.journal,
            agreement,
            self.deadline,
            self.retry_pause,
        )

    def _ends_a_phase(self, number: int) -> bool:
        """Return True for the last round of each phase but the last."""
        schedule = self.federation.schedule
        return number < schedule.rounds and (
            schedule.phase_of(number) is not schedule.phase_of(number + 1)
        )

    def _validate(self, state: State) -> None:
        """Write the mean validation AUC of each site."""
        # A site without an AUC has a row, too: its absence is shown.
        aucs: dict[str, list[float]] = {name: [] for name in sorted(self.journal.receipts)}
        for row in self._exact_metrics(state, "val"):
            if row["metric"] == "auc" and row["value"] is not None:
                aucs[row["site"]].append(row["value"])
        for name, values in aucs.items():
            self.journal.append(
                {
                    "event": "validation",
                    "round": state.round,
                    "phase": self.federation.schedule.phase_of(state.round).name,
                    "site": name,
                    "auc": sum(values) / len(values) if values else None,
                }
            )

    def _results(self, state: State) -> list[dict[str, Any]]:
        return [row for split in ("val", "test") for row in self._exact_metrics(state, split)]

    def _exact_metrics(self, state: State, split: str) -> list[dict[str, Any]]:
        """Ask every site for exact metrics of its averaged model on one split."""
        requests = {
            name: Evaluate(
                self.journal.run_id,
                source_hash(),
                schedule_hash=self.federation.schedule.hash(),
                split=split,
                tensors=tensors,
            )
            for name, tensors in self._final(state).items()
        }
        answers, lost = ask(self.fleet, requests, self.federation.quorum)
        for name, reason in lost.items():
            self.journal.note(0, name, "absent", reason)
        return [
            {"site": name, **row}
            for name, answer in answers.items()
            if isinstance(answer, EvaluateAnswer)
            for row in json.loads(answer.exact_metrics)
        ]
