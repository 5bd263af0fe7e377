"""One admitted run at one site: what the site's ledger and state folder hold of it.

The order of writes is what makes a crash harmless. Budget is on the ledger before a record is
read; an answer and the site's own tensors are on the disk before the ledger row that names them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from client.data.records import Records
from client.ledger.ledger import Ledger, Reservation
from client.local_state import LocalState, initial_state
from client.privacy.counts.classes import noisy_counts, weighted
from client.privacy.counts.tasks import count_sensitivity
from client.privacy.noise import NoiseSource
from client.privacy.plan import PhasePlan, PrivacyPlan
from client.refusals import AttemptLost, BadRequest, LedgerRolledBack
from client.site import Site
from client.state import Store, StoreError
from client.training import as_torch
from medformer.config import ModelConfig, Task
from medformer.model import Medformer
from medformer.sharing import shared_shapes
from server.protocol import Agree, Confirm, Evaluate, Measure, Schedule, Tensors, Train, TrainAnswer

MAX_WEIGHT = 1e4
"""Largest magnitude of an incoming weight. Larger ones are refused: a server could choose them so
that chosen records overflow."""

CLASS_COUNT = 0
"""The class count's number in place of a round's. Rounds begin at 1, so the count and the rounds
never share noise."""

NoiseFor = Callable[[Reservation, int, int], NoiseSource]
"""(reservation, round, attempt) -> the randomness of that training, never the same twice."""


@dataclass(frozen=True)
class AdmittedRun:
    """One run's part of a site's ledger and state folder."""

    site: Site
    reservation: Reservation
    """The run's budget, as the ledger admitted it."""
    schedule: Schedule
    config: ModelConfig
    ledger: Ledger
    store: Store

    @classmethod
    def open(
        cls,
        site: Site,
        folder: Path,
        ledger: Ledger,
        request: Agree | Train | Measure | Evaluate | Confirm,
    ) -> "AdmittedRun":
        """Look up the run that a request belongs to.

        Args:
            site: The site's declaration.
            folder: The site's state folder.
            ledger: The site's ledger, open.
            request: Names the run and the hash of its schedule.
        Raises:
            BadRequest: The run was never admitted here, or with another schedule.
        """
        reservation = ledger.reservation(request.run_id)
        # The ledger, not the request, decides what a run is: schedule and model come from its row.
        if reservation is None:
            raise BadRequest("this run was not admitted here: send its schedule first")
        schedule = Schedule.model_validate_json(reservation.schedule)
        # A server that names another schedule would train something that this site never admitted.
        if schedule.hash() != request.schedule_hash:
            raise BadRequest("this run was admitted with another schedule")
        config = ModelConfig.model_validate_json(reservation.model)
        return cls(site, reservation, schedule, config, ledger, Store(folder, request.run_id))

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.reservation.run_id

    @cached_property
    def answers(self) -> Mapping[str, Mapping[str, Any]]:
        """Request key -> ledger row of each answered attempt, as of the first look in a request."""
        return self.ledger.answers(self.run_id)

    def check_ledger(self, ledger_hash: str) -> None:
        """Refuse to train on a ledger that was restored from an old copy.

        Args:
            ledger_hash: The newest hash that the server has of this site's ledger; "" if none.
        Raises:
            LedgerRolledBack: The ledger lacks this row, so budget was spent that it forgot.
        """
        if ledger_hash and not self.ledger.holds(ledger_hash):
            raise LedgerRolledBack(
                "this site's ledger lacks a row whose hash the server holds: an old copy was put "
                "back, and budget was spent since then. Restore the newest copy"
            )

    def phase_plan(self, round_: int) -> PhasePlan:
        """Return the plan of the phase to which a round belongs.

        Args:
            round_: 1 .. `schedule.rounds`.
        """
        plan: PrivacyPlan = self.reservation.plan
        name = self.schedule.phase_of(round_).name
        return next(phase for phase in plan.phases if phase.name == name)

    def forget_answers(self, acknowledged: int) -> None:
        """Delete answers that the server has stored.

        Args:
            acknowledged: The last round whose result is in a checkpoint of the server.
        """
        rounds = {key: row["round"] for key, row in self.answers.items()}
        self.store.forget_answers([k for k, round_ in rounds.items() if round_ <= acknowledged])

    def kept_answer(self, key: str) -> TrainAnswer | None:
        """Return the answer that an equal request was given before, or None.

        A repeated request is answered with the same bytes, which cost no further budget.

        Args:
            key: Hash of everything that the answer depends on (`Train.key`).
        Raises:
            AttemptLost: There was such an answer, and its file was deleted or changed.
        """
        # Only answers on the ledger count: a file without a row may be from an attempt that died.
        if key not in self.answers:
            return None
        kept = self.store.get_answer(key, self.answers[key]["sha256"])
        # The budget of this attempt is spent, and training again under the same number would
        # release a second noisy result for one charge.
        if kept is None:
            raise AttemptLost("this answer was acknowledged and deleted: ask for a new attempt")
        return kept

    def state_before(self, round_: int, model: Medformer) -> LocalState:
        """Return the site's own tensors as the rounds before this one left them.

        Args:
            round_: The round that comes next.
            model: A new model of the site, from which the first round starts.
        Raises:
            StoreError: An earlier round was trained, and its tensors are gone. To start again from
                new ones would train something else than what was paid for.
        """
        # A second attempt of a round starts where the first one did, so states of later rounds are
        # skipped.
        if (state := self.store.get_state(round_)) is not None:
            return state
        # No state and no earlier answer: this is the site's first round. It may have missed earlier
        # ones.
        if any(row["round"] < round_ for row in self.answers.values()):
            raise StoreError(
                f"the site's own tensors before round {round_} are gone: restore the site's state "
                "folder, or let the server go on from its newest checkpoint"
            )
        return initial_state(model)

    def start_attempt(self, request: Train) -> str:
        """Charge an attempt of a round, durably; from here on its budget is spent.

        Args:
            request: Names round and attempt.
        Returns:
            Hash of the ledger row, for the server to keep.
        Raises:
            Refused: As `Ledger.start_attempt`.
        """
        self.ledger.reports.check_open(self.run_id)
        return self.ledger.start_attempt(
            self.reservation, request.round, request.attempt, request.key()
        )

    def keep(self, request: Train, answer: TrainAnswer, state: LocalState) -> None:
        """Store what an attempt left behind: local tensors, then the answer, then its row.

        Args:
            request: The request that is answered.
            answer: Stored so that a repeated request gets the same bytes.
            state: The site's own tensors after the round.
        """
        key = request.key()
        # In this order a crash leaves at most files without a row, which the next attempt replaces.
        self.store.put_state(request.round, request.attempt, state)
        digest = self.store.put_answer(key, answer)
        self.ledger.record_answer(self.run_id, request.round, request.attempt, key, digest)

    def tasks(self, records: Records, noise_for: NoiseFor) -> tuple[Task, ...]:
        """Return the site's tasks, their classes weighted if the run has paid for a count.

        Classes are counted once a run. The noisy counts are on the disk, and their hash is on the
        ledger, before they are used; counts that are lost afterwards are not drawn again, because a
        second draw would cost a second time.

        Args:
            records: The site's training records, counted at most once a run.
            noise_for: Noise of the count, a stream that no round shares.
        Raises:
            StoreError: The run's counts are lost or were changed.
            RuntimeError: The site's tasks are not those that the plan charged the count for.
        """
        plan = self.reservation.plan.balance
        if plan is None:
            return self.site.tasks
        # site.yaml may have gained a task since the admission, and the noise would be too small.
        if count_sensitivity(self.site.tasks) > plan.max_grad_norm * (1 + 1e-9):
            raise RuntimeError("the site's tasks are not those of the admitted count of classes")
        # Noise for the joint sensitivity of all counts, with the allowance for arithmetic.
        std = plan.noise_std
        written = self.ledger.count(self.run_id)
        # A process that died between file and row left counts on the disk: they are used, not
        # redrawn.
        if written is None and self.store.get_counts() is None:
            noise = noise_for(self.reservation, CLASS_COUNT, 0)
            self.store.put_counts(noisy_counts(records, self.site.tasks, std, noise))
        # The weights come from the disk, so that a crash between the two writes changes nothing.
        stored = self.store.get_counts()
        # `written` is the hash on the ledger: other counts than the charged ones are not used.
        if stored is None or written not in (None, stored[1]):
            raise StoreError("the run's class counts are lost: restore the site's state folder")
        if written is None:
            self.ledger.record_count(self.run_id, stored[1])
        return weighted(self.site.tasks, stored[0], std, self.site.privacy.labelled)


def checked(tensors: Tensors, model: Medformer) -> dict[str, Tensor]:
    """Return the server's tensors as torch tensors, if they are exactly the shared ones.

    Args:
        tensors: As they came.
        model: A model of the run, which names the shared tensors and their shapes.
    Raises:
        BadRequest: A tensor is missing, unknown, of another shape or type, not finite, or larger
            than `MAX_WEIGHT`.
    """
    shapes = shared_shapes(model)
    # Neither more nor fewer: a local tensor from the server would overwrite the site's own.
    if wrong := sorted(set(tensors) ^ set(shapes)):
        raise BadRequest(f"the tensors must be exactly the shared ones; {wrong[0]!r:.80} is not")
    for name, value in tensors.items():
        if value.dtype != np.float32 or tuple(value.shape) != shapes[name]:
            raise BadRequest(f"{name} must be float32 of shape {shapes[name]}")
        # Extreme weights could make the loss of chosen records overflow, which the server might
        # notice.
        if not np.isfinite(value).all() or float(np.abs(value).max(initial=0)) > MAX_WEIGHT:
            raise BadRequest(f"{name} is not finite or beyond {MAX_WEIGHT:g}")
    return as_torch(tensors)
