"""The sites that take part in a run: they identify themselves, reserve its budget or join later."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from medformer.config import Domain
from server.protocol import (
    Admit,
    AdmitAnswer,
    Hello,
    HelloAnswer,
    ProtocolError,
    Refusal,
    Schedule,
    source_hash,
)
from server.protocol.receipt import read_receipt
from server.run.errors import FederationError, RunInterrupted
from server.run.federation import Federation, PublicSite
from server.run.fleet import Fleet, ask
from server.run.journal import Journal

log = logging.getLogger(__name__)

APPROVAL_POLL = 10.0
"""Seconds between two questions whether a site has approved the run."""


@dataclass
class Enrolment:
    """The sites of one run, from their first answer to their reservation.

    Without a quorum every site has to be there when the run begins. With one, the run begins as
    soon as the quorum has reserved its budget, and the others may join in any later round.
    """

    fleet: Fleet
    federation: Federation
    journal: Journal
    receipt_of: Callable[[str], dict[str, Any]] = read_receipt
    """Reads a site's receipt."""
    approval_wait: float = 0
    """Seconds to wait for sites at which a person has to approve the run first."""
    approval_poll: float = APPROVAL_POLL
    _present: set[str] = field(default_factory=set)
    """Sites whose node has answered hello."""

    def hello(self) -> None:
        """Ask every node for its site.

        Raises:
            FederationError: A site runs other sources or declares another domain, or, without a
                quorum, is not there.
        """
        answers = self.fleet.hello(Hello(self.journal.run_id, source_hash()))
        for site in self.federation.sites:
            answer = answers.get(site.name)
            if answer is not None:
                self._identify(site, answer)
            # With a quorum the site may come later.
            elif self.federation.quorum is None:
                raise FederationError(f"no node serves the site {site.name!r}")

    def _identify(self, site: PublicSite, answer: HelloAnswer) -> None:
        """Accept a node for a site of the federation.

        Raises:
            FederationError: Other sources, or another domain.
        """
        # Other code may average, clip or charge otherwise than the server believes.
        if answer.source_hash != source_hash():
            raise FederationError(
                f"site {site.name!r} runs other sources than the server: install the same "
                "version everywhere, and start the SuperLink in an empty folder"
            )
        declared = _domain(answer.domain)
        # The model has a stem and entries for the domains that were declared, and for no others.
        if declared is None or declared.model_dump() != site.domain.model_dump():
            raise FederationError(f"site {site.name!r} declares another domain: {answer!r:.500}")
        self._present.add(site.name)

    def admit(self) -> None:
        """Have every site that is there reserve the whole run, and wait for approvals.

        Raises:
            FederationError: So many sites refused that the run cannot begin.
            RunInterrupted: Too few sites are there now.
        """
        pending = [site.name for site in self.federation.sites if site.name in self._present]
        end = time.monotonic() + self.approval_wait
        while True:
            late = time.monotonic() >= end
            # With a quorum a site may still join in a later round: its wait is no refusal.
            waits = self.federation.quorum is not None or not late
            pending = self._reserve(pending, 0, waits=waits)
            if late or not pending:
                break
            log.warning("waiting for approval at %s", ", ".join(pending))
            time.sleep(self.approval_poll)
        self._check_quorum()

    def _check_quorum(self) -> None:
        needed = self.federation.quorum or 1
        receipts, excluded = self.journal.receipts, self.journal.excluded
        if len(receipts) >= needed:
            return
        names = [site.name for site in self.federation.sites]
        reasons = (f"{n}: {excluded.get(n, 'is not there')}" for n in names if n not in receipts)
        what = "no site takes" if not receipts else "too few sites take"
        text = f"{what} part: {'; '.join(reasons)}"
        if len(names) - len(excluded) < needed:
            raise FederationError(text)
        raise RunInterrupted(text)  # those that are not there may come back

    def join(self, number: int) -> None:
        """Before a round, admit sites that were not there, or not ready, when the run began.

        A site reserves the budget of the whole run, whenever it joins.

        Args:
            number: The round that comes next.
        """
        if self.federation.quorum is None:
            return
        known = {*self.journal.receipts, *self.journal.excluded}
        missing = [site for site in self.federation.sites if site.name not in known]
        # The usual case: all sites are there, and no question is sent.
        if not missing:
            return
        answers = self.fleet.hello(Hello(self.journal.run_id, source_hash()))
        for site in missing:
            if (answer := answers.get(site.name)) is None:
                continue
            try:
                self._identify(site, answer)
            except FederationError as error:
                # The run goes on without it: the quorum is there.
                refusal = Refusal("bad-request", str(error), site.name)
                self.journal.exclude(site.name, refusal, number)
        ready = self._present - set(self.journal.excluded)
        self._reserve([site.name for site in missing if site.name in ready], number, waits=True)

    @property
    def _masked_sites(self) -> str:
        """The sites among which answers are masked, as JSON; empty where they are not."""
        if not self.federation.schedule.aggregation.secure:
            return ""
        return json.dumps([site.name for site in self.federation.sites])

    def _reserve(self, names: list[str], number: int, *, waits: bool) -> list[str]:
        """Have sites reserve the whole run; return those that wait for a person's approval.

        Args:
            names: Sites to ask.
            number: 0 before the first round, else the round that comes next.
            waits: Ask sites that wait for an approval again later, instead of excluding them.
        """
        request = Admit(
            self.journal.run_id,
            source_hash(),
            schedule=self.federation.schedule.canonical(),
            model=self.federation.model.model_dump_json(),
            sites=self._masked_sites,
        )
        quorum = self.federation.quorum
        # A run that has begun does not wait for sites that join.
        enough = None if quorum is None else 0 if number else quorum
        answers, lost = ask(self.fleet, dict.fromkeys(names, request), quorum, enough)
        for name, reason in lost.items():
            self.journal.note(number, name, "absent", reason)
        pending = []
        for name, answer in answers.items():
            if isinstance(answer, AdmitAnswer):
                self._admitted(name, answer, number)
            elif isinstance(answer, Refusal) and answer.code == "approval-pending" and waits:
                pending.append(name)
            elif isinstance(answer, Refusal):
                self.journal.exclude(name, answer, number)
        self.journal.save_receipts()
        self.journal.save_ledgers()
        return pending

    def _admitted(self, name: str, answer: AdmitAnswer, number: int) -> None:
        try:
            self.journal.receipts[name] = self.receipt_of(answer.receipt)
        except ProtocolError as error:
            self.journal.exclude(name, Refusal("bad-request", f"{error}", name), number)
            return
        schedule = self.federation.schedule
        wrong = contradiction(self.journal.receipts[name], schedule)
        if wrong := wrong or self.journal.admitted(name, answer, schedule.hash()):
            del self.journal.receipts[name]
            self.journal.exclude(name, Refusal("bad-request", wrong, name), number)
            return
        if answer.mask_keys:
            self.journal.mask_keys[name] = answer.mask_keys
        if number:
            self.journal.note(number, name, "joined", "takes part from this round on")


def contradiction(receipt: Mapping[str, Any], schedule: Schedule) -> str | None:
    """Return how a receipt contradicts the schedule that it is for, where the server computes with
    it; None if it does not.

    In exact sums, divisor and noise of all sites are the server's, so that one site could spoil
    them for all.

    Args:
        receipt: As a site sent it.
        schedule: What the site was asked to admit.
    """
    aggregation = schedule.aggregation
    if not aggregation.exact:
        return None
    rows = {row["name"]: row for row in receipt["phases"]}
    for phase in schedule.phases:
        honest = aggregation.honest(aggregation.sites or 0) if phase.sends else 1
        row = rows.get(phase.name)
        if row is None:
            return f"its receipt has no phase {phase.name!r}"
        if row["expected_batch_size"] > phase.expected_batch_size * (1 + 1e-9):
            return f"its receipt has a larger batch than phase {phase.name!r}"
        if row["noise_multiplier"] != aggregation.noise_multiplier or row["honest"] != honest:
            return f"its receipt has another noise than phase {phase.name!r}"
    return None


def _domain(text: str) -> Domain | None:
    """Read a site's domain; None if the text is not one."""
    try:
        return Domain.model_validate_json(text)
    except ValidationError:
        return None
