"""Checks on a model that is not this project's own, while it trains.

A user's own module is checked when it is called for the first time, on random inputs
(client/privacy/models/alone.py). In every step, no tensor that the model keeps may change. For the
models of this project the checks cost one look at a list of tensors.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from client.privacy.clipping import Book
from client.privacy.models.alone import Twin, neighbours_of
from client.privacy.models.modules import called, is_own, to_be_run
from client.privacy.per_example import EngineError


class Watch:
    """Checks a model's modules at their first call, and its tensors in every step, until closed.

    Args:
        model: A model whose book is open.
        trained: Name -> parameter.
        book: The model's book, which is closed while copies of modules are made and run.
    """

    def __init__(self, model: nn.Module, trained: Mapping[str, nn.Parameter], book: Book) -> None:
        self._model, self._book = model, book
        self._names = {module: name for name, module in to_be_run(model)}
        self._kept = [*model.named_buffers(), *model.named_parameters()]
        self._trained = {id(p) for p in trained.values()}
        self._answered = {name: _outermost(model, name) for name in trained}
        self._checked: set[nn.Module] = set()
        self._handles: list[Any] = []
        self._outputs: list[Tensor] = []
        self._depth, self._count, self._first = 0, 0, True
        self._open()

    def _open(self) -> None:
        """Add hooks to every module whose code is the user's own."""
        for module in self._names:
            self._handles.append(
                module.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True)
            )
            self._handles.append(module.register_forward_hook(self._leave, always_call=True))

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def begin(self, count: int) -> None:
        """Prepare for a slice, before it goes through the model.

        Args:
            count: Number of rows of the slice.
        """
        self._count, self._depth, self._outputs = count, 0, []
        self._versions = [value._version for _, value in self._kept]

    def check_losses(self, losses: Tensor) -> None:
        """Check, once, after a forward pass that each loss depends on its own row alone.

        The losses of the first and the last row must not have a gradient in another row of the
        model's output.

        Args:
            losses: (B,), attached to the graph.
        Raises:
            EngineError: The loss of one row depends on another row.
        """
        # A single row has no neighbours, and a loss without a graph depends on nothing.
        if not self._outputs or not self._first or len(losses) < 2 or not losses.requires_grad:
            return
        self._first = False
        for output in self._outputs:
            if neighbours_of(losses, output, (0, len(losses) - 1)):
                raise EngineError(
                    "the loss of one row depends on what the model answers to another: losses are "
                    "one value a row, of that row alone"
                )
        # These gradients went through layers behind the outputs, whose rules recorded them.
        self._book.forget()

    def check_kept(self) -> None:
        """Check after a backward pass that the model kept nothing and that its owners were checked.

        A buffer or parameter that the model itself writes to would carry what it learned past the
        noise. A module that owns a recorded parameter must have been called, and so checked.

        Raises:
            EngineError: Names the tensor or the module.
        """
        # autograd counts in-place writes; comparing values would cost a copy of the model a step.
        for (name, value), version in zip(self._kept, self._versions, strict=True):
            if value._version != version:
                raise EngineError(
                    f"this model cannot be trained per example: {name} changes while it is "
                    "trained, without noise: keep nothing of a batch"
                )

        for name in self._book.seen() if self._names else ():
            outer = self._answered[name]
            # Its methods may have been called instead, or a function may read its parameters.
            if outer is not None and not any(outer in m.modules() for m in self._checked):
                raise EngineError(
                    f"{called(self._names[outer], outer)} is never called itself, so it cannot be "
                    "checked for keeping examples apart: write what it does in its forward, and "
                    "call it"
                )

    def _enter(self, module: nn.Module, args: tuple[Any, ...], words: dict[str, Any]) -> None:
        """Check a module before its first call of the real batch."""
        self._depth += 1
        # Nothing is checked twice, nor before the first slice gives the number of rows.
        if module in self._checked or not self._count:
            return
        # A copy made now would carry our hooks and run through the book.
        self.close()
        self._book.close()
        try:
            twin = Twin(
                self._names[module], module, lambda p: id(p) in self._trained, args, words,
                self._count,
            )  # fmt: skip
            twin.check(booked)
        finally:
            self._book.open()
            self._open()
        self._checked.add(module)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Keep the outputs of outermost modules for `check_losses`."""
        self._depth -= 1
        if self._depth == 0 and self._first:
            self._outputs += [
                x for x in tree_leaves(output)
                if isinstance(x, Tensor) and x.requires_grad and x.ndim and len(x) == self._count
            ]  # fmt: skip


def _outermost(model: nn.Module, parameter: str) -> nn.Module | None:
    """Return the first module on the way to a parameter whose code is the user's own."""
    for module in _path(model, parameter.split(".")[:-1]):
        if is_own(module):
            return module
    return None


def _path(model: nn.Module, parts: Iterable[str]) -> Iterable[nn.Module]:
    """Yield the modules from the model down to the one that `parts` name."""
    yield model
    for part in parts:
        model = model.get_submodule(part)
        yield model


def booked(model: nn.Module, trained: Mapping[str, nn.Parameter], losses: Any) -> dict[str, Tensor]:
    """Return the per-example gradients that a book records for the summed losses.

    Args:
        model: The model.
        trained: Name -> parameter.
        losses: Computes the sum of the losses.
    Raises:
        EngineError: A parameter is used in a way that no rule records.
    """
    book = Book(model, trained)
    try:
        loss = losses()
        if loss.requires_grad:
            torch.autograd.backward(loss)
        return book.examples()
    finally:
        book.close()
        for p in trained.values():
            p.grad = None
