"""Partial averaging: each tensor is averaged over the sites that trained it. State is a value."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from medformer.postprocessing.averaging import running_mean
from medformer.postprocessing.whitening import MOMENTS_PREFIX, adapted
from medformer.sharing import is_concept, is_local
from server.extensions.rule import moved_by
from server.protocol import Phase, Tensors, TrainAnswer
from server.run.errors import UpdateRefused
from server.run.federation import Federation, ServerRate


@dataclass(frozen=True)
class State:
    """The coordinator's model after a round, or its models, one for each kind of image.

    Source: Polyak and Juditsky 1992, doi:10.1137/0330046, for the average of the last iterates.
    """

    round: int
    """Number of rounds that are done."""
    shared: Tensors
    """The shared tensors after the round."""
    momentum: Tensors
    """Velocity of each shared tensor."""
    average: Tensors
    """Mean of the shared tensors over the rounds of the averaging window; empty before it."""
    averaged: int = 0
    """Number of iterates in `average`."""
    kinds: Mapping[str, "State"] = field(default_factory=dict)
    """Kind of image -> the state of the sites that have it, once sites share within kinds alone;
    empty before. From then on `shared` stays what all sites had in common last."""

    def of(self, kind: str) -> "State":
        """Return the state that sites with a kind of image share.

        Args:
            kind: `Domain.kind` of a site.
        """
        return self.kinds.get(kind, self)

    def parted(self, kinds: Iterable[str]) -> "State":
        """Return the state in which each kind of image goes on by itself, from where all are.

        Args:
            kinds: The kinds of all sites, also of those that are away. Ignored if they parted
                before.
        """
        if self.kinds:
            return self
        # Momentum and average go on within each kind; nothing moves the common tensors any more.
        return State(self.round, self.shared, {}, {}, kinds=dict.fromkeys(sorted(kinds), self))

    def unchanged(self) -> "State":
        """Return the state after a round in which sites trained for themselves, or not at all."""
        kinds = {kind: own.unchanged() for kind, own in self.kinds.items()}
        return replace(self, round=self.round + 1, kinds=kinds)

    def from_average(self) -> "State":
        """Return the state that starts a phase from the average, without momentum."""
        kinds = {kind: own.from_average() for kind, own in self.kinds.items()}
        return State(self.round, self.final(), {}, {}, kinds=kinds)

    def whitened_anew(self) -> "State":
        """Return the state whose features are whitened by the moments that sites have released."""
        kinds = {kind: own.whitened_anew() for kind, own in self.kinds.items()}
        # A later phase of moments starts from zero, and nothing of the old features goes on.
        momentum = {k: v for k, v in self.momentum.items() if not k.startswith(MOMENTS_PREFIX)}
        return replace(self, shared=adapted(self.shared), momentum=momentum, kinds=kinds)

    def final(self) -> Tensors:
        """Return the average, or the last tensors if there is none."""
        return self.average or self.shared


@dataclass(frozen=True)
class Sum:
    """The sum of the updates of a cohort, of which the server knows no part."""

    moved: Mapping[str, npt.NDArray[np.float64]]
    """Name of a tensor -> sum of the sites' changes of it."""
    trained_by: Mapping[str, int]
    """Name -> number of sites that trained it; the changes of the others are zero."""

    @property
    def norm(self) -> float:
        """L2 norm of the sum, all tensors together."""
        return math.sqrt(sum(float(np.square(value).sum()) for value in self.moved.values()))


Collect = Callable[[State], Mapping[str, Tensors]]
"""Has sites train the round after a state; returns site name -> its checked tensors."""
CollectSums = Callable[[State], Mapping[str, Sum]]
"""Has sites train the round after a state; returns kind of image -> the sum of its sites' updates,
or one sum of all sites under the empty text."""


