"""One federated run from hello to the last round; knows neither Flower nor records."""

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medformer.config import Domain
from medformer.errors import one_line
from server.protocol import (
    Admit,
    AdmitAnswer,
    Answer,
    Evaluate,
    EvaluateAnswer,
    Hello,
    HelloAnswer,
    ProtocolError,
    Refusal,
    Request,
    Tensors,
    Train,
    TrainAnswer,
    source_hash,
)
from server.protocol.receipt import epsilon_so_far, read_receipt
from server.run.checkpoints import load_state, save_state, write_json
from server.run.errors import FederationError, RunInterrupted, UpdateRefused
from server.run.federation import Federation, PublicSite
from server.run.fleet import Fleet, Lost
from server.run.strategy import State, apply, check_update

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
LEDGERS = "ledgers.json"
RECEIPTS = "receipts.json"
"""Site -> what it says that the run costs its patients."""
EVENTS = ("refusal", "refused-update", "absent", "joined", "checkpoint-damaged")
"""Of metrics.jsonl, which the report tells."""
APPROVAL_POLL = 10.0
"""Seconds between two questions whether a site has approved the run."""
RETRY_PAUSE = 5.0
"""Seconds before a site that was lost is asked again in the same round."""
FINAL = ("budget-exhausted", "ledger-rolled-back")
"""Refusals after which a site is asked no more in this run."""

Start = Callable[[], Tensors]
"""Makes the shared tensors of round 0: from public pre-training, or from a seed."""


