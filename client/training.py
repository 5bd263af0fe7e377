"""The steps of local training: what is drawn, augmented, trained and sent.

The same code runs under differential privacy at a site and without it in a baseline; the `Engine`
makes the difference. B rows of a drawn batch, U units of privacy, K views of an image.
"""

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
from medformer.sharing import is_concept, is_head, is_local, shared_names
from server.protocol import LABEL_OBJECTIVES, Objective, Phase, Tensors


class Engine(Protocol):
    """Draws a batch and takes a step on it: `DpEngine`, or the plain engine of the baselines."""

    def draw(self, count: int) -> Tensor:
        """Draw the units of the next batch.

        Args:
            count: Number of units.
        Returns:
            (U,) numbers of units, out of 0 .. count - 1; there may be none.
        """
        ...

    def step(
        self,
        losses: Callable[[slice], Tensor],
        valid: Tensor,
        parts: Sequence[int],
        units: Tensor | None,
    ) -> float:
        """Take one step.

        Args:
            losses: Rows of the drawn batch -> their losses, one value a row.
            valid: (B,) bool; other rows contribute nothing.
            parts: Lengths of the runs of rows whose images have one shape.
            units: (B,) unit of each row, ascending; None if each row is a unit.
        Returns:
            Sum of the losses of the valid rows, without noise.
        """
        ...


def site_model(
    config: ModelConfig, tasks: Sequence[Task], *, checkpointing: bool = False
) -> Medformer:
    """Build a site's model before any training.

    Args:
        config: The run's vocabulary and preset.
        tasks: The site's tasks; each gets a head.
        checkpointing: Recompute activations in the backward pass, to save memory.
    Returns:
        A model whose local tensors start from one seed, the same at every site.
    """
    model = seeded(config, tasks, site=True, seed=0)
    # It changes memory and time, not the result, so it is no part of the shared configuration.
    if config.network is None:
        model.encoder.blocks.checkpointing = checkpointing
    return model


def as_torch(tensors: Tensors) -> dict[str, Tensor]:
    """Copy arrays into torch tensors.

    Args:
        tensors: Name -> array of the server's message.
    Returns:
        Name -> tensor, which shares no memory with the message.
    """
    return {k: torch.from_numpy(np.array(v)) for k, v in tensors.items()}


def sent_after(model: Medformer, names: list[str], phase: Phase) -> Tensors:
    """Copy the trained tensors that a site sends after a round.

    Args:
        model: The model after the round.
        names: The parameters that the round trained.
        phase: The phase of the round.
    Returns:
        Name -> array of each trained shared tensor; nothing if the phase sends nothing. Local
        tensors are never among them.
    """
    # Also the shared tensors stay at the site in phases that it trains alone.
    if not phase.sends:
        return {}
    named = dict(model.named_parameters())
    return {n: named[n].detach().numpy().copy() for n in shared_names(names)}