def advance(
    state: State,
    federation: Federation,
    collect: Collect,
    weights: Mapping[str, float] | None = None,
    sums: CollectSums | None = None,
) -> State:
    """Train one round; the order of average, training and step is fixed here alone.

    Args:
        state: The state after the round before.
        federation: Schedule, momentum and learning rate.
        collect: Has the sites train.
        weights: Site name -> its weight in the average; the declared ones if left out.
        sums: Has the sites train where their answers are masked.
    Returns:
        The state after the round.
    Raises:
        ValueError: Answers are masked, and `sums` is left out.
    Source: FedAvg, McMahan et al. 2017, arXiv:1602.05629, Algorithm 1.
    """
    schedule, number = federation.schedule, state.round + 1
    if schedule.starts_from_average(number):
        state = state.from_average()
    # Only now: within the phase the features have to stay the same.
    if schedule.follows(number, "moments"):
        state = state.whitened_anew()
    if schedule.phase_of(number).parts_kinds:
        state = state.parted(site.domain.kind for site in federation.sites)
    options: dict[str, Any] = {
        "momentum": federation.server_momentum,
        "learning_rate": federation.server_learning_rate,
        "averages": schedule.averages(number),
    }
    if schedule.phase_of(number).sends and schedule.aggregation.secure:
        if sums is None:
            raise ValueError("answers are masked, and nobody adds them up")
        return _summed(state, sums(state), options)
    updates = collect(state)
    # In a phase that each site trains alone there is nothing to average.
    if not schedule.phase_of(number).sends:
        return state.unchanged()
    declared = {s.name: s.weight for s in federation.sites} if weights is None else weights

    def step(own: State, given: Mapping[str, Tensors]) -> State:
        return apply(own, given, declared, **options, rule=federation.server_rule)

    return (
        step(state, updates) if not state.kinds else _within_kinds(state, federation, updates, step)
    )


def _summed(state: State, sums: Mapping[str, Sum], options: Mapping[str, Any]) -> State:
    """Return the state after a round of which sums are known, one for all or one for each kind."""
    if not state.kinds:
        return apply_sum(state, sums[""], **options)
    after = {
        kind: apply_sum(own, sums[kind], **options) if kind in sums else own.unchanged()
        for kind, own in state.kinds.items()
    }
    return replace(state, round=state.round + 1, kinds=after)


def _within_kinds(
    state: State,
    federation: Federation,
    updates: Mapping[str, Tensors],
    step: Callable[[State, Mapping[str, Tensors]], State],
) -> State:
    """Average each kind's updates into its own state."""
    after = {}
    for kind, own in state.kinds.items():
        sites = {site.name for site in federation.sites if site.domain.kind == kind}
        given = {name: tensors for name, tensors in updates.items() if name in sites}
        # A kind whose sites are all away waits: its momentum and average belong to its own rounds.
        after[kind] = step(own, given) if given else own.unchanged()
    return replace(state, round=state.round + 1, kinds=after)


def check_update(
    answer: TrainAnswer,
    shared: Tensors,
    max_update_norm: float,
    *,
    site: str,
    round_: int,
    attempt: int,
    phase: Phase,
    idle: bool = False,
) -> None:
    """Refuse an update that may not be averaged.

    Args:
        answer: The site's answer, which may be hostile.
        shared: The shared tensors that the round started from.
        max_update_norm: Maximum L2 distance of the update from `shared`, all tensors together.
        site: The site that was asked.
        round_: The round that it was asked for.
        attempt: The attempt that it was asked for.
        phase: The phase of the round.
        idle: True if the site's receipt has no step in this phase, because it has no labels.
    Raises:
        UpdateRefused: Another site, round or attempt, tensors without a step, a tensor that is
            local or unknown or not trained in this phase, a wrong shape or type, NaN or infinity,
            nothing at all, or a step longer than `max_update_norm`.
    Source: Sun et al. 2019, arXiv:1911.07963, section 4, for the bound on the norm.
    """
    if answer.round != round_:
        raise UpdateRefused(f"the update is for round {answer.round}, not {round_}")
    # The name decides the weight; a site must not use that of another.
    if answer.site != site:
        raise UpdateRefused(f"the update names another site, {answer.site!r:.80}")
    # An answer to a lost attempt was charged, and replaced by the next one.
    if answer.attempt != attempt:
        raise UpdateRefused(f"the update is of attempt {answer.attempt}, not {attempt}")
    # Steps that are not on the receipt are paid by nothing.
    if idle:
        if answer.tensors:
            raise UpdateRefused("the update holds tensors, and its receipt has no step for them")
        return
    if not phase.sends:
        if answer.tensors:
            raise UpdateRefused("the update holds tensors, though the site trains for itself")
        return
    # In a phase of heads a site without a common concept trains nothing that it shares, and a site
    # without labels sits out every phase that learns from them alone.
    if not answer.tensors and phase.trains != "heads" and not phase.needs_labels:
        raise UpdateRefused("the update holds no tensor")
    square = 0.0
    for name, value in answer.tensors.items():
        _check_tensor(name, value, shared, phase)
        # In float64: the sum over millions of values loses digits in float32.
        square += float(np.square(value.astype(np.float64) - shared[name]).sum())
    # `not <=`, because a sum that overflowed is neither larger nor smaller.
    if not square**0.5 <= max_update_norm:
        raise UpdateRefused(
            f"the update moves {square**0.5:.3g}, more than max_update_norm {max_update_norm:g}"
        )


