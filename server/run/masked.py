"""A round whose answers are masked: the server learns their sum over the whole cohort, or nothing.

Masks cancel over all sites that were asked together, and over no part of them. So a site that is
lost costs the round's attempt: the smaller cohort is asked again, as a new attempt with new noise,
which is paid from the spare rounds. Nothing is ever revealed to take a mask off.
"""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from medformer.sharing import averaged_names
from server.protocol import (
    Aggregation,
    Answer,
    Phase,
    Refusal,
    Train,
    TrainAnswer,
    learning_rate,
    source_hash,
)
from server.protocol.aggregation import grid, noise_std
from server.protocol.masking import from_words, ring_sum, to_values
from server.protocol.receipt import takes_no_step
from server.run.agreement import Agreement
from server.run.errors import RunInterrupted, UpdateRefused
from server.run.federation import Federation
from server.run.fleet import Fleet, ask
from server.run.journal import Journal
from server.run.rounds import FINAL, RETRY_PAUSE
from server.run.strategy import State, Sum

_NAMES = TypeAdapter(tuple[str, ...])
Shapes = dict[str, tuple[int, ...]]
"""Name and shape of the tensors that a round can move, in the order of their words."""


@dataclass
class Cohort:
    """Sites whose answers are added up."""

    kind: str
    """Kind of image that they have in common; empty if all sites are together."""
    sites: list[str]
    """In the order of names."""
    fewest: int = 2
    """Smallest number of sites that any of them takes part with."""
    attempt: int = 0
    answers: dict[str, TrainAnswer] = field(default_factory=dict)
    """Answers to this attempt."""
    lost: set[str] = field(default_factory=set)
    """Sites without which the next attempt is made."""
    again: bool = False
    """An answer to this attempt is gone, though its site is there."""

    @property
    def complete(self) -> bool:
        """True if every site has answered."""
        return set(self.answers) == set(self.sites)

    @property
    def failed(self) -> bool:
        """True if there is no sum to be had: too few are left to hide among."""
        return len(self.sites) < self.fewest

    def next_attempt(self) -> None:
        """Go on without the lost sites; what the others have answered is of no use any more."""
        self.sites = [name for name in self.sites if name not in self.lost]
        self.attempt += 1
        self.answers, self.lost, self.again = {}, set(), False


