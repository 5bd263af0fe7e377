"""Before the first step of somebody's own model: does each row of a batch stand alone?

A copy of the module is run on random inputs of the shapes that it is called with, so nothing that
is refused, and no word of the refusal, depends on a record. Three rows are answered together, with
other rows beside them, and one by one; the gradients that the engine would clip are held against
a plain loop; what the module keeps must be what it was.
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
SAME = 1e-5
"""Largest relative difference of a row whose neighbours changed: nothing is rounded otherwise in a
batch of the same shape, so this is room for kernels that add in another order each time."""
CLOSE = 1e-3
"""Largest relative difference of a row in a batch and alone, which kernels may round otherwise:
measured about 1e-6, and what a neighbour adds is a hundred times larger than this."""
STIR = 0.05
"""Random numbers of this size are added to the copy's parameters: layers that begin at zero would
hide what comes before them."""

Gradients = Mapping[str, Tensor]
Booked = Callable[[nn.Module, Mapping[str, nn.Parameter], Callable[[], Tensor]], Gradients]
"""(model, trained, sum of the losses) -> what the engine takes for per-example gradients."""


class Twin:
    """A copy of a module, and random inputs of the shapes that it is called with.

    Args:
        name: Of the module in the model.
        trained: Whether a parameter is.
        args, words: What it was called with: shapes and types are read, never values.
        count: Rows of the batch; tensors with as many are random here, others are as they are.
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
        except Exception as error:  # classes of others raise what they like
            raise self._refusal(f"cannot be copied ({type(error).__name__})") from error
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
        """Raise unless each row stands alone, as the module's docstring says.

        Raises:
            EngineError: Names the module and the reason.
        """
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            self.module.train()
            before = self._state()
            chance = not torch.equal(self._run(seed=1), self._run(seed=2))
            for row in range(ROWS):
                self._check_neighbours(row)
            self._check_state(before)
            # With dropout, a row alone draws other zeros than in a batch: compare without them.
            for training in (False,) if chance else (True, False):
                self.module.train(training)
                self._check_loop(booked)

    def _check_neighbours(self, row: int) -> None:
        """A row's answer and gradient are the same whatever the other rows hold."""
        own, mine = self._run(), self._gradient(row)
        kept = self._inputs
        others = [self._drawn(x) for x in kept]
        for x, y in zip(kept, others, strict=True):
            y[row] = x[row]
        self._inputs = others
        beside, theirs = self._run(), self._gradient(row)
        self._inputs = kept
        if not (_alike(own[row], beside[row], SAME) and _all_alike(mine, theirs, SAME)):
            raise self._refusal(
                "lets the rows of a batch see each other: what it makes of one example changes "
                "with the others. Take means and norms over other axes than the first"
            )

    def _check_loop(self, booked: Booked) -> None:
        """What the engine would clip is what a loop over the rows gives."""
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
            if not _alike(whole[row], answer[0], CLOSE):
                raise self._refusal("answers a row otherwise in a batch than alone")
        wanted = {name: torch.stack(gradients) for name, gradients in alone.items()}
        given = {name: found.get(name, torch.zeros_like(v)) for name, v in wanted.items()}
        if not _all_alike(given, wanted, CLOSE):
            raise self._refusal(
                "has per-example gradients that a loop over the rows contradicts: every layer "
                "must see one row an example, as its first axis"
            )

    def _check_state(self, before: Mapping[str, Tensor]) -> None:
        for name, value in self._state().items():
            if name not in before or not _alike(before[name], value, 0.0):
                raise self._refusal(
                    f"changes {name} while it is trained, without noise: keep nothing of a batch"
                )

    def _state(self) -> dict[str, Tensor]:
        """Buffers, parameters and other tensors that the module keeps."""
        kept = {**dict(self.module.named_buffers()), **dict(self.module.named_parameters())}
        for name, module in self.module.named_modules():
            others = {k: v for k, v in vars(module).items() if isinstance(v, Tensor)}
            kept.update({f"{name}.{k}".lstrip("."): v for k, v in others.items()})
        return {name: value.detach().clone() for name, value in kept.items()}

    def _run(self, seed: int = 1, rows: int = ROWS) -> Tensor:
        """All that the module answers to the inputs, (rows, M)."""
        drawn = iter(self._inputs)
        args, words = tree_map(lambda x: next(drawn) if self._is_batched(x) else x, self._form)
        torch.manual_seed(seed)
        try:
            answer = self.module(*args, **words)
        except EngineError:
            raise
        except Exception as error:  # code of others raises what it likes
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
        """(rows, M) -> (rows,) a loss of each row, to which all of its answer counts."""
        if self._weights is None:
            self._weights = torch.randn(answer.shape[1], generator=self._random)
        return answer @ self._weights.to(answer.dtype)

    def _gradient(self, row: int, rows: int = ROWS) -> dict[str, Tensor]:
        """Of one row's loss, by autograd alone."""
        loss = self._weighted(self._run(rows=rows))[row]
        if not loss.requires_grad or not self._trained:
            return {name: torch.zeros_like(p) for name, p in self._trained.items()}
        found = torch.autograd.grad(loss, list(self._trained.values()), allow_unused=True)
        return {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(self._trained.items(), found, strict=True)
        }

    def _is_batched(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.ndim > 0 and len(value) == self._count

    def _drawn(self, like: Tensor) -> Tensor:
        """Random values in place of a batch's: normal, or 0 and 1, which every table of words
        has."""
        shape = (ROWS, *like.shape[1:])
        if like.is_floating_point() or like.is_complex():
            return torch.randn(shape, dtype=like.dtype, generator=self._random)
        return torch.randint(0, 2, shape, generator=self._random).to(like.dtype)

    def _refusal(self, reason: str) -> EngineError:
        return EngineError(f"this model cannot be trained per example: {self._called} {reason}")


def _all_alike(a: Gradients, b: Gradients, tolerance: float) -> bool:
    """As `_alike`, of all gradients together: a bias before a norm has one that is rounding."""
    if any(a[name].shape != b[name].shape for name in a):
        return False
    if not a:
        return True
    one, other = (torch.cat([each[name].flatten() for name in a]) for each in (a, b))
    return _alike(one, other, tolerance)


def _alike(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether two tensors differ by no more than a share of their largest value."""
    if a.shape != b.shape:
        return False
    if not a.is_floating_point() or not (a.isfinite().all() and b.isfinite().all()):
        return torch.equal(a.nan_to_num(), b.nan_to_num())
    if not a.numel():
        return True
    largest = torch.maximum(a.abs().max(), b.abs().max())
    return bool(((a - b).abs() <= tolerance * largest).all())


def neighbours_of(losses: Tensor, outputs: Tensor, rows: Sequence[int]) -> bool:
    """Whether a row's loss has a gradient in another row of the model's output.

    A gradient that ought to be absent is exactly zero, whatever the records are: so a model and
    objective that keep rows apart are never refused because of one.
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