def _check_tensor(name: str, value: npt.NDArray[Any], shared: Tensors, phase: Phase) -> None:
    """Refuse a tensor of an update by its name, shape or values."""
    # A site that sends what must stay there has other code or is hostile: nothing of it is used.
    if is_local(name):
        raise UpdateRefused(f"{name} is local: it must never leave a site")
    if name not in shared:
        raise UpdateRefused(f"{name} is not a shared tensor of this model")
    if phase.trains == "heads" and not is_concept(name):
        raise UpdateRefused(f"{name} is not trained in a phase of heads")
    if value.dtype != np.float32 or tuple(value.shape) != tuple(shared[name].shape):
        raise UpdateRefused(
            f"{name} must be float32 {tuple(shared[name].shape)}, "
            f"got {value.dtype} {tuple(value.shape)}"
        )
    # One NaN would spread to the whole model.
    if not np.isfinite(value).all():
        raise UpdateRefused(f"{name} holds NaN or infinity")


def apply(
    state: State,
    updates: Mapping[str, Tensors],
    weights: Mapping[str, float],
    *,
    momentum: float,
    averages: bool,
    learning_rate: ServerRate = 1.0,
    rule: str | None = None,
) -> State:
    """Return the state after averaging the updates of one round.

    A tensor that no site trained stays as it is, and so does its momentum.

    Args:
        state: The state that the sites started from.
        updates: Site name -> its checked tensors. They are summed in the order of names, because
            the order of float additions decides whether a run can be repeated bit for bit.
        weights: Site name -> publicly declared weight.
        momentum: Factor of the velocity, in [0, 1).
        averages: True if this iterate belongs to the running average.
        learning_rate: Factor of the averaged update; `sites`: the number of sites that trained a
            tensor, so that their updates add up; `sqrt-sites`: its root.
        rule: `MODULE:NAME` of an aggregation rule in place of the weighted mean.
    Source: FedAvgM, Hsu et al. 2019, arXiv:1909.06335; server rates, FedOpt, Reddi et al. 2021,
        arXiv:2003.00295.
    """
    means = _means if rule is None else partial(moved_by, rule)
    moved = means(state.shared, updates, weights)
    return _stepped(state, moved, momentum=momentum, averages=averages, learning_rate=learning_rate)


def _means(
    shared: Tensors, updates: Mapping[str, Tensors], weights: Mapping[str, float]
) -> dict[str, tuple[npt.NDArray[np.float32], int]]:
    """Return the mean change of each tensor over the sites that trained it, and their number."""
    moved: dict[str, tuple[npt.NDArray[np.float32], int]] = {}
    for name, before in shared.items():
        trained_by = [site for site in sorted(updates) if name in updates[site]]
        if not trained_by:
            continue
        # Over the sites that trained it: a tensor of few sites moves as far as one of all.
        total = sum(weights[site] for site in trained_by)
        # In float32 throughout, as the sites: the result is the same on every machine.
        mean = np.zeros_like(before)
        for site in trained_by:
            mean += updates[site][name] * np.float32(weights[site] / total)
        moved[name] = mean - before, len(trained_by)
    return moved


def apply_sum(
    state: State,
    total: Sum,
    *,
    momentum: float,
    averages: bool,
    learning_rate: ServerRate = 1.0,
) -> State:
    """Return the state after a round of which nothing but the sum of all updates is known.

    It is `apply` for sites of equal weight, up to rounding.

    Args:
        state: The state that the sites started from.
        total: The sum, and the number of sites that trained each tensor.
        momentum, averages, learning_rate: As for `apply`.
    """
    moved = {
        name: ((value / total.trained_by[name]).astype(np.float32), total.trained_by[name])
        for name, value in total.moved.items()
        if total.trained_by[name]
    }
    return _stepped(state, moved, momentum=momentum, averages=averages, learning_rate=learning_rate)


def _stepped(
    state: State,
    moved: Mapping[str, tuple[npt.NDArray[np.float32], int]],
    *,
    momentum: float,
    averages: bool,
    learning_rate: ServerRate,
) -> State:
    """Return the state after a step along the mean change of each tensor over its sites."""
    shared, velocity = dict(state.shared), dict(state.momentum)
    for name, (mean, sites) in moved.items():
        before = state.shared[name]
        step = np.float32(_factor(learning_rate, sites)) * mean
        # The velocity of a tensor starts at zero, when a site first trains it.
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
