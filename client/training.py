"""Local training of one round: the same code under DP at a site and plain in a baseline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from client.data.records import Records, Stack
from client.privacy.units import Units
from client.site import Site
from medformer.config import ModelConfig, Task
from medformer.images import Move, standardise
from medformer.library.models import seeded
from medformer.model import Medformer
from medformer.objectives import Batch, Mix, mix_losses, trained_parameters
from medformer.sharing import is_concept, is_local, shared_names
from server.protocol import Phase, Schedule, Tensors


class Engine(Protocol):
    """Draws a batch and takes a step on it: `DpEngine`, or the plain one of the baselines."""

    def draw(self, count: int) -> Tensor:
        """Units of the next batch."""
        ...

    def step(
        self,
        losses: Callable[[slice], Tensor],
        valid: Tensor,
        parts: Sequence[int],
        units: Tensor | None,
    ) -> float:
        """One step on `parts`, runs of rows of one shape; returns the sum of the losses."""
        ...


@dataclass(frozen=True)
class LocalState:
    """What a site keeps between rounds and never sends."""

    parameters: dict[str, Tensor]
    """Heads, queries, task and site embeddings; in rounds that a site trains alone, all tensors."""
    momentum: dict[str, Tensor]
    """SGD momentum of those that were trained."""
    average: dict[str, Tensor]
    """Mean of the iterates in the averaging window."""
    averaged: int = 0
    """How many iterates `average` holds."""
    phase: str = ""
    """Name of the phase of the last round; empty before the first."""


def site_model(
    config: ModelConfig, tasks: Sequence[Task], *, checkpointing: bool = False
) -> Medformer:
    """A site's model before any training; its local tensors start the same at every site."""
    model = seeded(config, tasks, site=True, seed=0)
    model.encoder.blocks.checkpointing = checkpointing
    return model


def as_torch(tensors: Tensors) -> dict[str, Tensor]:
    """The server's arrays as tensors of our own."""
    return {k: torch.from_numpy(np.array(v)) for k, v in tensors.items()}


def sent_after(model: Medformer, names: list[str], phase: Phase) -> Tensors:
    """Copies of those of `names` that may be sent; none in a phase that sends nothing."""
    if not phase.sends:
        return {}
    named = dict(model.named_parameters())
    return {n: named[n].detach().numpy().copy() for n in shared_names(names)}


def initial_state(model: Medformer) -> LocalState:
    """A site's state before its first round."""
    local = {k: p.detach().clone() for k, p in model.named_parameters() if is_local(k)}
    return LocalState(local, {}, {})


def settled(state: LocalState, shared: Mapping[str, Tensor], phase: Phase) -> LocalState:
    """The state of a site that begins a phase in which something comes to rest: its own tensors
    from their average, without momentum. Where it goes on alone the shared ones are its own."""
    found = final_state(state)
    return replace(found, parameters={**shared, **found.parameters}) if phase.alone else found


def begin_round(
    model: Medformer,
    shared: Mapping[str, Tensor],
    state: LocalState,
    schedule: Schedule,
    phase: Phase,
) -> LocalState:
    """Fill the whole model for a round of this phase, and return the state that it begins with.
    The first round of a phase at this site need not be the phase's first, and it may have missed
    all of the one before."""
    if schedule.average_taken_since(state.phase, phase):
        state = settled(state, shared, phase)
    restore(model, shared, state)
    return replace(state, phase=phase.name)


def restore(model: Medformer, shared: Mapping[str, Tensor], state: LocalState) -> None:
    """Fill the whole model: shared tensors from the server, the site's own from its state."""
    model.load_state_dict({**shared, **state.parameters})


def build_optimizer(
    model: Medformer, names: list[str], learning_rate: float, momentum: float, state: LocalState
) -> torch.optim.SGD:
    """SGD over `names`: shared tensors without momentum (the server has it), a site's own with."""
    named = dict(model.named_parameters())
    local = [n for n in names if n in state.parameters]
    shared = [n for n in names if n not in state.parameters]
    optimizer = torch.optim.SGD(
        [
            {"params": [named[n] for n in shared], "momentum": 0.0},
            {"params": [named[n] for n in local], "momentum": momentum},
        ],
        lr=learning_rate,
    )
    for name in local:
        if name in state.momentum:
            optimizer.state[named[name]]["momentum_buffer"] = state.momentum[name].clone()
    return optimizer


