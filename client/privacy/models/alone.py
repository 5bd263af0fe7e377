"""A check, before the first step of a user's own model, that it treats each row of a batch alone.

A copy of the module is run on random inputs of the shapes that it is called with, so neither the
decision nor the text of a refusal depends on a record. Three rows are answered together, with other
rows beside them, and one by one. The gradients that the engine would clip are compared with a plain
loop, and the tensors that the module keeps must not change.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from client.privacy.models.modules import called
from client.privacy.per_example import EngineError

ROWS = 3
SEED = 20_231_017
MAX_NEIGHBOUR_CHANGE = 1e-5
"""Largest relative difference allowed in a row whose neighbours changed. Batches of the same shape
are rounded alike, so this is room for kernels that add in a different order each time."""
MAX_BATCH_CHANGE = 1e-3
"""Largest relative difference allowed between a row in a batch and alone, which kernels round
differently: about 1e-6 was measured, and a neighbour's influence is a hundred times the limit."""
STIR = 0.05
"""Size of the random numbers added to the copy's parameters: layers that begin at zero would hide
the layers before them."""

Gradients = Mapping[str, Tensor]
Booked = Callable[[nn.Module, Mapping[str, nn.Parameter], Callable[[], Tensor]], Gradients]
"""(model, trained, sum of the losses) -> the per-example gradients that the engine would clip."""


class Twin:
    """A copy of a module, with random inputs of the shapes that the module is called with.

    Args:
        name: Name of the module in the model.
        module: The module that is copied.
        trained: Tells whether a parameter is trained.
        args, words: Arguments of the call; shapes and types are read, never values.
        count: Rows of the batch. Tensors with as many rows are replaced by random ones; other
            arguments are passed as they are.
    Raises:
        EngineError: The module cannot be copied, or takes no tensor with one row an example.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        trained: Callable[[nn.Parameter], bool],
        args: tuple[Any, ...],
        words: dict[str, Any],
        count: int,
    ) -> None:
        self._called = called(name, module)
        try:
            self.module = copy.deepcopy(module)
        except Exception as error:  # a user's class may raise anything
            raise self._refusal(f"cannot be copied ({type(error).__name__})") from error
        # Shared parameters appear once in both lists, so they stay paired.
        pairs = zip(module.named_parameters(), self.module.parameters(), strict=True)
        self._trained = {n: own for (n, p), own in pairs if trained(p)}
        self._random = torch.Generator().manual_seed(SEED)
        with torch.no_grad():
            for p in self.module.parameters():
                if p.is_floating_point():
                    p.add_(STIR * torch.randn(p.shape, generator=self._random))
        self._form, self._count = (args, words), count
        batched = [x for x in tree_leaves((args, words)) if self._is_batched(x)]
        if not batched:
            raise self._refusal("is called without a tensor that has one row an example, (B, ...)")
        self._inputs = [self._drawn(x) for x in batched]
        self._weights: Tensor | None = None

    def check(self, booked: Booked) -> None:
        """Check that each row stands alone.

        Args:
            booked: Computes per-example gradients as the engine does.
        Raises:
            EngineError: Names the module and the reason.
        """
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            self.module.train()
            before = self._state()
            # Two seeds tell whether the module draws random numbers itself.
            chance = not torch.equal(self._run(seed=1), self._run(seed=2))
            for row in range(ROWS):
                self._check_neighbours(row)
            self._check_state(before)
            # Dropout draws other zeros for a row alone than in a batch: compare without it.
            for training in (False,) if chance else (True, False):
                self.module.train(training)
                self._check_loop(booked)

    def _check_neighbours(self, row: int) -> None:
        """Check that a row's answer and gradient stay the same when the other rows change."""
        own, mine = self._run(), self._gradient(row)
        kept = self._inputs
        others = [self._drawn(x) for x in kept]
        # All rows but one are drawn anew.
        for x, y in zip(kept, others, strict=True):
            y[row] = x[row]
        self._inputs = others
        beside, theirs = self._run(), self._gradient(row)
        self._inputs = kept
        if not (
            alike(own[row], beside[row], MAX_NEIGHBOUR_CHANGE)
            and all_alike(mine, theirs, MAX_NEIGHBOUR_CHANGE)
        ):
            raise self._refusal(
                "lets the rows of a batch see each other: its answer to one example changes "
                "with the others. Take means and norms over other axes than the first"
            )

    def _check_loop(self, booked: Booked) -> None:
        """Check that the engine would clip the gradients that a loop over the rows gives."""
        whole = self._run()
        found = booked(self.module, self._trained, lambda: self._weighted(self._run()).sum())
        kept = self._inputs
        alone: dict[str, list[Tensor]] = {name: [] for name in self._trained}
        for row in range(ROWS):
            self._inputs = [x[row : row + 1] for x in kept]
            answer = self._run(rows=1)
            for name, gradient in self._gradient(0, rows=1).items():
                alone[name].append(gradient)
            self._inputs = kept
            if not alike(whole[row], answer[0], MAX_BATCH_CHANGE):
                raise self._refusal("answers a row differently in a batch than alone")
        wanted = {name: torch.stack(gradients) for name, gradients in alone.items()}
        given = {name: found.get(name, torch.zeros_like(v)) for name, v in wanted.items()}
        if not all_alike(given, wanted, MAX_BATCH_CHANGE):
            raise self._refusal(
                "has per-example gradients that a loop over the rows contradicts: every layer "
                "must see one row an example, as its first axis"
            )

    def _check_state(self, before: Mapping[str, Tensor]) -> None:
        """Check that the module's tensors are still those of `before`."""
        for name, value in self._state().items():
            if name not in before or not alike(before[name], value, 0.0):
                raise self._refusal(
                    f"changes {name} while it is trained, without noise: keep nothing of a batch"
                )

    def _state(self) -> dict[str, Tensor]:
        """Return copies of all tensors that the module keeps: buffers, parameters, attributes."""
        kept = {**dict(self.module.named_buffers()), **dict(self.module.named_parameters())}
        for name, module in self.module.named_modules():
            others = {k: v for k, v in vars(module).items() if isinstance(v, Tensor)}
            kept.update({f"{name}.{k}".lstrip("."): v for k, v in others.items()})
        return {name: value.detach().clone() for name, value in kept.items()}

    def _run(self, seed: int = 1, rows: int = ROWS) -> Tensor:
        """Return everything that the module answers to the inputs, (rows, M)."""
        # The random tensors take the places of the batched ones, in the order of the leaves.
        drawn = iter(self._inputs)
        args, words = tree_map(lambda x: next(drawn) if self._is_batched(x) else x, self._form)
        torch.manual_seed(seed)  # equal dropout in every run that is compared
        try:
            answer = self.module(*args, **words)
        except EngineError:
            raise
        except Exception as error:  # a user's code may raise anything
            raise self._refusal(
                f"cannot be checked: it does not run on {rows} random rows "
                f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
            ) from error
        parts = [x for x in tree_leaves(answer) if isinstance(x, Tensor) and x.is_floating_point()]
        if not parts or any(not x.ndim or len(x) != rows for x in parts):
            shapes = ", ".join(str(tuple(x.shape)) for x in parts) or "no floating-point tensor"
            raise self._refusal(
                f"answers {rows} rows with {shapes}: every tensor must have one row an example"
            )
        return torch.cat([x.reshape(rows, -1) for x in parts], 1)

    def _weighted(self, answer: Tensor) -> Tensor:
        """Return a loss of each row, (rows, M) -> (rows,), that depends on all of its answer."""
        # Random weights: a plain sum would hide rows that move mass among themselves.
        if self._weights is None:
            self._weights = torch.randn(answer.shape[1], generator=self._random)
        return answer @ self._weights.to(answer.dtype)

    def _gradient(self, row: int, rows: int = ROWS) -> dict[str, Tensor]:
        """Return the gradient of one row's loss, by plain autograd."""
        loss = self._weighted(self._run(rows=rows))[row]
        # A module without trained parameters still has its answers and neighbours checked.
        if not loss.requires_grad or not self._trained:
            return {name: torch.zeros_like(p) for name, p in self._trained.items()}
        found = torch.autograd.grad(loss, list(self._trained.values()), allow_unused=True)
        return {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(self._trained.items(), found, strict=True)
        }

    def _is_batched(self, value: Any) -> bool:
        """Tell whether an argument has one row an example."""
        return isinstance(value, Tensor) and value.ndim > 0 and len(value) == self._count

    def _drawn(self, like: Tensor) -> Tensor:
        """Return random values in place of a batch's: normal, or 0 and 1 for integers.

        Every embedding table has rows 0 and 1.
        """
        shape = (ROWS, *like.shape[1:])
        if like.is_floating_point() or like.is_complex():
            return torch.randn(shape, dtype=like.dtype, generator=self._random)
        return torch.randint(0, 2, shape, generator=self._random).to(like.dtype)

    def _refusal(self, reason: str) -> EngineError:
        return EngineError(f"this model cannot be trained per example: {self._called} {reason}")


