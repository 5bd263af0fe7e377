"""Looks at a model that is not this project's own while it takes its first step.

Modules of the user's own are checked when they are called for the first time, by
client/privacy/models/alone.py on random inputs. Every step, nothing that the model keeps may
change. The models of this project cost one look at their list of tensors.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from client.privacy.bookkeeping import Book
from client.privacy.models.alone import Twin, neighbours_of
from client.privacy.models.modules import called, is_own, to_be_run
from client.privacy.per_example import EngineError


class Watch:
    """Checks a model's modules at their first call, until it is closed.

    Args:
        model: With its book open.
        trained: Name -> parameter.
        book: Closed while copies of modules are made and run.
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
        for module in self._names:
            self._handles.append(
                module.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True)
            )
            self._handles.append(module.register_forward_hook(self._leave, always_call=True))

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def begin(self, count: int) -> None:
        """Before a slice of `count` rows goes through the model."""
        self._count, self._depth, self._outputs = count, 0, []
        self._versions = [value._version for _, value in self._kept]

    def check_losses(self, losses: Tensor) -> None:
        """After the forward pass: the losses of the first and the last row have no gradient in
        another row of what the model has answered. Looked at once.

        Raises:
            EngineError: One has.
        """
        if not self._outputs or not self._first or len(losses) < 2 or not losses.requires_grad:
            return
        self._first = False
        for output in self._outputs:
            if neighbours_of(losses, output, (0, len(losses) - 1)):
                raise EngineError(
                    "the loss of one row depends on what the model answers to another: losses are "
                    "one value a row, of that row alone"
                )
        self._book.forget()  # layers behind an output were asked for these gradients, too

    def check_kept(self) -> None:
        """After the backward pass: no buffer and no parameter was written to, which would take
        what it has learned past the noise, and whatever owns a booked parameter was checked.

        Raises:
            EngineError: Names the tensor or the module.
        """
        for (name, value), version in zip(self._kept, self._versions, strict=True):
            if value._version != version:
                raise EngineError(
                    f"this model cannot be trained per example: {name} changes while it is "
                    "trained, without noise: keep nothing of a batch"
                )

        for name in self._book.seen() if self._names else ():
            outer = self._answered[name]
            if outer is not None and not any(outer in m.modules() for m in self._checked):
                raise EngineError(
                    f"{called(self._names[outer], outer)} is never called itself, so nobody can "
                    "see whether it keeps examples apart: write what it does in its forward, and "
                    "call it"
                )

    def _enter(self, module: nn.Module, args: tuple[Any, ...], words: dict[str, Any]) -> None:
        self._depth += 1
        if module in self._checked or not self._count:
            return
        self.close()  # copies must not hold our hooks, nor run through the book
        self._book.close()
        try:
            twin = Twin(
                self._names[module], module, lambda p: id(p) in self._trained, args, words,
                self._count,
            )  # fmt: skip
            twin.check(_booked)
        finally:
            self._book.open()
            self._open()
        self._checked.add(module)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._depth -= 1
        if self._depth == 0 and self._first:
            self._outputs += [
                x for x in tree_leaves(output)
                if isinstance(x, Tensor) and x.requires_grad and x.ndim and len(x) == self._count
            ]  # fmt: skip


def _outermost(model: nn.Module, parameter: str) -> nn.Module | None:
    """The first module on the way to a parameter whose code is the user's own."""
    for module in _path(model, parameter.split(".")[:-1]):
        if is_own(module):
            return module
    return None


def _path(model: nn.Module, parts: Iterable[str]) -> Iterable[nn.Module]:
    yield model
    for part in parts:
        model = model.get_submodule(part)
        yield model


def _booked(
    model: nn.Module, trained: Mapping[str, nn.Parameter], losses: Any
) -> dict[str, Tensor]:
    """What a book takes for the per-example gradients of the summed losses."""
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
