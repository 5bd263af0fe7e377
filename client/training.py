"""Local training of one round: the same code under DP at a site and plain in a baseline."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from client.data.records import Records, Stack
from client.local_state import LocalState
from client.privacy.units import Units
from client.site import Site
from medformer.config import ModelConfig, Task
from medformer.images import Move, standardise
from medformer.library.models import seeded
from medformer.model import Medformer
from medformer.objectives import Batch, Mix, mix_losses, trained_parameters
from medformer.sharing import is_concept, is_local, shared_names
from server.protocol import Phase, Tensors


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
