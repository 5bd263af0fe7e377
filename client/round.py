"""One round at one site: the only spelling of it, for guard, audit, baselines and benchmarks.

A round fills the model, builds the optimizer of what the phase trains, takes the phase's local
steps, and keeps what the next round needs. What differs between its users is how a step is taken,
which they pass as a `Method`: a guard always passes `DpMethod`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from client.data.records import Records
from client.local_state import LocalState, begin_round, next_state
from client.privacy.engine import ClipGroup, DpEngine, clip_groups
from client.privacy.noise import NoiseSource
from client.privacy.plan import PhasePlan
from client.site import Site
from client.training import (
    Engine,
    build_optimizer,
    sent_after,
    taught,
    train_round,
    trained_names,
)
from medformer.model import Medformer
from medformer.objectives import Mix
from server.protocol import Phase, Schedule, Tensors, learning_rate


class Method(Protocol):
    """The way in which the steps of a round are taken: with differential privacy or without."""

    @property
    def concepts(self) -> bool:
        """True if the site trains, and sends, its part of a concept layer (`trained_names`)."""
        ...

    def learning_rate(self, phase: Phase) -> float:
        """Return the learning rate of a round's steps.

        Args:
            phase: The phase of the round.
        """
        ...

    def engine(
        self, model: Medformer, names: list[str], optimizer: torch.optim.Optimizer, phase: Phase
    ) -> AbstractContextManager[Engine]:
        """Open the engine that draws the batches and takes the steps of a round.

        Args:
            model: Trained in place.
            names: The parameters of the model that the phase trains.
            optimizer: Built over exactly these parameters.
            phase: The phase of the round.
        Returns:
            A context that ends with the round's last step.
        """
        ...

    def generator(self) -> torch.Generator:
        """Return the randomness of shifts, masks and views."""
        ...


@dataclass(frozen=True)
class DpMethod:
    """Takes the steps of one round under the plan that the site's ledger admitted."""

    plan: PhasePlan
    """The plan of the round's phase."""
    noise: NoiseSource
    """Randomness of this round, never the same twice."""
    concepts: bool = True
    """False if the hospital's policy keeps its part of the concept layer at home."""
    released: dict[str, Tensor] = field(default_factory=dict)
    """Filled by the last step: name -> its clipped sum with this site's noise, float64, which is
    what a site sends where noise is shared."""

    def learning_rate(self, phase: Phase) -> float:
        """Return the phase's learning rate, or the one that its noise floor implies.

        Args:
            phase: The phase of the round, of which `plan` is the plan.
        """
        return learning_rate(phase, self.plan.gradient_noise)

    def engine(
        self, model: Medformer, names: list[str], optimizer: torch.optim.Optimizer, phase: Phase
    ) -> AbstractContextManager[Engine]:
        """Open a `DpEngine`, which has to take exactly the steps of the plan.

        Args:
            model: Trained in place.
            names: The parameters of the model that the phase trains; all of them are clipped.
            optimizer: Built over exactly these parameters.
            phase: The phase of the round, with its clipping bounds.
        Returns:
            The context of `dp_engine`.
        """
        groups = clip_groups(names, phase)
        return dp_engine(model, self.plan, groups, optimizer, self.noise, self.released)

    def generator(self) -> torch.Generator:
        """Return the noise source's own stream for draws that need no secrecy."""
        return self.noise.generator()


@dataclass(frozen=True)
class RoundResult:
    """A round's outcome at a site."""

    loss: float | None
    """Mean loss of the drawn records, without noise: it must not leave the site. None if the site
    sat the round out."""
    tensors: Tensors
    """The trained shared tensors, which are sent; empty in phases that send nothing, and if the
    site sat the round out."""
    state: LocalState
    """The site's own tensors for its next round; never sent."""


