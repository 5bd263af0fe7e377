"""The guard: policy -> budget -> training -> release. The only code that reads records, and the
only door out.

Nothing authoritative is kept in memory: each request reopens the ledger, the kept answers and the
local tensors from the site's state folder under an exclusive lock, because processes come and go.
There is no way to ask it for training without differential privacy.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from torch import Tensor

from client import release
from client.data.load import load
from client.data.records import Records
from client.evaluation import evaluate
from client.ledger.ledger import Ledger, Reservation
from client.local_state import (
    LocalState,
    begin_round,
    final_state,
    initial_state,
    next_state,
    restore,
)
from client.policy import Policy
from client.privacy.class_counts import noisy_counts, weighted
from client.privacy.engine import DpEngine, clip_groups
from client.privacy.noise import NoiseSource
from client.privacy.per_example import EngineError
from client.privacy.plan import PhasePlan, PrivacyPlan, count_sensitivity, learning_rate
from client.refusals import (
    ApprovalPending,
    AttemptLost,
    BadRequest,
    LedgerRolledBack,
    PolicyForbids,
    Refused,
)
from client.site import Site
from client.state import Store, StoreError, exclusive
from client.trainable import planned
from client.training import (
    as_torch,
    build_optimizer,
    sent_after,
    site_model,
    train_round,
    trained_names,
)
from medformer.config import ModelConfig, Task
from medformer.model import Medformer
from medformer.sharing import shared_shapes
from server.protocol import (
    INTERNAL_ERROR,
    MAX_JSON,
    PROTOCOL_VERSION,
    RUN_ID,
    Admit,
    AdmitAnswer,
    Answer,
    Evaluate,
    EvaluateAnswer,
    Hello,
    HelloAnswer,
    Refusal,
    Request,
    Schedule,
    Tensors,
    Train,
    TrainAnswer,
    source_hash,
)

log = logging.getLogger(__name__)

LARGEST_WEIGHT = 1e4
"""Incoming tensors beyond this are refused: they could provoke overflow on chosen records."""

NoiseFor = Callable[[Reservation, int, int], NoiseSource]
"""(reservation, round, attempt) -> the randomness of that training, never the same twice."""

CLASS_COUNT = 0
"""In place of a round, which begin at 1: the count of the classes has a stream of its own."""


@dataclass(frozen=True)
class Guard:
    """Answers requests for one site.

    Args:
        site: What the hospital declares and allows.
        folder: The site's state folder.
        noise_for: Source of sampling, views and noise.
        exact: True in simulations only: exact losses and metrics may be told.
        policy: What the hospital allows; without one, only simulations may do anything.
    """

    site: Site
    folder: Path
    noise_for: NoiseFor
    exact: bool = False
    policy: Policy | None = None

    def handle(self, request: Request) -> Answer:
        """Answer, or refuse with a fixed text; what went wrong inside is told to the log only."""
        try:
            with exclusive(self.folder):
                return release.check(self._answer(request), exact=self.exact)
        except Refused as no:
            return self.refuse(type(request).__name__.lower(), request.run_id, no)
        except Exception:
            log.exception("site %s cannot answer", self.site.name)
            return Refusal("internal-error", INTERNAL_ERROR, self.site.name)

    def refuse(self, request: str, run_id: str, no: Refused) -> Refusal:
        """A typed no, told to the site's log and written to its ledger.

        The answer is the same where the ledger cannot be written. An internal error is told to the
        log only: it may come from a record, and the server learns the hash of every row.

        Args:
            request: Kind of what is refused.
        """
        log.warning("site %s refuses: %s: %.300s", self.site.name, no.code, no)
        try:
            with exclusive(self.folder), Ledger.of(self.site, self.folder) as ledger:
                ledger.refused.note(request, run_id, no.code, str(no))
        except Exception:
            log.exception("site %s: this refusal is not on the ledger", self.site.name)
        return Refusal(no.code, str(no), self.site.name)

    def _answer(self, request: Request) -> Answer:
        if isinstance(request, Hello):
            return HelloAnswer(self.site.name, self.site.domain.model_dump_json(), source_hash())
        if request.protocol_version != PROTOCOL_VERSION:
            raise BadRequest(f"this site speaks protocol version {PROTOCOL_VERSION}")
        if request.source_hash != source_hash():
            raise BadRequest("this site has other sources installed than the server")
        if not re.fullmatch(RUN_ID, request.run_id):
            raise BadRequest("a run id is 1 to 64 letters, digits or '-'")
        with Ledger.of(self.site, self.folder) as ledger:
            if isinstance(request, Admit):
                return self._admit(ledger, request)
            run = _Run.open(ledger, request)
            if isinstance(request, Train):
                if request.ledger_hash and not ledger.holds(request.ledger_hash):
                    raise LedgerRolledBack(
                        "this site's ledger lacks a row that the server was told of: an old copy "
                        "was put back, and budget was spent since then. Restore the newest copy"
                    )
                return self._train(ledger, run, request)
            return self._evaluate(ledger, run, request)

    def _admit(self, ledger: Ledger, request: Admit) -> AdmitAnswer:
        """Reserve the whole schedule; no record is read."""
        if max(len(request.schedule), len(request.model)) > MAX_JSON:
            raise BadRequest("the schedule or the model is too long")
        try:
            schedule = Schedule.model_validate_json(request.schedule)
            config = ModelConfig.model_validate_json(request.model)
        except ValidationError as error:
            raise BadRequest("the schedule or the model is not valid") from error
        asked = {name for phase in schedule.phases for name in phase.objectives}
        if forbidden := sorted(asked - set(self.site.objectives)):
            raise PolicyForbids(f"this site does not allow the objective {forbidden[0]}")
        domain = self.site.domain
        if domain.name not in config.domains or domain.stem not in config.stems:
            raise BadRequest(f"the model does not know this site's domain {domain.name}")
        standing = ledger.reservation(request.run_id)
        try:
            plan = standing.plan if standing else planned(self.site, config, schedule)
        except (ValueError, EngineError) as error:
            raise PolicyForbids(str(error)) from error
        model = config.model_dump_json()
        if standing is None:
            self._allowed(ledger, request.run_id, schedule, config, plan)
        kept = ledger.reserve(request.run_id, schedule.canonical(), model, plan)
        return AdmitAnswer(self.site.name, kept.plan.to_json(), kept.hash)

    def _allowed(
        self,
        ledger: Ledger,
        run_id: str,
        schedule: Schedule,
        config: ModelConfig,
        plan: PrivacyPlan,
    ) -> None:
        """The hospital's policy, then its budget, then somebody's yes where the policy wants it."""
        if self.policy is None:
            if self.exact:
                return
            raise PolicyForbids("this site has no policy.yaml, and so allows nothing")
        self.policy.check(self.site, schedule, config, plan)
        ledger.account.check(plan)
        if self.policy.approval == "automatic":
            return
        model = config.model_dump_json()
        if not ledger.approvals.approved(run_id, schedule.canonical(), model):
            ledger.approvals.ask(run_id, schedule.canonical(), model)
            raise ApprovalPending("somebody at this site has to approve the run first")

    def _train(self, ledger: Ledger, run: "_Run", request: Train) -> TrainAnswer:
        """Budget first, then the count and the gradient, then the answer on the disk, then the
        answer."""
        if self.policy is not None:
            self.policy.check_time(datetime.now())
        answers = ledger.answers(request.run_id)
        store = Store(self.folder, request.run_id)
        acknowledged = request.acknowledged_round
        store.forget_answers([k for k, row in answers.items() if row["round"] <= acknowledged])
        model = site_model(
            run.config, self.site.tasks, checkpointing=self.site.activation_checkpointing
        )
        shared = _checked(request.tensors, model)

        key = request.key()
        if key in answers:
            kept = store.get_answer(key, answers[key]["sha256"])
            if kept is None:
                raise AttemptLost("this answer was acknowledged and deleted: ask for a new attempt")
            return kept
        state = _state_before(request.round, store, answers, model)
        row = ledger.start_attempt(run.reservation, request.round, request.attempt, key)

        records = load(self.site, "train")
        tasks = self._balanced(ledger, run, store, records)
        model.tasks = {task.name: task for task in tasks}
        phase = run.schedule.phase_of(request.round)
        state = begin_round(model, shared, state, run.schedule, phase)
        names = trained_names(model, self.site, phase)
        plan = run.phase_plan(phase.name)
        rate = learning_rate(phase, plan)
        optimizer = build_optimizer(model, names, rate, run.schedule.local_momentum, state)
        noise = self.noise_for(run.reservation, request.round, request.attempt)
        with DpEngine(model, plan, clip_groups(names, phase), optimizer, noise) as engine:
            mix = run.schedule.mix(request.round)
            loss = train_round(model, self.site, records, phase, mix, engine, noise.generator())
            taken = len(engine.record)
        if taken != plan.steps_per_round:
            raise RuntimeError(f"{taken} steps were taken, the plan has {plan.steps_per_round}")

        answer = TrainAnswer(
            site=self.site.name,
            round=request.round,
            attempt=request.attempt,
            tensors=sent_after(model, names, phase),
            exact_loss=loss if self.exact else None,
            ledger_hash=row,
        )
        averages = run.schedule.averages(request.round)
        after = next_state(model, names, optimizer, state, averages=averages)
        store.put_state(request.round, request.attempt, after)
        digest = store.put_answer(key, answer)
        ledger.record_answer(request.run_id, request.round, request.attempt, key, digest)
        return answer

    def _balanced(
        self, ledger: Ledger, run: "_Run", store: Store, records: Records
    ) -> tuple[Task, ...]:
        """The site's tasks, their classes weighted if the run has paid for a count.

        Counted once a run: the noisy counts are on the disk, and their hash in the ledger, before
        anything is made of them; counts that are lost afterwards are not drawn again.
        """
        plan = run.reservation.plan.balance
        if plan is None:
            return self.site.tasks
        if count_sensitivity(self.site.tasks) > plan.max_grad_norm * (1 + 1e-9):
            raise RuntimeError("the site's tasks are not those of the admitted count of classes")
        std = plan.noise_std
        written = ledger.count(run.reservation.run_id)
        if written is None and store.get_counts() is None:
            noise = self.noise_for(run.reservation, CLASS_COUNT, 0)
            store.put_counts(noisy_counts(records, self.site.tasks, std, noise))
        stored = store.get_counts()
        if stored is None or written not in (None, stored[1]):
            raise StoreError("the run's class counts are lost: restore the site's state folder")
        if written is None:
            ledger.record_count(run.reservation.run_id, stored[1])
        return weighted(self.site.tasks, stored[0], std, self.site.privacy.labelled)

    def _evaluate(self, ledger: Ledger, run: "_Run", request: Evaluate) -> EvaluateAnswer:
        if not self.exact:
            raise PolicyForbids("exact metrics exist in simulations only")
        if request.split not in ("val", "test"):
            raise BadRequest("split must be val or test")
        model = site_model(run.config, self.site.tasks)
        shared = _checked(request.tensors, model)
        store, answers = Store(self.folder, request.run_id), ledger.answers(request.run_id)
        state = _state_before(run.schedule.rounds + 1, store, answers, model)
        restore(model, shared, final_state(state))
        metrics = evaluate(model, self.site, load(self.site, request.split), request.split)
        return EvaluateAnswer(self.site.name, json.dumps(metrics))


@dataclass(frozen=True)
class _Run:
    """An admitted run, as the ledger knows it."""

    reservation: Reservation
    schedule: Schedule
    config: ModelConfig

    @classmethod
    def open(cls, ledger: Ledger, request: Train | Evaluate) -> "_Run":
        reservation = ledger.reservation(request.run_id)
        if reservation is None:
            raise BadRequest("this run was not admitted here: send its schedule first")
        schedule = Schedule.model_validate_json(reservation.schedule)
        if schedule.hash() != request.schedule_hash:
            raise BadRequest("this run was admitted with another schedule")
        return cls(reservation, schedule, ModelConfig.model_validate_json(reservation.model))

    def phase_plan(self, name: str) -> PhasePlan:
        plan: PrivacyPlan = self.reservation.plan
        return next(p for p in plan.phases if p.name == name)


def _state_before(
    round_: int, store: Store, answers: Mapping[str, Mapping[str, Any]], model: Medformer
) -> LocalState:
    """The site's own tensors as the rounds before this one have left them.

    Raises:
        StoreError: It has trained such a round, and they are gone: beginning anew would be another
            run than the one that was paid for.
    """
    if (state := store.get_state(round_)) is not None:
        return state
    if any(row["round"] < round_ for row in answers.values()):
        raise StoreError(
            f"the site's own tensors before round {round_} are gone: restore the site's state "
            "folder, or let the server go on from its newest checkpoint"
        )
    return initial_state(model)


def _checked(tensors: Tensors, model: Medformer) -> dict[str, Tensor]:
    """The server's tensors, if they are exactly the shared ones and harmless."""
    shapes = shared_shapes(model)
    if wrong := sorted(set(tensors) ^ set(shapes)):
        raise BadRequest(f"the tensors must be exactly the shared ones; {wrong[0]!r:.80} is not")
    for name, value in tensors.items():
        if value.dtype != np.float32 or tuple(value.shape) != shapes[name]:
            raise BadRequest(f"{name} must be float32 of shape {shapes[name]}")
        if not np.isfinite(value).all() or float(np.abs(value).max(initial=0)) > LARGEST_WEIGHT:
            raise BadRequest(f"{name} is not finite or beyond {LARGEST_WEIGHT:g}")
    return as_torch(tensors)