@dataclass
class MaskedRounds:
    """Collects the sum of a round's answers in place of the answers."""

    fleet: Fleet
    federation: Federation
    journal: Journal
    agreement: Agreement
    deadline: float
    """Seconds in which a round has to find its quorum, if the federation has one."""
    retry_pause: float = RETRY_PAUSE

    def sums(self, state: State) -> dict[str, Sum]:
        """Ask all sites for the next round, and add up what they send.

        Args:
            state: What the round starts from.
        Returns:
            Kind of image -> the sum over its sites; of a round that all sites share, one sum under
            the empty text.
        Raises:
            RunInterrupted: Fewer sites than the quorum are in sums, or, without one, a site was
                lost.
        """
        number, began = state.round + 1, time.monotonic()
        self.agreement.extend(number)
        end = began + self.deadline
        cohorts = self._cohorts(number)
        attempts: dict[str, int] = {}
        while waiting := [c for c in cohorts if not (c.complete or c.failed)]:
            summed = sum(len(c.sites) for c in cohorts if c.complete)
            self._ask(state, waiting, end, summed)
            for cohort in waiting:
                attempts |= dict.fromkeys(cohort.sites, cohort.attempt)
                if cohort.lost or cohort.again:
                    self._go_on(cohort, number)
        self.journal.save_ledgers()
        done = [cohort for cohort in cohorts if cohort.complete and not cohort.failed]
        summed = sum(len(cohort.sites) for cohort in done)
        if summed < self._needed:
            raise RunInterrupted(
                f"round {number} needs {self._needed} sites whose answers are added up, "
                f"and got {summed}"
            )
        schedule = self.federation.schedule
        losses = {n: answer.exact_loss for cohort in done for n, answer in cohort.answers.items()}
        self.journal.trained(
            number,
            schedule.rounds,
            schedule.phase_of(number).name,
            attempts,
            losses,
            time.monotonic() - began,
        )
        return {
            cohort.kind: _sum(self.federation, state, cohort, self.journal.receipts)
            for cohort in done
        }

    @property
    def _fewest(self) -> int:
        return self.federation.schedule.aggregation.min_sites or 2

    @property
    def _needed(self) -> int:
        return max(self._fewest, self.federation.quorum or 0)

    def _cohorts(self, number: int) -> list[Cohort]:
        """Return the sites that answer this round, as they share."""
        phase = self.federation.schedule.phase_of(number)
        groups: dict[str, list[str]] = {}
        for site in self.federation.sites:
            receipt = self.journal.receipts.get(site.name)
            if receipt is None or site.name in self.journal.excluded:
                continue
            if not takes_no_step(receipt, phase.name):
                kind = site.domain.kind if phase.parts_kinds else ""
                groups.setdefault(kind, []).append(site.name)
        together = self.agreement.together
        return [Cohort(kind, together(names), self._fewest) for kind, names in groups.items()]

    def _ask(self, state: State, cohorts: list[Cohort], end: float, summed: int) -> None:
        """Ask the sites that have not answered, until each has, or is given up.

        Args:
            state: What the round starts from.
            cohorts: Cohorts that are not complete.
            end: Time until which sites that are needed are asked again.
            summed: Number of sites in complete cohorts.
        """
        of = {name: cohort for cohort in cohorts for name in cohort.sites}
        pending = {name for name, cohort in of.items() if name not in cohort.answers}
        asked_again = False
        while pending:
            requests = {n: self._masked_request(state, of[n], n) for n in sorted(pending)}
            answers, away = ask(self.fleet, requests, self.federation.quorum)
            for name, answer in answers.items():
                # Its policy allows training at certain hours only: it may answer later.
                if isinstance(answer, Refusal) and answer.code == "closed-now":
                    away[name] = f"{answer.code}: {answer.reason}"
                else:
                    self._sort(state, of[name], name, answer)
            pending = set(away)
            if not pending:
                return
            # A process that died is there again at once. Sites that are needed are asked until the
            # deadline.
            enough = summed + len(of) - len(away) >= self._needed
            if (asked_again and enough) or time.monotonic() > end:
                for name, why in sorted(away.items()):
                    self.journal.note(state.round + 1, name, "absent", why)
                    of[name].lost.add(name)
                return
            asked_again = True
            time.sleep(self.retry_pause)

    def _masked_request(self, state: State, cohort: Cohort, name: str) -> Train:
        return Train(
            self.journal.run_id,
            source_hash(),
            schedule_hash=self.federation.schedule.hash(),
            round=state.round + 1,
            attempt=cohort.attempt,
            acknowledged_round=state.round,
            tensors=state.of(self.federation.kind_of(name)).shared,
            ledger_hash=self.journal.ledgers[name],
            cohort=json.dumps(cohort.sites),
            sealed=self.agreement.sealed_for(name, cohort.sites),
        )

    def _sort(self, state: State, cohort: Cohort, name: str, answer: Answer) -> None:
        """Take one site's answer: its words, a loss or a refusal."""
        number = state.round + 1
        if isinstance(answer, TrainAnswer):
            unsigned = self.journal.reported(name, answer)
            try:
                if unsigned:
                    raise UpdateRefused(unsigned)
                _check(_shapes(self.federation, state), cohort, name, number, answer)
            except UpdateRefused as error:
                self.journal.note(number, name, "refused-update", str(error))
                cohort.lost.add(name)
                return
            cohort.answers[name] = answer
        elif not isinstance(answer, Refusal):
            text = f"bad-answer: {type(answer).__name__} to a Train request"
            self.journal.note(number, name, "refusal", text)
            cohort.lost.add(name)
        elif answer.code == "attempt-lost":
            cohort.again = True
        else:
            cohort.lost.add(name)
            if answer.code in FINAL:
                self.journal.exclude(name, answer, number)
            else:
                self.journal.note(number, name, "refusal", f"{answer.code}: {answer.reason}")

    def _go_on(self, cohort: Cohort, number: int) -> None:
        """Make the next attempt, if one is left."""
        if cohort.attempt >= self.federation.schedule.spare_rounds:
            raise RunInterrupted(
                f"round {number}: no spare round is left for another attempt "
                f"({', '.join(sorted(cohort.lost)) or 'an answer'} was lost)"
            )
        cohort.next_attempt()


