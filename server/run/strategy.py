"""Partial averaging: each tensor over the sites that trained it. State is a value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from medformer.averaging import running_mean
from medformer.sharing import is_concept, is_local
from server.protocol import Phase, Tensors, TrainAnswer
from server.run.errors import UpdateRefused
from server.run.federation import Federation, ServerRate


@dataclass(frozen=True)
class State:
    """The coordinator's model after a round."""

    round: int
    shared: Tensors
    momentum: Tensors
    average: Tensors
    """Mean of the shared tensors over the rounds of the averaging window."""
    averaged: int = 0

    def unchanged(self) -> "State":
        """After a round in which sites sent nothing."""
        return replace(self, round=self.round + 1)

    def from_average(self) -> "State":
        """Return the state that a phase starts with which starts from an average."""
        return State(self.round, self.final(), {}, {})

    def final(self) -> Tensors:
        """The averaged tensors where there are any, else the last ones."""
        return self.average or self.shared


Collect = Callable[[State], Mapping[str, Tensors]]
"""Has sites train the round after a state; returns site name -> its checked tensors."""


def advance(
    state: State,
    federation: Federation,
    collect: Collect,
    weights: Mapping[str, float] | None = None,
) -> State:
    """Train one round; the order of average, training and step is fixed here alone.

    Args:
        state: The state after the round before.
        federation: Schedule, momentum and learning rate.
        collect: Has the sites train.
        weights: Site name -> its weight in the average; the declared ones if left out.
    Returns:
        The state after the round.
    """
    schedule, number = federation.schedule, state.round + 1
    if schedule.starts_from_average(number):
        state = state.from_average()
    updates = collect(state)
    if not schedule.phase_of(number).sends:
        return state.unchanged()
    return apply(
        state,
        updates,
        {site.name: site.weight for site in federation.sites} if weights is None else weights,
        momentum=federation.server_momentum,
        learning_rate=federation.server_learning_rate,
        averages=schedule.averages(number),
    )


def check_update(
    answer: TrainAnswer,
    shared: Tensors,
    max_update_norm: float,
    *,
    site: str,
    round_: int,
    attempt: int,
    phase: Phase,
) -> None:
    """Refuse what may not be averaged.

    Args:
        shared: What the round began with.
        site: Who was asked.
        round_: For which round.
        attempt: For which attempt.
        phase: Of that round.
    Raises:
        UpdateRefused: Another site, round or attempt, a tensor that is local or unknown or not
            trained in this phase, a wrong shape or type, NaN or infinity, nothing at all, or a step
            longer than `max_update_norm`.
    """
    if answer.round != round_:
        raise UpdateRefused(f"the update is for round {answer.round}, not {round_}")
    if answer.site != site:
        raise UpdateRefused(f"the update says that it is of {answer.site!r:.80}")
    if answer.attempt != attempt:
        raise UpdateRefused(f"the update is of attempt {answer.attempt}, not {attempt}")
    if not phase.sends:
        if answer.tensors:
            raise UpdateRefused("the update holds tensors, though the site trains for itself")
        return
    heads = phase.trains == "heads"
    if not answer.tensors and not heads:
        raise UpdateRefused("the update holds no tensor")
    square = 0.0
    for name, value in answer.tensors.items():
        if is_local(name):
            raise UpdateRefused(f"{name} is local: it must never leave a site")
        if name not in shared:
            raise UpdateRefused(f"{name} is not a shared tensor of this model")
        if heads and not is_concept(name):
            raise UpdateRefused(f"{name} is not trained in a phase of heads")
        if value.dtype != np.float32 or tuple(value.shape) != tuple(shared[name].shape):
            raise UpdateRefused(
                f"{name} must be float32 {tuple(shared[name].shape)}, "
                f"got {value.dtype} {tuple(value.shape)}"
            )
        if not np.isfinite(value).all():
            raise UpdateRefused(f"{name} holds NaN or infinity")
        square += float(np.square(value.astype(np.float64) - shared[name]).sum())
    if not square**0.5 <= max_update_norm:
        raise UpdateRefused(
            f"the update moves {square**0.5:.3g}, more than max_update_norm {max_update_norm:g}"
        )


def apply(
    state: State,
    updates: Mapping[str, Tensors],
    weights: Mapping[str, float],
    *,
    momentum: float,
    averages: bool,
    learning_rate: ServerRate = 1.0,
) -> State:
    """The state after averaging one round (FedAvgM, Hsu et al. 2019, arXiv:1909.06335).

    Args:
        updates: Site name -> its checked tensors; summed in the order of names, because the order
            of float additions decides whether a run can be repeated.
        weights: Site name -> publicly declared weight.
        learning_rate: Factor of the averaged update; `sites`: the number of sites that trained a
            tensor, so that their updates add up; `sqrt-sites`: its root.
        averages: Whether this iterate belongs to the final average.
    """
    shared, velocity = dict(state.shared), dict(state.momentum)
    for name, before in state.shared.items():
        trained_by = [site for site in sorted(updates) if name in updates[site]]
        if not trained_by:
            continue
        total = sum(weights[site] for site in trained_by)
        mean = np.zeros_like(before)
        for site in trained_by:
            mean += updates[site][name] * np.float32(weights[site] / total)
        step = np.float32(_factor(learning_rate, len(trained_by))) * (mean - before)
        step += np.float32(momentum) * velocity.get(name, np.zeros_like(before))
        velocity[name], shared[name] = step, before + step
    average, count = state.average, state.averaged
    if averages:
        count += 1
        average = running_mean(average, shared, count)
    return State(state.round + 1, shared, velocity, average, count)


def _factor(learning_rate: ServerRate, sites: int) -> float:
    if learning_rate == "sites":
        return float(sites)
    return sites**0.5 if learning_rate == "sqrt-sites" else learning_rate
