"""The records of a run in its folder: its id, its costs, its events and its outcome."""

import json
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medformer.errors import one_line
from server.protocol import AdmitAnswer, MeasureAnswer, Refusal, TrainAnswer, source_hash
from server.protocol.receipt import epsilon_so_far
from server.protocol.vouchers import Voucher, read_vouchers, take_receipt, take_row
from server.run.checkpoints import write_json
from server.run.errors import FederationError
from server.run.metrics import EVENTS, EventKind, Row, append_row, end_last_line, read_metrics

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints in a run folder (`server.run.checkpoints`)."""
RUN = "run.json"
LEDGERS = "ledgers.json"
"""Site -> hash of the newest row of its ledger that it reported."""
RECEIPTS = "receipts.json"
"""Site -> what the run may cost its patients (`server.protocol.receipt`)."""
VOUCHERS = "vouchers.json"
"""Site -> what its guard has signed last (`server.protocol.vouchers.Voucher`)."""
EXCLUDED = "excluded.json"
"""Site -> why it is no longer asked, in the newest submission; absent if all are asked."""
SUMMARY = "summary.json"
OUTCOME = "outcome.json"


@dataclass
class Journal:
    """Everything that the coordinator of a run has to remember, on the disk as soon as it is known.

    Args:
        folder: The run folder.
        on_row: Called with every row of metrics.jsonl, for example to draw it.
    """

    folder: Path
    on_row: Callable[[Row], None] = lambda row: None
    run_id: str = ""
    """Identifies the run in the sites' ledgers; kept across `--resume`."""
    receipts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Receipts of the sites that take part now."""
    ledgers: dict[str, str] = field(default_factory=dict)
    """Site -> hash of the newest row of its ledger that it reported."""
    vouchers: dict[str, Voucher] = field(default_factory=dict)
    """Site -> receipt and newest ledger row, as its guard has signed them."""
    mask_keys: dict[str, str] = field(default_factory=dict)
    """Site -> public keys with which its answers are masked, as it sent them."""
    excluded: dict[str, str] = field(default_factory=dict)
    """Sites that are no longer asked, and why."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """Refusals, refused updates, absences and late joins of this submission."""
    _earlier: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Receipts of earlier submissions: also at a site that is away now, they stay reserved."""
    _repeated: set[str] = field(default_factory=set)
    """Sites that trained a round more than once."""

    def open(self) -> None:
        """Start a run, or read what an earlier submission of it wrote.

        Raises:
            FederationError: The run was started with other sources.
        """
        path = self.folder / RUN
        (self.folder / EXCLUDED).unlink(missing_ok=True)  # each submission asks all sites again
        if not path.exists():  # a first submission; `--resume` finds the file
            self.run_id = uuid.uuid4().hex
            known = {"run_id": self.run_id, "source_hash": source_hash(), "began_at": now()}
            write_json(path, known)
            return
        # Before any row is written.
        end_last_line(self.folder)
        known = json.loads(path.read_text())
        self.run_id = known["run_id"]
        self.ledgers = self._read(LEDGERS)
        self.vouchers = read_vouchers(self._read(VOUCHERS))
        self._earlier = self._read(RECEIPTS)
        rounds = (row for row in read_metrics(self.folder) if row["event"] == "round")
        # Their epsilon so far includes the spare rounds, also after a resume.
        self._repeated = {row["site"] for row in rounds if row["attempt"]}
        # Other code may average, charge or check otherwise than the rounds before.
        if known["source_hash"] != source_hash():
            raise FederationError(
                f"{path}: this run was started with other sources; resume it with those, or "
                "start again with --overwrite"
            )

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else {}

    def append(self, row: Row) -> None:
        """Write a row of metrics.jsonl and pass it to `on_row`.

        Args:
            row: The row.
        """
        append_row(self.folder, row)
        self.on_row(row)

    def note(self, number: int, site: str, kind: EventKind, text: str) -> None:
        """Write an event.

        Args:
            number: The round; 0 before the first.
            site: The site's name.
            kind: The kind of event.
            text: Its reason, which a site may have written.
        """
        text = one_line(text)  # a site wrote it, and it goes into a log
        log.warning("round %d, site %s: %s: %s", number, site, kind, text)
        self.events.append({"round": number, "site": site, "kind": kind, "text": text})
        self.append({"event": kind, "round": number, "site": site, "text": text})

    def exclude(self, site: str, refusal: Refusal, number: int) -> None:
        """Take a site out of the run: it is asked no more.

        Args:
            site: The site's name.
            refusal: Its refusal, or the server's reason.
            number: The round; 0 before the first.
        """
        self.excluded[site] = f"{refusal.code}: {refusal.reason}"
        write_json(self.folder / EXCLUDED, self.excluded)
        self.note(number, site, "refusal", self.excluded[site])

    def damaged(self, number: int) -> None:
        """Write that a checkpoint was damaged and passed over.

        Args:
            number: Its round.
        """
        text = f"the checkpoint of round {number} is damaged: training goes on from the one before"
        self.append({"event": "checkpoint-damaged", "round": number, "site": "", "text": text})

    def trained(
        self,
        number: int,
        rounds: int,
        phase: str,
        attempts: Mapping[str, int],
        losses: Mapping[str, float | None],
        seconds: float,
    ) -> None:
        """Write a row for each site whose update of a round was accepted.

        Args:
            number: The round.
            rounds: Planned rounds of the run.
            phase: Name of the round's phase.
            attempts: Site -> last attempt that it was asked for, refused updates included.
            losses: Site -> exact loss, for the sites whose update was accepted.
            seconds: Duration of the round.
        """
        # Of refused updates, too: the site trained them.
        self._repeated |= {site for site, attempt in attempts.items() if attempt}
        for site in sorted(losses):
            self.append(
                {
                    "event": "round",
                    "round": number,
                    "rounds": rounds,
                    "phase": phase,
                    "site": site,
                    "attempt": attempts[site],
                    "exact_loss": losses[site],
                    "epsilon_progress": epsilon_so_far(
                        self.receipts[site], number, site in self._repeated
                    ),
                    "seconds": round(seconds, 3),
                }
            )

    def save_receipts(self) -> None:
        """Write the receipts of this and of earlier submissions."""
        write_json(self.folder / RECEIPTS, {**self._earlier, **self.receipts})

    def save_ledgers(self) -> None:
        """Write the newest ledger rows that sites reported, and what their guards signed."""
        write_json(self.folder / LEDGERS, self.ledgers)
        write_json(self.folder / VOUCHERS, {n: asdict(v) for n, v in self.vouchers.items()})

    def admitted(self, site: str, answer: AdmitAnswer, schedule_hash: str) -> str | None:
        """Take a site's ledger row and its signed receipt; return what is wrong with it, or None.

        Args:
            site: The site's name.
            answer: Its answer.
            schedule_hash: Of the schedule that it was asked to admit.
        """
        wrong = take_receipt(self.vouchers, site, self.run_id, schedule_hash, answer)
        # After a resume the server may know a newer row than that of the reservation. A row that
        # the guard has not signed may not exist.
        if wrong is None:
            self.ledgers.setdefault(site, answer.ledger_hash)
        return wrong

    def reported(self, site: str, answer: TrainAnswer | MeasureAnswer) -> str | None:
        """Take the ledger row of an attempt; return what is wrong with its signature, or None.

        Args:
            site: The site's name.
            answer: Its answer, whether or not its update is accepted.
        """
        wrong = take_row(self.vouchers, site, answer)
        # A row that the guard has not signed may not exist, and the site would be asked for it.
        if wrong is None:
            self.ledgers[site] = answer.ledger_hash
        return wrong

    def summarise(self, rounds: int, results: list[dict[str, Any]]) -> None:
        """Write the summary of a finished run, with the events of all its submissions.

        Args:
            rounds: Number of trained rounds.
            results: Exact metrics, in simulations.
        """
        events = [row for row in read_metrics(self.folder) if row["event"] in EVENTS]
        summary = {
            "run_id": self.run_id,
            "rounds": rounds,
            "ended_at": now(),
            "excluded": self.excluded,
            # metrics.jsonl holds the events of earlier submissions as well.
            "events": events or self.events,
            "results": results,
        }
        write_json(self.folder / SUMMARY, summary)


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def outcome(folder: Path) -> Iterator[None]:
    """Write outcome.json when the block ends: `done`, or `failed` with the reason.

    Flower reports success whatever happens, so this file is what others read.

    Args:
        folder: The run folder.
    """
    path = folder / OUTCOME
    # An outcome of an earlier submission would end the wait for this one.
    path.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        write_json(path, {"outcome": "failed", "reason": f"{error}", "kind": type(error).__name__})
        raise
    write_json(path, {"outcome": "done", "reason": "", "kind": ""})
