"""The tensors that a site keeps between rounds and never sends.

Each function takes a state and returns another one; none changes what it was given, so that a
request that fails halfway leaves the site as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from medformer.model import Medformer
from medformer.postprocessing.averaging import running_mean
from medformer.sharing import is_local
from server.protocol import Phase, Schedule


@dataclass(frozen=True)
class LocalState:
    """A site's local tensors after a round."""

    parameters: dict[str, Tensor]
    """Heads, queries, task and site embeddings; every tensor in phases that a site trains alone."""
    momentum: dict[str, Tensor]
    """SGD momentum of those parameters that were trained."""
    average: dict[str, Tensor]
    """Mean of the parameters over the rounds of the averaging window; empty outside of it."""
    averaged: int = 0
    """Number of iterates in `average`."""
    phase: str = ""
    """Name of the phase of the last round; empty before the first round."""


def initial_state(model: Medformer) -> LocalState:
    """Return the state of a site before its first round.

    Args:
        model: A new model of the site, whose local tensors are copied.
    """
    local = {k: p.detach().clone() for k, p in model.named_parameters() if is_local(k)}
    return LocalState(local, {}, {})


def final_state(state: LocalState) -> LocalState:
    """Return the local tensors of a site's final model.

    Args:
        state: The site's state after its last round.
    Returns:
        The averaged tensors if the last round lay in an averaging window, otherwise the last ones;
        without momentum.
    """
    # An average exists only if the last round lay in an averaging window.
    return LocalState(state.average or state.parameters, {}, {})


def from_average(state: LocalState, shared: Mapping[str, Tensor], phase: Phase) -> LocalState:
    """Return the state in which a phase begins that starts from the average of the one before.

    Args:
        state: The site's state after its last round before this phase.
        shared: The server's tensors, averaged likewise.
        phase: Where the site trains it alone, it adopts the shared tensors as local ones.
    """
    begun = final_state(state)
    # From here on the site trains its own copy of every tensor, and the server's no longer count.
    if phase.shared_with != "nobody":
        return begun
    return replace(begun, parameters={**shared, **begun.parameters})


def begin_round(
    model: Medformer,
    shared: Mapping[str, Tensor],
    state: LocalState,
    schedule: Schedule,
    phase: Phase,
) -> LocalState:
    """Fill the whole model for a round, and return the state in which the round begins.

    Args:
        model: Its parameters are overwritten.
        shared: The server's tensors at the start of this round.
        state: The site's state after the last round that it took part in.
        schedule: The run's phases, in order.
        phase: The phase of this round. The site may have missed its first rounds, and all of the
            phases before it.
    Returns:
        `state`, moved to its average if the schedule does so between the two rounds.
    """
    # Decided by the site's last phase, not by the round's number: the site may have missed rounds.
    if schedule.average_taken_since(state.phase, phase):
        state = from_average(state, shared, phase)
    restore(model, shared, state)
    return replace(state, phase=phase.name)


def restore(model: Medformer, shared: Mapping[str, Tensor], state: LocalState) -> None:
    """Fill the whole model.

    Args:
        model: Its parameters are overwritten.
        shared: The server's tensors.
        state: The site's own tensors; they replace shared ones of the same name, which a site has
            in phases that it trains alone.
    """
    model.load_state_dict({**shared, **state.parameters})


def next_state(
    model: Medformer,
    names: list[str],
    optimizer: torch.optim.Optimizer,
    before: LocalState,
    *,
    averages: bool,
) -> LocalState:
    """Return the site's state after a round.

    Args:
        model: As the round left it.
        names: The parameters that the round trained.
        optimizer: Holds the momentum of these parameters.
        before: The state in which the round began; the result has the same local tensors.
        averages: Whether this round lies in the averaging window.
    """
    named = dict(model.named_parameters())
    parameters = {k: named[k].detach().clone() for k in before.parameters}
    # Tensors that this round did not train keep the momentum of the round that did.
    momentum = dict(before.momentum)
    for name in (n for n in names if n in before.parameters):
        # torch keeps no buffer where momentum is 0
        if (kept := optimizer.state[named[name]].get("momentum_buffer")) is not None:
            momentum[name] = kept.clone()
    # Outside of the averaging window an earlier average stays as it is.
    if not averages:
        return replace(before, parameters=parameters, momentum=momentum)
    count = before.averaged + 1
    average = running_mean(before.average, parameters, count)
    return LocalState(parameters, momentum, average, count, before.phase)