def build_optimizer(
    model: Medformer, names: list[str], learning_rate: float, momentum: float, state: LocalState
) -> torch.optim.SGD:
    """Build the SGD optimizer of one round.

    Shared tensors have no momentum here, because the server applies it to their average; a site's
    own tensors go on with the momentum of earlier rounds.

    Args:
        model: The site's model.
        names: The parameters that the round trains.
        learning_rate: Rate of all of them, > 0.
        momentum: Momentum of the site's own tensors, in [0, 1).
        state: The site's own tensors before the round, with their momentum.
    """
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
        # A tensor that was never trained before has no momentum yet.
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
        model: Trained in place.
        site: Tasks, domain and unit of privacy.
        records: The site's training records.
        phase: Number of steps, and views of each image.
        mix: Weights of the losses in this round (`Schedule.mix`).
        engine: Draws the batches and takes the steps; it knows parameters and optimizer.
        generator: Draws shifts, masks and views.
    Returns:
        Mean loss of the valid drawn records, 0 if none was drawn. It carries no noise and must not
        leave the site.
    """
    dense = [task.name for task in site.tasks if task.is_dense]
    whole = units_of(site, records, phase)
    # Each step draws its own batch, because the accountant assumes independent ones.
    total, seen = 0.0, 0
    for _ in range(phase.local_steps):
        rows, units = whole.rows(engine.draw(len(whole)), generator)
        rows, units = repeated(rows, units, phase.views)
        drawn = list(records.take(rows))
        # Drawn for all rows at once, so that shifts do not depend on the size of the slices.
        moves = [
            Move.draw(len(stack), site.domain.rank, generator, flip=site.flip) for stack in drawn
        ]
        # An empty batch is a step like any other: its noise is added and charged.
        valid = torch.cat([stack.valid for stack in drawn]) if drawn else torch.zeros(0).bool()

        def losses(part: slice, drawn: list[Stack] = drawn, moves: list[Move] = moves) -> Tensor:
            # A slice lies within one stack, because images of different shapes cannot be batched.
            which, rows = _place([len(stack) for stack in drawn], part)
            # Pixels become float32 slice by slice, because a drawn batch may exceed the memory.
            batch = augmented(drawn[which][rows], site, dense, moves[which][rows])
            return mix_losses(model, batch, mix, generator)

        total += engine.step(losses, valid, [len(stack) for stack in drawn], units)
        # Invalid rows contribute neither loss nor count.
        seen += int(valid.sum())
    return total / max(seen, 1)


def units_of(site: Site, records: Records, phase: Phase) -> Units:
    """Return the units that a phase draws from.

    Args:
        site: Unit of privacy, and the declared number of labelled units, if any.
        records: The site's training records.
        phase: If it learns from labels alone and the site declared `n_labelled`, units without a
            label are skipped.
    """
    privacy = site.privacy
    # Without the declaration the rate is computed for all units, so all of them are drawn.
    fewer = phase.needs_labels and privacy.n_labelled is not None
    return Units(
        records,
        by_patient=privacy.unit == "patient",
        max_images=privacy.images_per_step,
        among=records.labelled if fewer else None,
    )


def repeated(rows: Tensor, units: Tensor | None, views: int) -> tuple[Tensor, Tensor | None]:
    """Repeat each row once for each view, the views of a unit side by side.

    All views of an image belong to one unit, so that their gradients are averaged before clipping
    and K views cost no more privacy than one.

    Args:
        rows: (B,) row numbers.
        units: (B,) unit of each row; None if each row is a unit.
        views: K >= 1.
    Returns:
        (K * B,) rows and their units; the arguments themselves if K is 1.
    Source: De et al. 2022 (augmentation multiplicity), arXiv:2204.13650.
    """
    # The usual case keeps `units` at None, so that each row is a unit.
    if views == 1:
        return rows, units
    units = torch.arange(len(rows)) if units is None else units
    return rows.repeat_interleave(views), units.repeat_interleave(views)


def augmented(stack: Stack, site: Site, dense: Sequence[str], move: Move) -> Batch:
    """Move images and their masks alike, and standardise the images.

    Args:
        stack: (B, C, *spatial) images of one shape, with labels.
        site: The domain of the images.
        dense: Names of the tasks whose labels are masks.
        move: The shift and flip of each image.
    """
    labels = {k: move(v) if k in dense else v for k, v in stack.labels.items()}
    images = standardise(move(stack.images))
    return Batch(images, labels, site.domain, stack.spacing, stack.natural)


def _place(lengths: Sequence[int], part: slice) -> tuple[int, slice]:
    """Find rows of the whole drawn batch in its stacks.

    Args:
        lengths: Number of rows of each stack.
        part: Rows of the batch that lie in one stack.
    Returns:
        Number of the stack, and the rows within it.
    Raises:
        IndexError: The rows lie beyond the batch.
    """
    start = 0
    for which, length in enumerate(lengths):
        if part.start < start + length:
            return which, slice(part.start - start, part.stop - start)
        start += length
    raise IndexError(f"rows {part} are outside the batch of {start}")


def taught(site: Site, mix: Mix) -> dict[Objective, float]:
    """Return the losses of a mix that the site can learn from: all, or those without labels.

    Where a site declares no labels, what only labels teach is not trained: its gradient would be
    zero, and the site would send noise.

    Args:
        site: The declared number of labelled units.
        mix: Weight of each loss.
    """
    none = site.privacy.n_labelled == 0
    return {k: v for k, v in mix.items() if not (none and k in LABEL_OBJECTIVES)}


def trained_names(
    model: Medformer, site: Site, phase: Phase, *, concepts: bool = True
) -> list[str]:
    """List the parameters that a phase trains at a site.

    If the run has a concept layer for the site's kind of image, that layer is trained to answer,
    together with the other sites, and the site's own two heads of a task are not trained before
    the phases of own heads.

    Args:
        model: The site's model.
        site: Domain and tasks.
        phase: Objectives, and whether all parameters or only the answering layers are trained.
        concepts: Whether the site trains its part of the concept layer, to send it; otherwise it
            trains its own heads in their place, on top of what the server sends.
    Returns:
        Names of parameters, in the model's order.
    """
    tasks = [t.name for t in site.tasks]
    names = trained_parameters(model, site.domain, tasks, taught(site, phase.objectives))
    # On top of everything else, concepts included, which stay as they are.
    if phase.trains == "own-heads":
        return [n for n in names if is_head(n)]
    # A policy may keep at home what answers the site's question: then its own heads learn.
    if not concepts:
        names = [n for n in names if not is_concept(n)]
    # Otherwise the shared layer answers in their place during the run.
    elif site.domain.kind in model.config.kinds:
        # The head of a dense task has deeper names and no counterpart among the concepts, so it is
        # trained on.
        own = {f"output.{part}.{task}" for part in ("heads", "textures") for task in tasks}
        outside = tuple(f"output.heads.{task.name}." for task in site.tasks if task.head)
        names = [n for n in names if n.rpartition(".")[0] not in own and not n.startswith(outside)]
    if phase.freeze_own:
        names = [n for n in names if not is_local(n)]
    # The encoder stays as it is, so that only the layers that answer remain.
    if phase.trains == "heads":
        return [n for n in names if n.startswith("output.") and (is_local(n) or is_concept(n))]
    return names
