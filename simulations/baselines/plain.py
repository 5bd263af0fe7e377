"""Training without privacy, for baselines only.

It is in this package, and not in `client`, so that a hospital's guard cannot reach it: the guard
never imports `simulations`, and no message or file can ask for it (tests/test_architecture.py).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from client.data.load import load
from client.data.records import Records
from client.evaluation import evaluate
from client.local_state import LocalState, final_state, initial_state, restore
from client.privacy.counts.classes import histogram, weighted
from client.privacy.counts.tasks import countable
from client.privacy.noise import SeededNoise
from client.round import one_round
from client.site import Site
from client.training import as_torch, site_model, units_of
from medformer.config import ModelConfig, Task
from medformer.model import Medformer
from server.protocol import (
    Admit,
    AdmitAnswer,
    Answer,
    Evaluate,
    EvaluateAnswer,
    Hello,
    HelloAnswer,
    Phase,
    Request,
    Schedule,
    Train,
    TrainAnswer,
    source_hash,
)


class PlainEngine:
    """Takes ordinary steps: batches drawn as under DP, the mean gradient, no noise.

    Args:
        parameters: The trained parameters.
        optimizer: Built over exactly these.
        sample_rate: Probability with which each record joins a batch, as in `DpEngine`.
        max_grad_norm: Bound of the norm of the batch gradient, for steps as long as under DP.
        generator: Draws the batches.
    """

    def __init__(
        self,
        parameters: list[Tensor],
        optimizer: torch.optim.Optimizer,
        sample_rate: float,
        max_grad_norm: float,
        generator: torch.Generator,
    ) -> None:
        self._parameters = parameters
        self._optimizer = optimizer
        self._sample_rate = sample_rate
        self._max_grad_norm = max_grad_norm
        self._generator = generator

    @classmethod
    def over(
        cls,
        model: Medformer,
        names: Sequence[str],
        optimizer: torch.optim.Optimizer,
        phase: Phase,
        records: int,
        generator: torch.Generator,
        pooled: int = 1,
    ) -> "PlainEngine":
        """Make the engine of a phase.

        Args:
            model: Put into training mode.
            names: The parameters that the phase trains.
            optimizer: Built over exactly these.
            phase: Expected batch size of one site, and clipping bound.
            records: Number of images to draw from.
            generator: Draws the batches.
            pooled: Number of sites whose images these are; the expected batch grows with it.
        """
        # As `DpEngine` does, so that both train the model in the same mode.
        model.train()
        named = dict(model.named_parameters())
        # From the true number of images: there is no privacy that a public number would serve.
        rate = min(1.0, pooled * phase.expected_batch_size / max(1, records))
        return cls([named[n] for n in names], optimizer, rate, phase.max_grad_norm, generator)

    def draw(self, count: int) -> Tensor:
        """Draw the units of the next batch, each with the same probability, independently."""
        drawn = torch.rand(count, generator=self._generator) < self._sample_rate
        return drawn.nonzero().flatten()

    def step(
        self,
        losses: Callable[[slice], Tensor],
        valid: Tensor,
        parts: Sequence[int],
        units: Tensor | None,
    ) -> float:
        """Take a step on the mean loss of the valid rows; an empty batch changes nothing.

        Arguments as for `client.training.Engine.step`; each image counts as a unit of its own.
        """
        self._optimizer.zero_grad()
        # Rows of different shapes cannot be batched, so each part goes through the model by itself.
        edges = [0, *accumulate(parts)]
        each = [losses(slice(*edge)) for edge in pairwise(edges)]
        # A batch can be empty, as under DP; then there is no step.
        values = torch.cat(each)[valid] if each else torch.zeros(0)
        if not len(values):
            return 0.0
        values.mean().backward()
        # The norm of the batch, not of each image: it bounds the step without changing its
        # direction.
        torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        self._optimizer.step()
        return float(values.detach().sum())


@dataclass(frozen=True)
class PlainMethod:
    """Takes the steps of a round without privacy: the counterpart of `client.round.DpMethod`."""

    site: Site
    records: Records
    randomness: torch.Generator
    """Draws batches, shifts, masks and views."""
    pooled: int = 1
    """Number of sites whose records these are."""
    concepts: bool = True
    """No policy keeps anything at home."""

    def learning_rate(self, phase: Phase) -> float:
        """Return the phase's learning rate; its noise floor, if any, is for noisy steps."""
        return phase.learning_rate

    @contextmanager
    def engine(
        self, model: Medformer, names: list[str], optimizer: torch.optim.Optimizer, phase: Phase
    ) -> Iterator[PlainEngine]:
        """Open an engine whose batches are drawn from the true number of images."""
        images = units_of(self.site, self.records, phase).images
        yield PlainEngine.over(model, names, optimizer, phase, images, self.randomness, self.pooled)

    def generator(self) -> torch.Generator:
        """Return the one generator of this site."""
        return self.randomness