def one_round(
    model: Medformer,
    site: Site,
    records: Records,
    schedule: Schedule,
    number: int,
    shared: Mapping[str, Tensor],
    state: LocalState,
    method: Method,
) -> RoundResult:
    """Train one round of a run at one site.

    Args:
        model: Overwritten with `shared` and `state`, then trained in place.
        site: Tasks, domain and unit of privacy.
        records: The site's training records.
        schedule: The run's admitted schedule.
        number: The round, 1 .. `schedule.rounds`.
        shared: The server's tensors at the start of the round.
        state: The site's own tensors after the last round that it trained.
        method: How the round's steps are taken.
    Returns:
        Loss, tensors to send and the site's next state. A site that sits the phase out
        (`Privacy.takes_part_in`) takes no step and sends nothing.
    Raises:
        RuntimeError: Under differential privacy, more or fewer steps were taken than planned.
    """
    phase = schedule.phase_of(number)
    # The state may move to its average here, so that the steps below start from the right one.
    begun = begin_round(model, shared, state, schedule, phase)
    # Without labels there is nothing to learn from: a step would add noise and spend epsilon.
    if not site.privacy.takes_part_in(phase):
        return RoundResult(None, {}, begun)
    return local_steps(
        model,
        site,
        records,
        phase,
        schedule.mix(number),
        begun,
        method,
        momentum=schedule.local_momentum,
        averages=schedule.averages(number),
    )


TrainRound = Callable[
    [Medformer, Site, Records, Schedule, int, Mapping[str, Tensor], LocalState, Method],
    RoundResult,
]
"""The signature of `one_round`."""


def local_steps(
    model: Medformer,
    site: Site,
    records: Records,
    phase: Phase,
    mix: Mix,
    state: LocalState,
    method: Method,
    *,
    momentum: float,
    averages: bool,
    optimizer: torch.optim.Optimizer | None = None,
) -> RoundResult:
    """Take a phase's local steps on a model that is filled already.

    Args:
        model: Trained in place.
        site: Tasks, domain and unit of privacy.
        records: The site's training records.
        phase: Objectives, number of steps, clipping bounds.
        mix: Weight of each loss in this round.
        state: The site's own tensors, as the model holds them, with their momentum.
        method: How the steps are taken.
        momentum: Momentum of the site's own parameters, in [0, 1).
        averages: Whether the result belongs to the averaging window.
        optimizer: Over the phase's parameters; by default, SGD as `build_optimizer` makes it.
    Returns:
        Loss, tensors to send and the site's next state.
    """
    names = trained_names(model, site, phase, concepts=method.concepts)
    # A benchmark brings its own optimizer; a guard never does.
    if optimizer is None:
        optimizer = build_optimizer(model, names, method.learning_rate(phase), momentum, state)
    with method.engine(model, names, optimizer, phase) as engine:
        own = taught(site, mix)
        loss = train_round(model, site, records, phase, own, engine, method.generator())
    # Read after the engine is closed: nothing can change the model any more.
    after = next_state(model, names, optimizer, state, averages=averages)
    return RoundResult(loss, sent_after(model, names, phase), after)


@contextmanager
def dp_engine(
    model: nn.Module,
    plan: PhasePlan,
    groups: Sequence[ClipGroup],
    optimizer: torch.optim.Optimizer,
    noise: NoiseSource,
    released: dict[str, Tensor] | None = None,
) -> Iterator[DpEngine]:
    """Open the DP engine of one round, and see at its end that the plan's steps were taken.

    Args:
        model: Trained in place.
        plan: Rate, noise, bound, divisor and number of steps of the round's phase.
        groups: The trained parameters and their clipping bounds.
        optimizer: Built over exactly these parameters.
        noise: Randomness of this round.
        released: Filled with the noisy sum of the last step, if given.
    Yields:
        The engine.
    Raises:
        EngineError: The model, the groups or the noise do not allow private steps (`DpEngine`).
        RuntimeError: More or fewer steps were taken than the plan charges for a round.
    """
    with DpEngine(model, plan, groups, optimizer, noise) as engine:
        yield engine
        taken = len(engine.record)
        if released is not None:
            released |= engine.released()
    # The ledger has charged exactly these steps: a result of any other number must not leave.
    if taken != plan.steps_per_round:
        raise RuntimeError(f"{taken} steps were taken, the plan has {plan.steps_per_round}")
