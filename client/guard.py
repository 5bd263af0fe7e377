"""The guard: the only code that reads a site's records, and the only way by which anything leaves.

Each request passes the same steps, in this order: policy, budget, training, release. `Guard.handle`
is the entry; `_admit` and `_train` are to be read from top to bottom.

Nothing authoritative is kept in memory: each request reopens the ledger, the kept answers and the
local tensors from the site's state folder under an exclusive lock, because processes come and go.
No request can ask for training without differential privacy.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from client import release
from client.admitted import AdmittedRun, NoiseFor, checked
from client.data.load import load
from client.data.natural import check_installed, with_natural
from client.data.records import Records
from client.evaluation import evaluate
from client.ledger.ledger import Ledger, Reservation
from client.local_state import LocalState, final_state, restore
from client.masking.answers import (
    Masking,
    agreed,
    forget_keys,
    known_peers,
    mask_keys,
    masking_of,
    to_send,
)
from client.masking.identity import load_identity, sign, vouch
from client.measuring.request import measured
from client.policy import Policy, check_extensions, check_objectives
from client.privacy.per_example import EngineError
from client.privacy.plan import PrivacyPlan
from client.refusals import (
    ApprovalPending,
    BadRequest,
    PolicyForbids,
    Refused,
)
from client.round import DpMethod, RoundResult, TrainRound, one_round
from client.site import Site
from client.state import exclusive
from client.trainable import planned, refuse_frozen
from client.training import site_model
from medformer.config import ModelConfig
from medformer.errors import ConfigError
from medformer.model import Medformer
from server.protocol import (
    INTERNAL_ERROR,
    MAX_JSON,
    PROTOCOL_VERSION,
    RUN_ID,
    Admit,
    AdmitAnswer,
    Agree,
    Answer,
    Confirm,
    ConfirmAnswer,
    Evaluate,
    EvaluateAnswer,
    Hello,
    HelloAnswer,
    Measure,
    MeasureAnswer,
    Refusal,
    Request,
    Schedule,
    Train,
    TrainAnswer,
    source_hash,
)
from server.protocol.vouchers import Voucher, countersigned

log = logging.getLogger(__name__)

ReadRecords = Callable[[Site, str], Records]
"""(site, split) -> the records of that split."""


@dataclass(frozen=True)
class Guard:
    """Answers requests for one site.

    Args:
        site: The hospital's declaration: data, tasks, privacy.
        folder: The site's state folder.
        noise_for: Source of sampling, views and noise.
        exact: True in simulations only: answers may hold exact losses and metrics.
        policy: The hospital's rules. Without them, only a simulation is allowed anything.
        read: Reads the records of a split.
        train: Trains one round.
    """

    site: Site
    folder: Path
    noise_for: NoiseFor
    exact: bool = False
    policy: Policy | None = None
    read: ReadRecords = load
    train: TrainRound = one_round

    def handle(self, request: Request) -> Answer:
        """Answer a request, or refuse it with a fixed text.

        No exception leaves this method: its text could hold something private. Unexpected ones are
        logged at the site and answered with `INTERNAL_ERROR`.

        Args:
            request: As the server sent it.
        Returns:
            An answer of which every field is on the release list (`client.release.ITEMS`), or a
            refusal.
        """
        try:
            with exclusive(self.folder):
                return release.check(
                    self._answer(request), exact=self.exact, concepts=self.sends_concepts
                )
        except Refused as no:
            # A refusal is an answer like any other: its text is fixed, and it is on the ledger.
            return self.refuse(type(request).__name__.lower(), request.run_id, no)
        except Exception:
            log.exception("site %s cannot answer", self.site.name)
            return Refusal("internal-error", INTERNAL_ERROR, self.site.name)

    def refuse(self, request: str, run_id: str, no: Refused) -> Refusal:
        """Return a typed refusal, after writing it to the site's log and ledger.

        The answer is the same where the ledger cannot be written. An internal error goes to the log
        only: it may depend on a record, and the server learns the hash of every ledger row.

        Args:
            request: Kind of the refused request: its type in small letters.
            run_id: The run that the request names.
            no: The reason; its text is fixed by code and configuration.
        Returns:
            The refusal to send.
        """
        log.warning("site %s refuses: %s: %.300s", self.site.name, no.code, no)
        # A refusal does not fail because the disk is full: the server would learn of it.
        try:
            with exclusive(self.folder), Ledger.of(self.site, self.folder) as ledger:
                ledger.refused.note(request, run_id, no.code, str(no))
        except Exception:
            log.exception("site %s: this refusal is not on the ledger", self.site.name)
        return Refusal(no.code, str(no), self.site.name)

    def _answer(self, request: Request) -> Answer:
        """Check what all requests have in common, and open the ledger for the one that came."""
        if isinstance(request, Hello):
            # Hello comes before the server knows this site, so it needs neither version nor run.
            return HelloAnswer(self.site.name, self.site.domain.model_dump_json(), source_hash())
        # Version and sources first: other code could give the same messages another meaning.
        if request.protocol_version != PROTOCOL_VERSION:
            raise BadRequest(f"this site speaks protocol version {PROTOCOL_VERSION}")
        if request.source_hash != source_hash():
            raise BadRequest("this site has other sources installed than the server")
        # The run id becomes the name of a folder.
        if not re.fullmatch(RUN_ID, request.run_id):
            raise BadRequest("a run id is 1 to 64 letters, digits or '-'")
        with Ledger.of(self.site, self.folder) as ledger:
            if isinstance(request, (Admit, Train, Measure, Confirm)):
                _check_key(self, ledger, request.run_id)
            if isinstance(request, Admit):
                return self._admit(ledger, request)
            run = AdmittedRun.open(self.site, self.folder, ledger, request)
            # Also later: the hospital may have changed its mind, or installed another version.
            check_extensions(run.schedule, run.config, self.policy, simulated=self.exact)
            if isinstance(request, Agree):
                return agreed(run, request, self.folder, self.policy)
            if isinstance(request, Confirm):
                return _confirmed(self, run, request)
            if isinstance(request, Train):
                answer = self._train(run, request)
                # Outside of the kept answer: the same statement has the same signature.
                return replace(answer, signed=_signed(self, ledger, run.reservation, answer))
            if isinstance(request, Measure):
                counts = self._measure(run, request)
                return replace(counts, signed=_signed(self, ledger, run.reservation, counts))
            return _exact_metrics(self, run, request)

    # Admission: policy, then budget. No record is read.

    def _admit(self, ledger: Ledger, request: Admit) -> AdmitAnswer:
        """Reserve the budget of a whole schedule, or say why not."""
        schedule, config = _parsed(request)
        # Both files of the hospital have to allow a loss: site.yaml here, policy.yaml in `_allow`.
        check_objectives(schedule, self.site.objectives, "this site")
        # Before anything is built: this is what imports the code that the schedule names.
        check_extensions(schedule, config, self.policy, simulated=self.exact)
        domain = self.site.domain
        # Without embedding and stem of its domain, the model could not read this site's images.
        if domain.name not in config.domains or domain.stem not in config.stems:
            raise BadRequest(f"the model does not know this site's domain {domain.name}")
        check_installed(config)
        # A run that is admitted already keeps its plan, also if site.yaml has changed since.
        standing = ledger.reservation(request.run_id)
        try:
            plan = (
                standing.plan
                if standing
                else planned(self.site, config, schedule, concepts=self.sends_concepts)
            )
        except (ValueError, EngineError, ConfigError) as error:
            # The reason depends on public numbers only, so the server may read it.
            raise PolicyForbids(str(error)) from error
        # A run that was admitted is not asked for again: its budget is spent whatever the policy
        # says now.
        if standing is None:
            known_peers(request, schedule, self.site.name, self.policy)
            _allow(self, ledger, request.run_id, schedule, config, plan)
        kept = ledger.reserve(request.run_id, schedule.canonical(), config.model_dump_json(), plan)
        # Made now and not with the first round: the other sites need them before it.
        keys = mask_keys(self.site.name, self.folder, request.run_id, schedule)
        answer = AdmitAnswer(self.site.name, kept.plan.to_json(), kept.hash, mask_keys=keys)
        return replace(answer, signed=_signed(self, ledger, kept, answer))

    @property
    def sends_concepts(self) -> bool:
        """True if the site sends its part of a concept layer, as the policy says now."""
        # A hospital that changes its mind sends no more of it.
        return self.policy is None or self.policy.sends_concepts

    # A round: policy, input, budget, training, release. Records are read in `_trained` alone.

    def _train(self, run: AdmittedRun, request: Train) -> TrainAnswer:
        """Train one attempt of a round, or return the answer that it was given before."""
        run.check_ledger(request.ledger_hash)
        if self.policy is not None:
            self.policy.check_time(datetime.now())
        run.forget_answers(request.acknowledged_round)
        forget_keys(run, request.acknowledged_round, self.folder)
        model = site_model(
            run.config, self.site.tasks, checkpointing=self.site.activation_checkpointing
        )
        shared = checked(request.tensors, model)
        # A repeated request gets the same bytes, which cost nothing and need no record.
        if (kept := run.kept_answer(request.key())) is not None:
            return kept
        state = run.state_before(request.round, model)
        masking = masking_of(run, request, model, self.folder, self.policy)
        _check_frozen(self, run, request)
        # From this line on the attempt is charged, whether or not the training succeeds.
        row = run.start_attempt(request)
        result, method = self._trained(run, request, model, shared, state, masking)
        sent = to_send(result.tensors, request.tensors, masking, method)
        # The loss carries no noise, so only a simulation may send it.
        return _released(run, request, row, result, sent, result.loss if self.exact else None)

    def _trained(
        self,
        run: AdmittedRun,
        request: Train,
        model: Medformer,
        shared: Mapping[str, Tensor],
        state: LocalState,
        masking: Masking | None,
    ) -> tuple[RoundResult, DpMethod]:
        """Read the records, and take the steps that the plan charges for this round."""
        # Read anew in every round: a patient who withdrew is left out from the next round on.
        records = self.read(self.site, "train")
        records = with_natural(records, run.config, self.folder)
        tasks = run.tasks(records, self.noise_for)
        model.tasks = {task.name: task for task in tasks}
        method = _method(self, run, request, masking)
        number, schedule = request.round, run.schedule
        return self.train(
            model, self.site, records, schedule, number, shared, state, method
        ), method

    # The final model, once: policy, budget, measurement, release.

    def _measure(self, run: AdmittedRun, request: Measure) -> MeasureAnswer:
        """Count the scores of the final model, or the records, with noise."""
        fewest = 1
        if self.policy is not None:
            self.policy.check_time(datetime.now())
            fewest = self.policy.min_evaluated
        return measured(run, request, self.read, self.noise_for, self.folder, fewest)


def _exact_metrics(guard: Guard, run: AdmittedRun, request: Evaluate) -> EvaluateAnswer:
    """Measure the final model on a split of a simulated site, without noise."""
    # Metrics are computed on private splits without noise.
    if not guard.exact:
        raise PolicyForbids("exact metrics exist in simulations only")
    if request.split not in ("val", "test"):
        raise BadRequest("split must be val or test")
    model = site_model(run.config, guard.site.tasks)
    shared = checked(request.tensors, model)
    state = run.state_before(run.schedule.rounds + 1, model)
    restore(model, shared, final_state(state))
    metrics = evaluate(model, guard.site, guard.read(guard.site, request.split), request.split)
    return EvaluateAnswer(guard.site.name, json.dumps(metrics))


def _check_key(guard: Guard, ledger: Ledger, run_id: str) -> None:
    """Refuse before anything is charged if the site cannot sign what it answers.

    Raises:
        PolicyForbids: The guard's key is damaged, or gone since the run was admitted.
    """
    try:
        load_identity(guard.folder, make=ledger.reservation(run_id) is None)
    except ConfigError as error:
        log.error("%s", error)
        raise PolicyForbids(
            "this site's signing key is damaged or missing: restore guard.key in its state folder"
        ) from error


def _signed(
    guard: Guard,
    ledger: Ledger,
    reservation: Reservation,
    answer: AdmitAnswer | TrainAnswer | MeasureAnswer,
) -> str:
    """Sign the receipt of a run, the answer's row of the ledger and the site's work, as JSON."""
    counts = answer.digest if isinstance(answer, MeasureAnswer) else ""
    voucher = _voucher(guard.site, ledger, reservation, answer.ledger_hash, counts)
    return vouch(guard.folder, voucher)


def _voucher(
    site: Site, ledger: Ledger, reservation: Reservation, ledger_hash: str, counts: str
) -> Voucher:
    schedule = Schedule.model_validate_json(reservation.schedule)
    charged = sum(1 for _ in ledger.rows.of_kind("attempt", reservation.run_id))
    return Voucher(
        site=site.name,
        run_id=reservation.run_id,
        schedule_hash=schedule.hash(),
        receipt=reservation.plan.to_json(),
        ledger_hash=ledger_hash,
        attempts=charged,
        counts=counts,
    )


def _confirmed(guard: Guard, run: AdmittedRun, request: Confirm) -> ConfirmAnswer:
    """Countersign a report, if what it says of this site is the newest that the ledger has."""
    kinds = ("attempt", "measurement")
    done = sorted(
        (seq, kind) for kind in kinds for seq, _ in run.ledger.rows.of_kind(kind, run.run_id)
    )
    seq, kind = done[-1] if done else (run.reservation.row, "reservation")
    row = run.ledger.rows.row(seq)
    newest = row.hash if row is not None else ""
    measured = run.ledger.measurements.of(run.run_id)
    counts = measured.sha256 or "" if measured and kind == "measurement" else ""
    own = _voucher(guard.site, run.ledger, run.reservation, newest, counts)
    if request.statement != own.digest:
        raise BadRequest(
            "this site's ledger has something else of this run than the report: another receipt, "
            "or rows that the report does not know"
        )
    kept = run.ledger.reports.keep(run.run_id, request.report)
    parts = (guard.site.name, run.run_id, request.report, request.statement, kept)
    return ConfirmAnswer(guard.site.name, kept, sign(guard.folder, countersigned(*parts)))


def _check_frozen(guard: Guard, run: AdmittedRun, request: Train) -> None:
    """Refuse a round in which nothing is left to train, because the policy has changed since.

    Raises:
        PolicyForbids: What the site keeps is frozen, and it does not send concepts any more.
    """
    # A round beyond the schedule is refused where attempts are charged.
    if not 1 <= request.round <= run.schedule.rounds:
        return
    phase = run.schedule.phase_of(request.round)
    try:
        refuse_frozen(guard.site, run.config, run.schedule, phase, concepts=guard.sends_concepts)
    except ConfigError as error:
        raise PolicyForbids(str(error)) from error


def _method(guard: Guard, run: AdmittedRun, request: Train, masking: Masking | None) -> DpMethod:
    """Return how the steps of an attempt are taken: noise, and how much of it is this site's.

    Round and attempt are part of the stream: an attempt that is repeated has fresh noise.
    """
    noise = guard.noise_for(run.reservation, request.round, request.attempt)
    plan = run.phase_plan(request.round)
    # Of the whole noise, or of the share that this cohort needs: fewer sites, larger shares.
    honest = 1 if masking is None else masking.honest or 1
    return DpMethod(replace(plan, honest=honest), noise, guard.sends_concepts)


def _released(
    run: AdmittedRun,
    request: Train,
    row: str,
    result: RoundResult,
    sent: Mapping[str, Any],
    loss: float | None,
) -> TrainAnswer:
    """Make the answer, and store it before it is sent."""
    answer = TrainAnswer(
        site=run.site.name,
        round=request.round,
        attempt=request.attempt,
        **sent,
        exact_loss=loss,
        ledger_hash=row,
    )
    # On the disk and on the ledger before it is sent: a crash cannot lose what was charged.
    run.keep(request, answer, result.state)
    return answer


def _allow(
    guard: Guard,
    ledger: Ledger,
    run_id: str,
    schedule: Schedule,
    config: ModelConfig,
    plan: PrivacyPlan,
) -> None:
    """Ask the hospital's policy, then its budget, then a person where the policy says so.

    Raises:
        Refused: By the first of the three that does not allow the run.
    """
    if guard.policy is None:
        if guard.exact:  # a simulation
            return
        raise PolicyForbids("this site has no policy.yaml, and so allows nothing")
    # The policy before the budget, so that a forbidden run is not reported as too expensive.
    guard.policy.check(guard.site, schedule, config, plan)
    ledger.account.check(plan)
    if guard.policy.approval == "automatic":
        return
    if (why := ledger.approvals.denied(run_id)) is not None:
        raise PolicyForbids(f"a person at this site has said no to the run: {why}")
    model = config.model_dump_json()
    # The person approves exactly this schedule and model, so both are part of the question.
    if not ledger.approvals.approved(run_id, schedule.canonical(), model):
        cost = ledger.account.cost(plan).values()
        ledger.approvals.ask(run_id, schedule.canonical(), model, cost)
        raise ApprovalPending("a person at this site has to approve the run first")


def _parsed(request: Admit) -> tuple[Schedule, ModelConfig]:
    """Return the schedule and the model of an admission request; bound their length first."""
    # Bounded before parsing: nested JSON can take far more memory than its text.
    if max(len(request.schedule), len(request.model)) > MAX_JSON:
        raise BadRequest("the schedule or the model is too long")
    try:
        schedule = Schedule.model_validate_json(request.schedule)
        config = ModelConfig.model_validate_json(request.model)
    except ValidationError as error:
        raise BadRequest("the schedule or the model is not valid") from error
    return schedule, config