class PlainSite:
    """Answers the protocol as a guard does, without privacy and without a ledger.

    Args:
        site: Tasks, domain, and files of the evaluation splits.
        records: Training records; those of several sites with the same tasks may be pooled.
        seed: Seed of batches and views.
        pooled: Number of sites whose records these are. The expected batch grows with it, so that
            a pooled step sees as many images as a federated one.
    """

    def __init__(self, site: Site, records: Records, seed: str, pooled: int = 1) -> None:
        self._site = site
        self._records = records
        self._pooled = pooled
        # `plain` keeps these draws apart from those of the guards.
        self._generator = SeededNoise("plain", seed).generator()
        self._state: LocalState | None = None
        self._schedule: Schedule | None = None
        self._model: Medformer | None = None

    def handle(self, request: Request) -> Answer:
        """Answer a request; nothing is refused, because nothing is promised."""
        if isinstance(request, Hello):
            return HelloAnswer(self._site.name, self._site.domain.model_dump_json(), source_hash())
        if isinstance(request, Admit):
            self._schedule = Schedule.model_validate_json(request.schedule)
            config = ModelConfig.model_validate_json(request.model)
            self._model = site_model(config, self._tasks())
            self._state = initial_state(self._model)
            # The receipt of a plan that costs nothing: the coordinator expects these two keys.
            receipt = {"progress": [], "phases": self._idle(self._schedule)}
            return AdmitAnswer(self._site.name, json.dumps(receipt))
        assert self._schedule is not None
        assert self._model is not None
        assert self._state is not None
        if isinstance(request, Train):
            return self._train(request, self._schedule, self._model, self._state)
        return self._evaluate(request, self._model, self._state)

    def _idle(self, schedule: Schedule) -> list[dict[str, str | int]]:
        """List the phases in which the site takes no step, as a guard's receipt does."""
        idle = [p for p in schedule.phases if not self._site.privacy.takes_part_in(p)]
        return [{"name": phase.name, "steps": 0} for phase in idle]

    def _tasks(self) -> tuple[Task, ...]:
        """Return the site's tasks, with exact class counts in place of a guard's noisy ones."""
        privacy, tasks = self._site.privacy, self._site.tasks
        # Declared class weights are part of the tasks already.
        if privacy.class_balance_noise is None:
            return tasks
        counts = {t.name: histogram(self._records, t).tolist() for t in countable(tasks)}
        return weighted(tasks, counts, 0.0, self._pooled * privacy.labelled)

    def _train(
        self, request: Train, schedule: Schedule, model: Medformer, state: LocalState
    ) -> TrainAnswer:
        """Train a round, and keep the local state in memory."""
        method = PlainMethod(self._site, self._records, self._generator, self._pooled)
        shared = as_torch(request.tensors)
        result = one_round(
            model, self._site, self._records, schedule, request.round, shared, state, method
        )
        self._state = result.state
        return TrainAnswer(
            self._site.name, request.round, request.attempt, result.tensors, result.loss
        )

    def _evaluate(self, request: Evaluate, model: Medformer, state: LocalState) -> EvaluateAnswer:
        """Measure the final model on a split of the site."""
        restore(model, as_torch(request.tensors), final_state(state))
        rows = evaluate(model, self._site, load(self._site, request.split), request.split)
        return EvaluateAnswer(self._site.name, json.dumps(rows))
