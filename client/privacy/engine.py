"""One differentially private step: Poisson sample, per-unit clip, Gaussian noise, public divisor.

Clipped sums come from client/privacy/bookkeeping.py, Opacus' DPOptimizer accumulates, adds noise
and scales, its accountant interface counts the steps. B images of a drawn batch, P parameters.
Guarantee: with the plan's sample_rate q, noise_multiplier sigma and max_grad_norm C, a step is the
Poisson-subsampled Gaussian mechanism of Abadi et al. 2016 (arXiv:1607.00133, Algorithm 1) with
L2 sensitivity C under add/remove of one unit, and a little more for arithmetic
(`PhasePlan.sensitivity`). Rows that are invalid or whose gradient is not finite contribute exactly
zero.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from opacus.accountants.accountant import IAccountant
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from torch import Tensor, nn

from client.privacy.accounting import Steps, epsilon
from client.privacy.bookkeeping import Book
from client.privacy.discrete import grid
from client.privacy.models.modules import check_modules
from client.privacy.models.watch import Watch
from client.privacy.noise import NoiseSource
from client.privacy.per_example import EngineError
from client.privacy.plan import ALLOWANCE, PhasePlan
from medformer.common.rounding import exact
from server.protocol import Phase

PHYSICAL_BATCH = 128
"""Rows that go through the model at once, unless the engine is told otherwise."""

SliceLosses = Callable[[slice], Tensor]
"""Rows of the drawn batch -> their losses, one value a row, in order."""


class ClipGroup(NamedTuple):
    """Parameters that are clipped together."""

    names: tuple[str, ...]
    max_grad_norm: float


class StepRecord(IAccountant):
    """Counts the steps that were really taken, in Opacus' accountant interface."""

    def __init__(self) -> None:
        super().__init__()

    def step(self, *, noise_multiplier: float, sample_rate: float) -> None:
        """Called by the optimizer's hook once a step, empty batches included."""
        self.history.append((noise_multiplier, sample_rate, 1))

    def get_epsilon(self, delta: float, *args: Any, **kwargs: Any) -> float:
        """PLD epsilon of the steps taken by this object alone; never a run's total."""
        return epsilon([Steps(q, sigma, n) for sigma, q, n in self.history], delta)

    def __len__(self) -> int:
        return len(self.history)

    @classmethod
    def mechanism(cls) -> str:
        """Name in Opacus' state dicts."""
        return "fedmedformer-pld"


class NoisyOptimizer(DPOptimizerFastGradientClipping):
    """Opacus' optimizer for gradients that are clipped already, with our source of noise.

    Args:
        optimizer: Built over exactly the trained parameters.
        plan: Noise, bound and divisor.
        noise: Where the noise comes from.
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

    def accumulate(self) -> None:
        """Add the clipped sums of a slice to those of the slices before, in float64."""
        part = torch.cat([p.grad.flatten() for p in self.params]).double()
        self._total = part if self._total is None else self._total.add_(part)

    def add_noise(self) -> None:
        """Round to the grid, and add noise of the plan's standard deviation to every coordinate."""
        self._total = self._noise.noised(self.total(), self._std)

    def scale_grad(self) -> None:
        """Divide by the public expected batch size; the result becomes the gradient."""
        released = (self.total() / self.expected_batch_size).to(self.params[0].dtype)
        for p, part in self.by_parameter(released):
            p.grad = part

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Forget the gradients, and the total unless the step was skipped."""
        super().zero_grad(set_to_none)
        if not self._is_last_step_skipped:
            self._total = None

    def by_parameter(self, flat: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each parameter with its part of (P,) values, in its shape."""
        for p, part in zip(self.params, flat.split(self._sizes), strict=True):
            yield p, part.view_as(p)

    def total(self) -> Tensor:
        """(P,) float64: clipped sum of the slices so far, in the order of the parameters."""
        if self._total is None:
            raise EngineError("no batch was accumulated")
        return self._total