def _check(shapes: Shapes, cohort: Cohort, name: str, number: int, answer: TrainAnswer) -> None:
    """Refuse an answer that cannot be part of the sum. Its words say nothing by themselves."""
    if (answer.site, answer.round, answer.attempt) != (name, number, cohort.attempt):
        raise UpdateRefused("the answer is of another site, round or attempt")
    count = sum(map(math.prod, shapes.values()))
    if answer.tensors or answer.words is None or answer.words.shape != (count,):
        raise UpdateRefused(f"the answer must be {count} masked words and nothing else")
    try:
        trained = _NAMES.validate_json(answer.trained)
    except ValidationError as error:
        raise UpdateRefused("the names of the trained tensors cannot be read") from error
    if set(trained) - set(shapes) or len(set(trained)) < len(trained):
        raise UpdateRefused("the answer names tensors that this round does not train")


def _shapes(federation: Federation, state: State) -> Shapes:
    """Return name and shape of the tensors that a round can move, in the order of words."""
    phase = federation.schedule.phase_of(state.round + 1)
    names = averaged_names(state.shared, phase.objectives, heads=phase.trains == "heads")
    return {name: state.shared[name].shape for name in names}


def _sum(
    federation: Federation, state: State, cohort: Cohort, receipts: Mapping[str, dict[str, Any]]
) -> Sum:
    """Add up the words of a whole cohort, which takes off all masks."""
    words = [cohort.answers[name].words for name in cohort.sites]
    numbers = from_words(ring_sum(w for w in words if w is not None))
    phase = federation.schedule.phase_of(state.round + 1)
    if federation.schedule.aggregation.exact:
        flat = numbers * _step(federation.schedule.aggregation, phase, cohort, receipts)
    else:
        flat = to_values(numbers)
    shapes = _shapes(federation, state)
    sizes = list(map(math.prod, shapes.values()))
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    trained = [json.loads(cohort.answers[name].trained) for name in cohort.sites]
    total = Sum(
        {
            name: part.reshape(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        },
        {name: sum(name in names for names in trained) for name in shapes},
    )
    # No single update can be checked any more, so a sum that is too long ends the run.
    largest = federation.max_update_norm * len(cohort.sites)
    if not total.norm <= largest:
        raise RunInterrupted(
            f"round {state.round + 1}: the sum of {len(cohort.sites)} updates moves "
            f"{total.norm:.3g}, more than max_update_norm allows ({largest:g}). Nobody can "
            "tell which site it was: leave sites out of the run, one after the other"
        )
    return total


def _step(
    aggregation: Aggregation,
    phase: Phase,
    cohort: Cohort,
    receipts: Mapping[str, dict[str, Any]],
) -> float:
    """Return how far a tensor moves for each point of the grid in which gradients are added up.

    Where sums are exact, sites send clipped sums with noise, because a rounded update would not
    be a function of the sum. Divisor and learning rate are public, and applied here.
    """
    # No site has admitted a run without it.
    assert aggregation.noise_multiplier is not None
    honest = aggregation.honest(len(cohort.sites))
    std = noise_std(aggregation.noise_multiplier, phase.sensitivity, honest)
    # Sites that declare few units draw smaller batches than the phase says.
    rows = [row for n in cohort.sites for row in receipts[n]["phases"] if row["name"] == phase.name]
    divisor = sum(row["expected_batch_size"] for row in rows) / len(rows)
    return -learning_rate(phase, std / divisor) * grid(std) / divisor