def train_round(
    model: Medformer,
    site: Site,
    records: Records,
    phase: Phase,
    mix: Mix,
    engine: Engine,
    generator: torch.Generator,
) -> float:
    """Take the phase's local steps.

    Args:
        model: Changed in place.
        records: The site's training records.
        mix: Weights of the losses in this round (`Schedule.mix`).
        engine: Knows the parameters, the optimizer and how a batch is drawn.
        generator: Draws shifts, masks and views.
    Returns:
        Mean loss of the drawn records, 0 if none was drawn. Not noised: it must not leave a site.
    """
    dense = [t.name for t in site.tasks if t.kind == "dense"]
    whole = units_of(site, records, phase)
    total, seen = 0.0, 0
    for _ in range(phase.local_steps):
        rows, units = whole.rows(engine.draw(len(whole)), generator)
        rows, units = seen_often(rows, units, phase.views)
        drawn = list(records.take(rows))
        moves = [
            Move.draw(len(stack), site.domain.rank, generator, flip=site.flip) for stack in drawn
        ]
        valid = torch.cat([stack.valid for stack in drawn]) if drawn else torch.zeros(0).bool()

        def losses(part: slice, drawn: list[Stack] = drawn, moves: list[Move] = moves) -> Tensor:
            which, rows = _place([len(stack) for stack in drawn], part)
            # Pixels become numbers slice by slice: what is drawn may be more than fits.
            batch = augmented(drawn[which][rows], site, dense, moves[which][rows])
            return mix_losses(model, batch, mix, generator)

        total += engine.step(losses, valid, [len(stack) for stack in drawn], units)
        seen += int(valid.sum())
    return total / max(seen, 1)


def units_of(site: Site, records: Records, phase: Phase) -> Units:
    """What a phase draws from: all units, or of those that the site has declared to be fewer, the
    ones with a label."""
    privacy = site.privacy
    fewer = phase.needs_labels and privacy.n_labelled is not None
    return Units(
        records,
        by_patient=privacy.unit == "patient",
        most=privacy.images_per_step,
        among=records.labelled if fewer else None,
    )


def seen_often(rows: Tensor, units: Tensor | None, views: int) -> tuple[Tensor, Tensor | None]:
    """Each row as often as it is viewed, the views of a unit side by side.

    Args:
        rows: (B,).
        units: (B,) the unit of each row; None if each row is one.
        views: K >= 1.
    Returns:
        (K * B,) rows and their units; what was given if K is 1.
    """
    if views == 1:
        return rows, units
    units = torch.arange(len(rows)) if units is None else units
    return rows.repeat_interleave(views), units.repeat_interleave(views)


def augmented(stack: Stack, site: Site, dense: Sequence[str], move: Move) -> Batch:
    """Images moved, masks along with them."""
    labels = {k: move(v) if k in dense else v for k, v in stack.labels.items()}
    return Batch(standardise(move(stack.images)), labels, site.domain, stack.spacing)


def _place(lengths: Sequence[int], part: slice) -> tuple[int, slice]:
    """Rows of the whole drawn batch, all of them in one stack: which stack, and its own rows."""
    start = 0
    for which, length in enumerate(lengths):
        if part.start < start + length:
            return which, slice(part.start - start, part.stop - start)
        start += length
    raise IndexError(f"rows {part} are outside the batch of {start}")


def trained_names(model: Medformer, site: Site, phase: Phase) -> list[str]:
    """Parameters that this phase trains at this site.

    Where its kind of image has concepts, these learn the answers together, and the site's own two
    heads of a task stay as they are: they are for the site's own use afterwards.
    """
    tasks = [t.name for t in site.tasks]
    names = trained_parameters(model, site.domain, tasks, phase.objectives)
    if site.domain.kind in model.config.kinds:
        # Those of a dense task lie deeper, and go on learning.
        own = {f"output.{part}.{task}" for part in ("heads", "textures") for task in tasks}
        names = [n for n in names if n.rpartition(".")[0] not in own]
    if phase.trains == "heads":
        return [n for n in names if n.startswith("output.") and (is_local(n) or is_concept(n))]
    return names


def next_state(
    model: Medformer,
    names: list[str],
    optimizer: torch.optim.SGD,
    before: LocalState,
    *,
    averages: bool,
) -> LocalState:
    """The site's state after a round; `averages` adds this iterate to the final average."""
    named = dict(model.named_parameters())
    parameters = {k: named[k].detach().clone() for k in before.parameters}
    momentum = dict(before.momentum)
    for name in (n for n in names if n in before.parameters):
        # torch keeps none where momentum is 0
        if (kept := optimizer.state[named[name]].get("momentum_buffer")) is not None:
            momentum[name] = kept.clone()
    if not averages:
        return replace(before, parameters=parameters, momentum=momentum)
    count = before.averaged + 1
    average = {
        k: value.clone() if count == 1 else before.average[k] + (value - before.average[k]) / count
        for k, value in parameters.items()
    }
    return LocalState(parameters, momentum, average, count, before.phase)


def final_state(state: LocalState) -> LocalState:
    """The averaged parameters of the site's own where there are any, else the last ones."""
    return LocalState(state.average or state.parameters, {}, {})