class DpEngine:
    """The DP steps of one round at one site.

    Args:
        model: Trained in place; only parameters named in `groups` change.
        plan: Rate, noise, bound and divisor of this phase.
        groups: All trained parameters; their bounds join to the plan's `max_grad_norm`.
        optimizer: Built over exactly these parameters.
        noise: Randomness of this round.
        physical_batch: Rows that go through the model at once; fewer need less memory, and the
            clipped sum does not depend on it.
    Raises:
        EngineError: A module that is on no list of client/privacy/models/modules.py, bounds
            that do not join to the plan's, or more parameters than the grid allows. At the first
            call of a model that is not this project's, in `accumulate`: it does not keep
            examples apart.
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
        joined = sum(g.max_grad_norm**2 for g in groups) ** 0.5
        if abs(joined - plan.max_grad_norm) > 1e-9 * plan.max_grad_norm:
            raise EngineError(f"bounds join to {joined}, the plan says {plan.max_grad_norm}")
        check_modules(model)
        named = dict(model.named_parameters())
        self._trained: dict[str, Any] = {n: named[n] for g in groups for n in g.names}
        for name, parameter in named.items():
            parameter.requires_grad_(name in self._trained)
            parameter.grad = None
        check_rounding(sum(p.numel() for p in self._trained.values()), plan)
        self._physical_batch = physical_batch or PHYSICAL_BATCH
        self._groups = groups
        self._noise = noise
        self._sample_rate = plan.sample_rate
        self.record = StepRecord()
        model.train()
        self._book = Book(model, self._trained)
        self._watch = Watch(model, self._trained, self._book)
        self._optimizer = NoisyOptimizer(optimizer, plan, noise)
        self._optimizer.attach_step_hook(self.record.get_optimizer_hook_fn(plan.sample_rate))

    def __enter__(self) -> "DpEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()
        self._book.close()

    def draw(self, count: int) -> Tensor:
        """Poisson sampling: each of `count` units with probability sample_rate, independently.

        Returns:
            Indices of the drawn units; often none at all where there are few.
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

        Args:
            losses: Computes the per-row losses of a slice of the batch.
            valid: (B,) bool; rows that are False contribute exactly zero.
            parts: Lengths of runs of rows that no slice may join, because their images differ in
                shape; one run if left out.
            units: (B,) int64, ascending: the unit of each row. A unit's rows are averaged before
                the clip, and lie in one part. Each row is a unit if left out.
        Returns:
            Sum of the valid rows' losses, without noise: it must not leave the site.
        """
        total = self.accumulate(losses, valid, parts, units)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return total

    def accumulate(
        self,
        losses: SliceLosses,
        valid: Tensor,
        parts: Sequence[int] | None = None,
        units: Tensor | None = None,
    ) -> float:
        """The batch's clipped sum, all but the last slice of it in the optimizer already.

        Batches larger than the physical batch are taken in slices whose clipped sums are added. No
        slice ends within a unit.
        """
        total = 0.0
        slices = list(_slices(len(valid), self._physical_batch, parts, units))
        for rows in slices:
            own = None if units is None else units[rows].unique(return_inverse=True)[1]
            total += self._slice(losses, rows, valid[rows], own)
            if rows is not slices[-1]:
                self._optimizer.signal_skip_step(True)
                self._optimizer.step()
                self._optimizer.zero_grad(set_to_none=True)
        return total

    def clipped_sum(self) -> dict[str, Tensor]:
        """After `accumulate`: the sum that the noise is added to; for tests and audits only."""
        self._optimizer.accumulate()
        sums = self._optimizer.by_parameter(self._optimizer.total())
        self._optimizer.zero_grad(set_to_none=True)
        found = {id(p): total for p, total in sums}
        return {name: found[id(p)] for name, p in self._trained.items()}

    def _slice(
        self, losses: SliceLosses, rows: slice, valid: Tensor, units: Tensor | None
    ) -> float:
        count = rows.stop - rows.start
        if count == 0:
            for p in self._trained.values():
                p.grad = torch.zeros_like(p)
            return 0.0
        self._watch.begin(count)
        values = losses(rows)
        if values.shape != (count,):
            raise EngineError(f"losses must be one value a row, ({count},), got {values.shape}")
        self._watch.check_losses(values)
        values.sum().backward()
        self._watch.check_kept()
        for name, total in self._book.clip(self._groups, valid, units).items():
            self._trained[name].grad = total
        return float(torch.where(valid, values.detach(), 0.0).nan_to_num().sum())


def check_rounding(count: int, plan: PhasePlan) -> None:
    """Refuse noise whose grid is too coarse for so many parameters.

    The clipped sum is rounded to a grid that grows with the noise; the sensitivity has room for a
    part of the bound (`client.privacy.plan.ALLOWANCE`), and rounding moves a sum of `count`
    coordinates by up to sqrt(count) grid points.

    Raises:
        EngineError: Says the largest noise multiplier that so many parameters allow, about.
    """
    moved, room = math.sqrt(count) * grid(plan.noise_std), ALLOWANCE / 2 * plan.max_grad_norm
    if moved > room:
        largest = plan.noise_multiplier * room / moved
        raise EngineError(
            f"the noise multiplier {exact(plan.noise_multiplier)} is too large for {count:,} "
            "trained parameters: rounding to the grid of the noise moves the clipped sum by more "
            f"than the sensitivity allows for. At most about {largest:.3g} works: plan fewer "
            "steps, a larger epsilon or a smaller preset"
        )


def clip_groups(names: list[str], phase: Phase) -> list[ClipGroup]:
    """What is clipped together: everything, or model and discriminator apart."""
    if "domain_adversarial" not in phase.objectives:
        return [ClipGroup(tuple(names), phase.max_grad_norm)]
    judge = tuple(n for n in names if n.startswith("discriminator."))
    rest = tuple(n for n in names if n not in judge)
    return [
        ClipGroup(rest, phase.max_grad_norm),
        ClipGroup(judge, phase.discriminator_max_grad_norm),
    ]


def _slices(
    count: int, most: int, parts: Sequence[int] | None, units: Tensor | None = None
) -> Iterator[slice]:
    """Runs of at most `most` rows within the parts, or of one unit that is larger; one
    empty run if there are no rows."""
    parts = [n for n in (parts if parts is not None else [count]) if n]
    if sum(parts) != count:
        raise EngineError(f"the parts {parts} are not the {count} rows of the batch")
    ends = _unit_ends(count, units)
    stops = set(accumulate(parts))
    if torn := stops - set(ends):
        raise EngineError(f"a part ends at row {min(torn)}, within a unit")
    start, reach = 0, 0
    for end in ends:
        if end - start > most and reach > start:
            yield slice(start, reach)
            start = reach
        reach = end
        if end in stops:
            yield slice(start, end)
            start = end
    if not count:
        yield slice(0, 0)


def _unit_ends(count: int, units: Tensor | None) -> Sequence[int]:
    """The rows after which another unit begins, the last among them."""
    if units is None:
        return range(1, count + 1)
    if units.shape != (count,) or bool((units.diff() < 0).any()):
        raise EngineError(f"units must be ({count},) and ascend, got {tuple(units.shape)}")
    return [*(units.diff().nonzero().flatten() + 1).tolist(), *([count] if count else [])]
