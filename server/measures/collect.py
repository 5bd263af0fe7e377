"""Every site is asked once for noisy counts, of the final model's scores or of its records."""

import logging
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from server.measures.kept import (
    MEASUREMENTS,
    QUERIES,
    Counts,
    read_counts,
    read_measurements,
    unpaid,
)
from server.protocol import (
    Answer,
    Measure,
    MeasureAnswer,
    ProtocolError,
    Refusal,
    Tensors,
    source_hash,
)
from server.protocol.record_counts import STATISTICS
from server.run.checkpoints import write_json
from server.run.federation import Federation
from server.run.fleet import Fleet, ask
from server.run.journal import Journal
from server.run.metrics import EventKind

log = logging.getLogger(__name__)

TRIES = 3
"""Number of times that a site is away before it is asked no more."""


@dataclass
class Measurements:
    """Collects what the sites count once a run: scores of the final model, or records."""

    fleet: Fleet
    federation: Federation
    journal: Journal
    folder: Path
    wait: float
    """Seconds to wait for sites that answer at certain hours only."""
    pause: float
    """Seconds before a site that was away is asked again."""

    def collect(self, tensors: dict[str, Tensors]) -> None:
        """Ask all sites that took part, and write what they answer.

        A site that refuses, or is away, has no figures: the run is complete without it.

        Args:
            tensors: Site -> the final shared tensors that it measures; empty for statistics.
        Raises:
            RunInterrupted: Without a quorum, a site was lost. Asked again, it sends the same.
        """
        schedule = self.federation.schedule
        if schedule.evaluation is None and schedule.statistics is None:
            return
        kept = read_measurements(self.folder, schedule)
        # A site without labels has admitted none.
        admitted = {
            name
            for name, receipt in self.journal.receipts.items()
            if any(phase["name"] in QUERIES for phase in receipt["phases"])
        }
        names = sorted(admitted - set(self.journal.excluded) - set(kept))
        end = time.monotonic() + self.wait
        absences: Counter[str] = Counter()
        while names:
            requests = {name: self._request(name, tensors.get(name, {})) for name in names}
            answers, away = ask(self.fleet, requests, self.federation.quorum)
            absences.update(away.keys())
            closed = {}
            for name, answer in answers.items():
                if isinstance(answer, Refusal) and answer.code == "closed-now":
                    closed[name] = f"{answer.code}: {answer.reason}"
                else:
                    self._answered(name, answer, kept)
            # Hours are waited for, a site that is away only for a while.
            waited = {} if time.monotonic() > end else closed
            again = {*waited, *(name for name in away if absences[name] < TRIES)}
            for name, why in {**away, **closed}.items():
                if name not in again:
                    self._note(name, "absent", why)
            names = sorted(again)
            if names:
                time.sleep(self.pause)
        self.journal.save_ledgers()

    def _request(self, name: str, tensors: Tensors) -> Measure:
        return Measure(
            self.journal.run_id,
            source_hash(),
            schedule_hash=self.federation.schedule.hash(),
            tensors=tensors,
            ledger_hash=self.journal.ledgers[name],
        )

    def _answered(self, name: str, answer: Answer, kept: dict[str, Counts]) -> None:
        """Take one site's answer."""
        if isinstance(answer, Refusal):
            self._note(name, "refusal", f"{answer.code}: {answer.reason}")
            return
        try:
            if not isinstance(answer, MeasureAnswer):
                raise ProtocolError(f"{type(answer).__name__} to a Measure request")
            if wrong := self.journal.reported(name, answer):
                raise ProtocolError(wrong)
            counts = self._counts(name, answer.counts)
        except ProtocolError as error:
            self._note(name, "refusal", f"bad-answer: {error}")
            return
        kept[name] = counts
        # First what the guard has signed: a file with counts that nobody vouches for would stay.
        self.journal.save_ledgers()
        values = {site: own.model_dump(mode="json") for site, own in kept.items()}
        write_json(self.folder / MEASUREMENTS, values)
        log.info("site %s has sent its counts", name)

    def _counts(self, name: str, text: str) -> Counts:
        """Return a site's counts, if they are those that it has admitted and signed.

        Raises:
            ProtocolError: They are not.
        """
        counts = read_counts(text, self.federation.schedule)
        # One text for the same counts: their signed digest can be computed again from a report.
        if counts.model_dump_json() != text:
            raise ProtocolError("its noisy counts are not written in the one way that is signed")
        if wrong := unpaid(counts, self.journal.receipts[name]["phases"]):
            raise ProtocolError(wrong)
        return counts

    def _note(self, name: str, kind: EventKind, text: str) -> None:
        schedule = self.federation.schedule
        what = "measurement" if schedule.statistics is None else STATISTICS
        self.journal.note(schedule.rounds, name, kind, f"{what}: {text}")