def all_alike(a: Gradients, b: Gradients, tolerance: float) -> bool:
    """Compare all gradients together, as `alike` does.

    One by one would not do: the gradient of a bias before a normalisation is nothing but rounding.

    Args:
        a, b: Name -> gradient, for the same names.
        tolerance: As for `alike`.
    Returns:
        Whether they have the same shapes and differ by no more.
    """
    if any(a[name].shape != b[name].shape for name in a):
        return False
    if not a:
        return True
    one, other = (torch.cat([each[name].flatten() for name in a]) for each in (a, b))
    return alike(one, other, tolerance)


def alike(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Tell whether two tensors differ by no more than `tolerance` times their largest value.

    Args:
        a, b: The tensors.
        tolerance: 0 or more; no unit.
    Returns:
        False also for other shapes, or where a value that is not finite differs.
    """
    if a.shape != b.shape:
        return False
    if not a.is_floating_point() or not (a.isfinite().all() and b.isfinite().all()):
        return torch.equal(a.nan_to_num(), b.nan_to_num())
    if not a.numel():
        return True
    largest = torch.maximum(a.abs().max(), b.abs().max())
    return bool(((a - b).abs() <= tolerance * largest).all())


def neighbours_of(losses: Tensor, outputs: Tensor, rows: Sequence[int]) -> bool:
    """Tell whether a row's loss has a gradient in another row of the model's output.

    A gradient that must be absent is exactly zero, whatever the records are, so a model and an
    objective that keep rows apart are never refused because of a record.

    Args:
        losses: (B,), attached to the graph.
        outputs: (B, ...), a tensor of the same graph.
        rows: Rows whose losses are looked at.
    """
    for row in rows:
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            losses[row], [outputs], retain_graph=True, allow_unused=True
        )
        if found[0] is None:
            continue
        gradient = found[0].nan_to_num().clone()
        gradient[row] = 0
        if bool(gradient.any()):
            return True
    return False
