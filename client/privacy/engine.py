"""One differentially private step: Poisson sample, per-unit clip, Gaussian noise, public divisor.

Read it in this order: `DpEngine.draw` samples the units of a step; `DpEngine.step` takes it and
calls, in turn, `DpEngine.accumulate` (clipped sums, from client/privacy/clipping.py) and Opacus'
`step`, which calls back into `NoisyOptimizer`: `accumulate`, `add_noise`, `scale_grad`.

Guarantee: with the plan's sample_rate q, noise_multiplier sigma and max_grad_norm C, a step is the
Poisson-subsampled Gaussian mechanism of Abadi et al. 2016 (arXiv:1607.00133, Algorithm 1) with
L2 sensitivity C under add/remove of one unit, and a little more for arithmetic
(`PhasePlan.sensitivity`). Rows that are invalid or whose gradient is not finite contribute exactly
zero. B images of a drawn batch, P parameters.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from torch import Tensor, nn

from client.privacy.accounting import Steps
from client.privacy.clipping import Book
from client.privacy.discrete import check_rounding
from client.privacy.models.modules import check_modules
from client.privacy.models.watch import Watch
from client.privacy.noise import NoiseSource
from client.privacy.per_example import EngineError
from client.privacy.plan import PhasePlan
from client.privacy.units import slices
from server.protocol import Phase

PHYSICAL_BATCH = 128
"""Rows that go through the model at once, unless the engine is given another number."""

SliceLosses = Callable[[slice], Tensor]
"""Rows of the drawn batch -> their losses, one value a row, in order."""


class ClipGroup(NamedTuple):
    """Parameters that are clipped together."""

    names: tuple[str, ...]
    max_grad_norm: float


class StepRecord:
    """Counts the noisy steps that were really taken, empty batches included.

    It is a check, not an accountant: a run is charged by its plan before its first step, and the
    guard refuses to send a round whose steps were not those of the plan.

    Args:
        sample_rate: The rate at which the engine draws.
    """

    def __init__(self, sample_rate: float) -> None:
        self.taken: list[Steps] = []
        self._sample_rate = sample_rate

    def note(self, optimizer: "NoisyOptimizer") -> None:
        """Record one step; Opacus calls this after the noise, before the parameters change.

        Args:
            optimizer: The optimizer that takes the step.
        """
        self.taken.append(Steps(self._sample_rate, float(optimizer.noise_multiplier), 1))

    def __len__(self) -> int:
        return len(self.taken)


class NoisyOptimizer(DPOptimizerFastGradientClipping):
    """Opacus' optimizer for gradients that are clipped already, with our source of noise.

    Its `step` calls the methods below in their order here. Between the slices of one batch it is
    told to skip (`signal_skip_step`), and then calls `accumulate` only.

    Args:
        optimizer: Built over exactly the trained parameters.
        plan: Noise, bound and divisor.
        noise: Source of the noise.
    Source: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, plan: PhasePlan, noise: NoiseSource
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.max_grad_norm,
            expected_batch_size=plan.expected_batch_size,
            loss_reduction="mean",
        )
        self._std = plan.noise_std
        self._noise = noise
        self._sizes = [p.numel() for p in self.params]
        self._total: Tensor | None = None
        self.released: Tensor | None = None
        """(P,) float64, the noisy sum of the last step; None before the first."""

    def accumulate(self) -> None:
        """Add the clipped sums of a slice to those of the slices before, in float64."""
        # float64 keeps the rounding of many slices far below that of a single float32 gradient.
        part = torch.cat([p.grad.flatten() for p in self.params]).double()
        self._total = part if self._total is None else self._total.add_(part)

    def add_noise(self) -> None:
        """Round to the grid, and add noise of the plan's standard deviation to every coordinate."""
        self._total = self._noise.noised(self.total(), self._std)
        self.released = self._total

    def scale_grad(self) -> None:
        """Divide by the public expected batch size; the result becomes the gradient."""
        released = (self.total() / self.expected_batch_size).to(self.params[0].dtype)
        for p, part in self.by_parameter(released):
            p.grad = part

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Forget the gradients, and the total unless the step was skipped.

        Args:
            set_to_none: True to drop the gradients, False to set them to zero.
        """
        super().zero_grad(set_to_none)
        # After a skipped step the total holds the slices so far, and the batch is not complete.
        if not self._is_last_step_skipped:
            self._total = None

    def by_parameter(self, flat: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield each parameter with its part of the values, in its shape.

        Args:
            flat: (P,) values in the order of the parameters.
        """
        for p, part in zip(self.params, flat.split(self._sizes), strict=True):
            yield p, part.view_as(p)

    def total(self) -> Tensor:
        """Return the clipped sum of the slices so far, (P,) float64, in the parameters' order.

        Raises:
            EngineError: No batch was accumulated, not even an empty one.
        """
        if self._total is None:
            raise EngineError("no batch was accumulated")
        return self._total