@dataclass
class Run:
    """One run in progress.

    Args:
        fleet: How sites are reached.
        federation: What is to be trained.
        folder: The run folder; checkpoints, metrics and receipts are written there.
        evaluate: Ask for exact metrics at the end (simulations only).
    """

    fleet: Fleet
    federation: Federation
    folder: Path
    evaluate: bool = False
    approval_wait: float = 0
    """Seconds to wait for sites at which somebody has to say yes to the run, or that train at
    certain hours only."""
    deadline: float = 3_600.0
    """Seconds in which a round has to find its quorum, if the federation has one."""
    receipt_of: Callable[[str], dict[str, Any]] = read_receipt
    """Reads what a site says that the run costs; baselines, which promise nothing, have another."""
    on_row: Callable[[dict[str, Any]], None] = lambda row: None
    """Told every row of metrics.jsonl, for example to draw it."""
    run_id: str = ""
    receipts: dict[str, dict[str, Any]] = field(default_factory=dict)
    ledgers: dict[str, str] = field(default_factory=dict)
    """Site -> hash of the newest row of its ledger that it told of; kept in ledgers.json."""
    out: dict[str, str] = field(default_factory=dict)
    """Sites that are no longer asked, and why."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """Refusals, refused updates, absences and late joins, for the report."""
    _earlier: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Receipts of earlier submissions of this run: what was reserved stays reserved, also at a site
    that is away now, and the report has to tell it."""
    _present: set[str] = field(default_factory=set)
    """Sites whose node has said who it is."""
    _repeated: set[str] = field(default_factory=set)
    """Sites that trained some round more than once."""

    def execute(self, start: Start) -> State:
        """Train all rounds, from the last checkpoint if there is one.

        Raises:
            FederationError: The run cannot start.
            RunInterrupted: A site was lost; the checkpoint of the round before stands.
        """
        self._identify()
        self._hello()
        self._admit()
        checkpoints = self.folder / CHECKPOINTS
        state = load_state(checkpoints, on_damage=self._damaged)
        if state is None:
            state = State(0, start(), {}, {})
            save_state(checkpoints, state)
        while state.round < self.federation.schedule.rounds:
            state = self._round(state)
            save_state(checkpoints, state)
        results = self._evaluate(state) if self.evaluate else []
        self._write_summary(state, results)
        return state

    def _damaged(self, number: int) -> None:
        text = f"the checkpoint of round {number} is damaged: training goes on from the one before"
        self._append({"event": "checkpoint-damaged", "round": number, "site": "", "text": text})

    def _identify(self) -> None:
        """A run id of its own, kept across `--resume`."""
        path = self.folder / "run.json"
        if path.exists():
            _end_last_line(self.folder / "metrics.jsonl")
            known = json.loads(path.read_text())
            self.run_id = known["run_id"]
            if (told := self.folder / LEDGERS).exists():
                self.ledgers = json.loads(told.read_text())
            if (receipts := self.folder / RECEIPTS).exists():
                self._earlier = json.loads(receipts.read_text())
            rounds = (row for row in read_metrics(self.folder) if row["event"] == "round")
            self._repeated = {row["site"] for row in rounds if row["attempt"]}
            if known["source_hash"] != source_hash():
                raise FederationError(
                    f"{path}: this run was started with other sources; resume it with those, or "
                    "start again with --overwrite"
                )
            return
        self.run_id = uuid.uuid4().hex
        write_json(path, {"run_id": self.run_id, "source_hash": source_hash()})

    def _hello(self) -> None:
        answers = self.fleet.hello(Hello(self.run_id, source_hash()))
        for site in self.federation.sites:
            answer = answers.get(site.name)
            if answer is not None:
                self._identified(site, answer)
            elif self.federation.quorum is None:
                raise FederationError(f"no node serves the site {site.name!r}")

    def _identified(self, site: PublicSite, answer: HelloAnswer) -> None:
        """Whether a node's site is the one that the federation knows.

        Raises:
            FederationError: Other sources, or another domain.
        """
        if answer.source_hash != source_hash():
            raise FederationError(
                f"site {site.name!r} runs other sources than the server: install the same "
                "version everywhere, and start the SuperLink in an empty folder"
            )
        declared = _domain(answer.domain)
        if declared is None or declared.model_dump() != site.domain.model_dump():
            raise FederationError(f"site {site.name!r} declares another domain: {answer!r:.500}")
        self._present.add(site.name)

    def _admit(self) -> None:
        pending = [name for name in self._names if name in self._present]
        end = time.monotonic() + self.approval_wait
        while True:
            late = time.monotonic() >= end
            can_join = self.federation.quorum is not None
            pending = self._ask_to_admit(pending, 0, waits=can_join or not late)
            if late or not pending:
                break
            log.warning("waiting for approval at %s", ", ".join(pending))
            time.sleep(APPROVAL_POLL)
        missing = [name for name in self._names if name not in self.receipts]
        needed = self.federation.quorum or 1
        if len(self.receipts) < needed:
            reasons = (f"{name}: {self.out.get(name, 'is not there')}" for name in missing)
            what = "no site takes" if not self.receipts else "too few sites take"
            text = f"{what} part: {'; '.join(reasons)}"
            if len(self._names) - len(self.out) < needed:
                raise FederationError(text)
            raise RunInterrupted(text)  # those that are not there may come back

    def _ask_to_admit(self, names: list[str], number: int, *, waits: bool) -> list[str]:
        """Have sites reserve the whole run; those that wait for somebody's yes are returned."""
        request = Admit(
            self.run_id,
            source_hash(),
            schedule=self.federation.schedule.canonical(),
            model=self.federation.model.model_dump_json(),
        )
        pending = []
        enough = None if self.federation.quorum is None else 0 if number else self.federation.quorum
        answers = self._ask(dict.fromkeys(names, request), number, enough=enough)
        for name, answer in answers.items():
            if isinstance(answer, AdmitAnswer):
                try:
                    self.receipts[name] = self.receipt_of(answer.receipt)
                except ProtocolError as error:
                    self._exclude(name, Refusal("bad-request", f"{error}", name), number)
                    continue
                self.ledgers.setdefault(name, answer.ledger_hash)
                if number:
                    self._note(number, name, "joined", "takes part from this round on")
            elif isinstance(answer, Refusal) and answer.code == "approval-pending" and waits:
                pending.append(name)
            elif isinstance(answer, Refusal):
                self._exclude(name, answer, number)
        write_json(self.folder / RECEIPTS, {**self._earlier, **self.receipts})
        write_json(self.folder / LEDGERS, self.ledgers)
        return pending

    def _join(self, number: int) -> None:
        """Let sites in that were not there, or not ready, when the run began."""
        if self.federation.quorum is None:
            return
        missing = [s for s in self.federation.sites if s.name not in {*self.receipts, *self.out}]
        if not missing:
            return
        answers = self.fleet.hello(Hello(self.run_id, source_hash()))
        for site in missing:
            if (answer := answers.get(site.name)) is None:
                continue
            try:
                self._identified(site, answer)
            except FederationError as error:
                self._exclude(site.name, Refusal("bad-request", str(error), site.name), number)
        names = [site.name for site in missing if site.name in self._present - set(self.out)]
        self._ask_to_admit(names, number, waits=True)

    def _round(self, state: State) -> State:
        """One round; a site whose attempt was lost before is asked for its next one.

        Raises:
            RunInterrupted: Too few updates.
        """
        number = state.round + 1
        self._join(number)
        phase = self.federation.schedule.phase_of(number)
        if self.federation.schedule.starts_from_average(number):
            state = state.from_average()
        began = time.monotonic()
        end = began + self.deadline
        quorum = self.federation.quorum or 1
        attempts = dict.fromkeys([n for n in sorted(self.receipts) if n not in self.out], 0)
        pending, asked_again = set(attempts), False
        updates: dict[str, Tensors] = {}
        losses: dict[str, float | None] = {}
        while pending:
            away: dict[str, str] = {}
            for name, answer in self._ask(
                {name: self._train(state, name, attempts[name]) for name in sorted(pending)},
                number,
                away,
                None if self.federation.quorum is None else max(0, quorum - len(updates)),
            ).items():
                lost = isinstance(answer, Refusal) and answer.code == "attempt-lost"
                if lost and attempts[name] < self.federation.schedule.spare_rounds:
                    attempts[name] += 1
                    continue
                pending.discard(name)
                if isinstance(answer, TrainAnswer):
                    self.ledgers[name] = answer.ledger_hash
                    if self._accept(name, answer, state.shared, number, attempts[name]):
                        updates[name] = answer.tensors
                        losses[name] = answer.exact_loss
                elif isinstance(answer, Refusal) and answer.code in FINAL:
                    self._exclude(name, answer, number)
                elif isinstance(answer, Refusal) and answer.code == "closed-now":
                    away[name] = f"{answer.code}: {answer.reason}"
                    end = max(end, began + self.approval_wait)
                elif isinstance(answer, Refusal):
                    self._note(number, name, "refusal", f"{answer.code}: {answer.reason}")
                else:
                    said = type(answer).__name__
                    self._note(number, name, "refusal", f"bad-answer: {said} to a Train request")
            pending -= set(away)
            if away and not pending:
                # A process that died is there again at once: with a quorum, one more question.
                if time.monotonic() > end or (asked_again and len(updates) >= quorum):
                    for name, why in sorted(away.items()):
                        self._note(number, name, "absent", why)
                    break
                asked_again, pending = True, set(away)
                time.sleep(RETRY_PAUSE)
        write_json(self.folder / LEDGERS, self.ledgers)
        if len(updates) < quorum:
            raise RunInterrupted(
                f"{len(updates)} sites gave an update for round {number}, {quorum} have to"
            )
        seconds = time.monotonic() - began
        self._log_round(number, phase.name, attempts, losses, seconds)
        if not phase.sends:
            return state.unchanged()
        return apply(
            state,
            updates,
            {s.name: s.weight for s in self.federation.sites},
            momentum=self.federation.server_momentum,
            learning_rate=self.federation.server_learning_rate,
            averages=self.federation.schedule.averages(number),
        )

    def _train(self, state: State, name: str, attempt: int) -> Train:
        return Train(
            self.run_id,
            source_hash(),
            schedule_hash=self.federation.schedule.hash(),
            round=state.round + 1,
            attempt=attempt,
            acknowledged_round=state.round,
            tensors=state.shared,
            ledger_hash=self.ledgers[name],
        )

    @property
    def _names(self) -> list[str]:
        return [site.name for site in self.federation.sites]

    def _ask(
        self,
        requests: Mapping[str, Request],
        number: int = 0,
        away: dict[str, str] | None = None,
        enough: int | None = None,
    ) -> dict[str, Answer]:
        """Answers by site name, in that order.

        Args:
            enough: Answers after which the others need not be waited for much longer.
            away: Where a quorum is enough, sites without an answer are put here with the reason.
        Raises:
            RunInterrupted: Without a quorum: a site is gone, or cannot say what went wrong.
        """
        answers: dict[str, Answer] = {}
        lost: dict[str, str] = {}
        for name, answer in sorted(self.fleet.ask(requests, enough).items() if requests else ()):
            if isinstance(answer, Lost) or (
                isinstance(answer, Refusal) and answer.code == "internal-error"
            ):
                lost[name] = answer.reason
            else:
                answers[name] = answer
        if lost and self.federation.quorum is None:
            raise RunInterrupted("; ".join(f"{name}: {why}" for name, why in lost.items()))
        if away is not None:
            away.update(lost)
        else:
            for name, why in lost.items():
                self._note(number, name, "absent", why)
        return answers

    def _accept(
        self, name: str, answer: TrainAnswer, shared: Tensors, number: int, attempt: int
    ) -> bool:
        limit = self.federation.max_update_norm
        phase = self.federation.schedule.phase_of(number)
        try:
            check_update(
                answer, shared, limit, site=name, round_=number, attempt=attempt, phase=phase
            )
        except UpdateRefused as error:
            self._note(number, name, "refused-update", str(error))
            return False
        return True

    def _exclude(self, name: str, refusal: Refusal, number: int) -> None:
        self.out[name] = f"{refusal.code}: {refusal.reason}"
        self._note(number, name, "refusal", self.out[name])

    def _note(self, number: int, name: str, kind: str, text: str) -> None:
        text = one_line(text)
        log.warning("round %d, site %s: %s: %s", number, name, kind, text)
        self.events.append({"round": number, "site": name, "kind": kind, "text": text})
        self._append({"event": kind, "round": number, "site": name, "text": text})

    def _log_round(
        self,
        number: int,
        phase: str,
        attempts: Mapping[str, int],
        losses: Mapping[str, float | None],
        seconds: float,
    ) -> None:
        self._repeated |= {name for name, attempt in attempts.items() if attempt}
        for name in sorted(losses):
            spent = epsilon_so_far(self.receipts[name], number, name in self._repeated)
            self._append(
                {
                    "event": "round",
                    "round": number,
                    "rounds": self.federation.schedule.rounds,
                    "phase": phase,
                    "site": name,
                    "attempt": attempts[name],
                    "exact_loss": losses[name],
                    "epsilon_progress": spent,
                    "seconds": round(seconds, 3),
                }
            )

    def _append(self, row: dict[str, Any]) -> None:
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
        self.on_row(row)

    def _evaluate(self, state: State) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for split in ("val", "test"):
            request = Evaluate(
                self.run_id,
                source_hash(),
                schedule_hash=self.federation.schedule.hash(),
                split=split,
                tensors=state.final(),
            )
            for name, answer in self._ask(dict.fromkeys(sorted(self.receipts), request)).items():
                if isinstance(answer, EvaluateAnswer):
                    rows += [{"site": name, **row} for row in json.loads(answer.exact_metrics)]
        return rows

    def _write_summary(self, state: State, results: list[dict[str, Any]]) -> None:
        summary = {
            "run_id": self.run_id,
            "rounds": state.round,
            "excluded": self.out,
            "events": _events_of(self.folder) or self.events,
            "results": results,
        }
        write_json(self.folder / "summary.json", summary)


def _domain(text: str) -> Domain | None:
    """None if it is not one."""
    try:
        return Domain.model_validate_json(text)
    except ValidationError:
        return None


def _end_last_line(path: Path) -> None:
    """A kill may have cut off the last line: keep the next row apart from it."""
    if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")


def _events_of(folder: Path) -> list[dict[str, Any]]:
    """Every refusal of the run, also those before a resume."""
    return [row for row in read_metrics(folder) if row["event"] in EVENTS]


def read_metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of metrics.jsonl; a last line that a kill cut off is left out."""
    path = folder / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


@contextmanager
def outcome(folder: Path) -> Iterator[None]:
    """Write outcome.json last: `done`, or `failed` with the sentence that says why."""
    path = folder / "outcome.json"
    path.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        write_json(path, {"outcome": "failed", "reason": f"{error}", "kind": type(error).__name__})
        raise
    write_json(path, {"outcome": "done", "reason": "", "kind": ""})
