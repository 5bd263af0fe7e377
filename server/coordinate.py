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
from server.checkpoints import load_state, save_state, write_json
from server.errors import FederationError, RunInterrupted, UpdateRefused
from server.federation import Federation
from server.fleet import Fleet, Lost
from server.protocol import (
    Admit,
    AdmitAnswer,
    Answer,
    Evaluate,
    EvaluateAnswer,
    Hello,
    ProtocolError,
    Refusal,
    Request,
    Tensors,
    Train,
    TrainAnswer,
    source_hash,
)
from server.receipt import read_receipt
from server.strategy import State, apply, check_update

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
LEDGERS = "ledgers.json"
EVENTS = ("refusal", "refused-update", "checkpoint-damaged")
"""Of metrics.jsonl, which the report tells."""
APPROVAL_POLL = 10.0
"""Seconds between two questions whether a site has approved the run."""
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
    """Seconds to wait for sites at which somebody has to say yes to the run."""
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
    """Refusals and refused updates, for the report."""

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
            if answer is None:
                raise FederationError(f"no node serves the site {site.name!r}")
            if answer.source_hash != source_hash():
                raise FederationError(
                    f"site {site.name!r} runs other sources than the server: install the same "
                    "version everywhere, and start the SuperLink in an empty folder"
                )
            if _domain(answer.domain) != site.domain:
                raise FederationError(
                    f"site {site.name!r} declares another domain: {answer!r:.500}"
                )

    def _admit(self) -> None:
        request = Admit(
            self.run_id,
            source_hash(),
            schedule=self.federation.schedule.canonical(),
            model=self.federation.model.model_dump_json(),
        )
        pending = [site.name for site in self.federation.sites]
        end = time.monotonic() + self.approval_wait
        while pending:
            answers, pending = self._ask(dict.fromkeys(pending, request)), []
            for name, answer in answers.items():
                if isinstance(answer, AdmitAnswer):
                    try:
                        self.receipts[name] = self.receipt_of(answer.receipt)
                    except ProtocolError as error:
                        self._exclude(name, Refusal("bad-request", f"{error}", name), 0)
                        continue
                    self.ledgers.setdefault(name, answer.ledger_hash)
                elif isinstance(answer, Refusal):
                    waits = answer.code == "approval-pending" and time.monotonic() < end
                    if waits:
                        pending.append(name)
                    else:
                        self._exclude(name, answer, 0)
            if pending:
                log.warning("waiting for approval at %s", ", ".join(pending))
                time.sleep(APPROVAL_POLL)
        write_json(self.folder / "receipts.json", self.receipts)
        write_json(self.folder / LEDGERS, self.ledgers)
        if not self.receipts:
            reasons = "; ".join(f"{name}: {why}" for name, why in sorted(self.out.items()))
            raise FederationError(f"no site takes part: {reasons}")

    def _round(self, state: State) -> State:
        """One round; a site whose attempt was lost before is asked for its next one."""
        number = state.round + 1
        phase = self.federation.schedule.phase_of(number)
        began = time.monotonic()
        attempts = dict.fromkeys([n for n in sorted(self.receipts) if n not in self.out], 0)
        pending, updates, losses = set(attempts), {}, {}
        while pending:
            requests: dict[str, Request] = {
                name: Train(
                    self.run_id,
                    source_hash(),
                    schedule_hash=self.federation.schedule.hash(),
                    round=number,
                    attempt=attempts[name],
                    acknowledged_round=state.round,
                    tensors=state.shared,
                    ledger_hash=self.ledgers[name],
                )
                for name in sorted(pending)
            }
            for name, answer in self._ask(requests).items():
                if isinstance(answer, Refusal) and answer.code == "attempt-lost":
                    attempts[name] += 1
                    continue
                pending.discard(name)
                if isinstance(answer, TrainAnswer):
                    self.ledgers[name] = answer.ledger_hash
                    if self._accept(name, answer, state.shared, number, attempts[name]):
                        updates[name] = answer.tensors
                        losses[name] = answer.exact_loss
                elif isinstance(answer, Refusal) and answer.code == "ledger-rolled-back":
                    self._exclude(name, answer, number)
                elif isinstance(answer, Refusal):
                    self._note(number, name, "refusal", f"{answer.code}: {answer.reason}")
        write_json(self.folder / LEDGERS, self.ledgers)
        if not updates:
            raise RunInterrupted(f"no site gave an update for round {number}")
        seconds = time.monotonic() - began
        self._log_round(number, phase.name, attempts, losses, seconds)
        return apply(
            state,
            updates,
            {s.name: s.weight for s in self.federation.sites},
            momentum=self.federation.server_momentum,
            averages=self.federation.schedule.averages(number),
        )

    def _ask(self, requests: Mapping[str, Request]) -> dict[str, Answer]:
        """Answers by site name, in that order.

        Raises:
            RunInterrupted: A site is gone, or cannot say what went wrong.
        """
        answers: dict[str, Answer] = {}
        lost = []
        for name, answer in sorted(self.fleet.ask(requests).items()):
            if isinstance(answer, Lost) or (
                isinstance(answer, Refusal) and answer.code == "internal-error"
            ):
                lost.append(f"{name}: {answer.reason}")
            else:
                answers[name] = answer
        if lost:
            raise RunInterrupted("; ".join(lost))
        return answers

    def _accept(
        self, name: str, answer: TrainAnswer, shared: Tensors, number: int, attempt: int
    ) -> bool:
        limit = self.federation.max_update_norm
        try:
            check_update(answer, shared, limit, site=name, round_=number, attempt=attempt)
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
        for name in sorted(losses):
            points = [p for p in self.receipts[name]["progress"] if p[0] <= number]
            self._append(
                {
                    "event": "round",
                    "round": number,
                    "rounds": self.federation.schedule.rounds,
                    "phase": phase,
                    "site": name,
                    "attempt": attempts[name],
                    "exact_loss": losses[name],
                    "epsilon_progress": points[-1][1] if points else None,
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
        path.write_bytes(text + b"\n")


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