class DpEngine:
    """Takes the DP steps of one round at one site.

    Args:
        model: Trained in place; only parameters named in `groups` change.
        plan: Rate, noise, bound and divisor of this phase.
        groups: All trained parameters; the root of their bounds' summed squares must be the plan's
            `max_grad_norm`.
        optimizer: Built over exactly these parameters.
        noise: Randomness of this round.
        physical_batch: Rows that go through the model at once. Fewer rows need less memory; the
            clipped sum does not depend on the number.
    Raises:
        EngineError: A module is on no list of client/privacy/models/modules.py, the bounds do not
            match the plan's, or there are more parameters than the grid allows. A model that is not
            this project's is checked at its first call, in `accumulate`, and refused there if it
            does not keep examples apart.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: PhasePlan,
        groups: Sequence[ClipGroup],
        optimizer: torch.optim.Optimizer,
        noise: NoiseSource,
        physical_batch: int | None = None,
    ) -> None:
        # Groups are clipped apart, so one unit can use up all of their bounds at once.
        joined = sum(g.max_grad_norm**2 for g in groups) ** 0.5
        if abs(joined - plan.max_grad_norm) > 1e-9 * plan.max_grad_norm:
            raise EngineError(f"bounds join to {joined}, the plan says {plan.max_grad_norm}")
        check_modules(model)
        named = dict(model.named_parameters())
        self._trained: dict[str, Any] = {n: named[n] for g in groups for n in g.names}
        # A gradient left from earlier would pass for a use of the parameter outside its layer.
        for name, parameter in named.items():
            parameter.requires_grad_(name in self._trained)
            parameter.grad = None
        check_rounding(sum(p.numel() for p in self._trained.values()), plan)
        self._physical_batch = physical_batch or PHYSICAL_BATCH
        self._groups = groups
        self._noise = noise
        self._sample_rate = plan.sample_rate
        self.record = StepRecord(plan.sample_rate)
        model.train()  # dropout and the like act on each example alone, so they may stay on
        self._book = Book(model, self._trained)
        self._watch = Watch(model, self._trained, self._book)
        self.optimizer = NoisyOptimizer(optimizer, plan, noise)
        self.optimizer.attach_step_hook(self.record.note)

    def __enter__(self) -> "DpEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()
        self._book.close()

    def released(self) -> dict[str, Tensor]:
        """Return the noisy sum of the last step, name -> float64 of the parameter's shape.

        Raises:
            EngineError: No step was taken.
        """
        if self.optimizer.released is None:
            raise EngineError("no step was taken, so that there is no noisy sum")
        name_of = {id(parameter): name for name, parameter in self._trained.items()}
        parts = self.optimizer.by_parameter(self.optimizer.released)
        return {name_of[id(parameter)]: part for parameter, part in parts}

    def draw(self, count: int) -> Tensor:
        """Draw a Poisson sample: each unit with probability sample_rate, independently.

        Args:
            count: Number of units at the site.
        Returns:
            Numbers of the drawn units, ascending, (U,) int64; often empty where units are few.
        Source: Balle, Barthe and Gaboardi 2018, arXiv:1807.01647, for the amplification.
        """
        return (self._noise.uniform(count) < self._sample_rate).nonzero().flatten()

    def step(
        self,
        losses: SliceLosses,
        valid: Tensor,
        parts: Sequence[int] | None = None,
        units: Tensor | None = None,
    ) -> float:
        """Take one noisy step on the drawn batch, which may be empty.

        An empty batch still gets noise and counts as a step: the accountant charges every draw.

        Args:
            losses: Computes the per-row losses of a slice of the batch.
            valid: (B,) bool; rows that are False contribute exactly zero.
            parts: Lengths of runs of rows that no slice may join, because their images differ in
                shape; one run if omitted.
            units: (B,) int64, ascending: the unit of each row. The rows of a unit are averaged
                before the clip, and lie in one part. Each row is a unit if omitted.
        Returns:
            Sum of the valid rows' losses, without noise: it must not leave the site.
        Raises:
            EngineError: The model or the losses do not keep examples apart.
        """
        total = self.accumulate(losses, valid, parts, units)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def accumulate(
        self,
        losses: SliceLosses,
        valid: Tensor,
        parts: Sequence[int] | None = None,
        units: Tensor | None = None,
    ) -> float:
        """Compute the batch's clipped sum, slice by slice.

        Batches larger than the physical batch are taken in slices whose clipped sums are added. No
        slice ends within a unit. The last slice's sum is left in the parameters' gradients, from
        where the optimizer's own step takes it.

        Args:
            losses, valid, parts, units: As `step` takes them.
        Returns:
            Sum of the valid rows' losses, without noise.
        """
        total = 0.0
        runs = list(slices(len(valid), self._physical_batch, parts, units))
        for rows in runs:
            own = None if units is None else units[rows].unique(return_inverse=True)[1]
            total += self._slice(losses, rows, valid[rows], own)
            if rows is not runs[-1]:
                # Opacus' way to add up slices: its step then accumulates and changes nothing.
                self.optimizer.signal_skip_step(True)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        return total

    def _slice(
        self, losses: SliceLosses, rows: slice, valid: Tensor, units: Tensor | None
    ) -> float:
        """Put the clipped sum of one slice into the gradients, and return its summed losses."""
        count = rows.stop - rows.start
        # An empty batch has the sum zero, and the optimizer needs a gradient to add noise to.
        if count == 0:
            for p in self._trained.values():
                p.grad = torch.zeros_like(p)
            return 0.0
        self._watch.begin(count)
        values = losses(rows)
        # A loss that was averaged over the batch would have one value, and no example's gradient.
        if values.shape != (count,):
            raise EngineError(f"losses must be one value a row, ({count},), got {values.shape}")
        self._watch.check_losses(values)
        values.sum().backward()  # the rules of the layers record each row's part of the gradient
        self._watch.check_kept()
        for name, total in self._book.clip(self._groups, valid, units).items():
            self._trained[name].grad = total
        return float(torch.where(valid, values.detach(), 0.0).nan_to_num().sum())


def clip_groups(names: Sequence[str], phase: Phase) -> list[ClipGroup]:
    """Return what is clipped together: everything, or model and discriminator apart.

    Args:
        names: All trained parameters.
        phase: Its bounds apply.
    Returns:
        One group, or two in a phase with the objective `domain_adversarial`.
    """
    if "domain_adversarial" not in phase.objectives:
        return [ClipGroup(tuple(names), phase.max_grad_norm)]
    # Each of the two has its own bound in the schedule.
    judge = tuple(n for n in names if n.startswith("discriminator."))
    rest = tuple(n for n in names if n not in judge)
    return [
        ClipGroup(rest, phase.max_grad_norm),
        ClipGroup(judge, phase.discriminator_max_grad_norm),
    ]
