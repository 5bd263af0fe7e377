"""Per-example gradients of layers without a rule: the layers are run row by row.

Every row of the batch goes through the layer alone, with its own copy of the parameters. Its
gradient is that of the copy, whatever the layer computes, and no row can see another. This is slow,
and works for every layer. B examples.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.func import functional_call
from torch.nn.modules.rnn import RNNBase
from torch.utils._pytree import tree_flatten, tree_unflatten

from client.privacy.per_example import Bookkeeper, EngineError, Forward

SHARED = frozenset({"attn_mask"})
"""Names of arguments that all rows share."""


class Copies(Function):
    """Copies of a parameter, one for each row.

    The gradients of the copies are recorded and the parameter itself gets none. A gradient on the
    parameter therefore shows the book that it was used outside its layer.
    """

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, count: int, book: Bookkeeper) -> Tensor:
        """Return `count` copies, (*shape) -> (B, *shape), without using memory for them.

        Args:
            ctx: Autograd's context.
            parameter: The parameter of the layer, (*shape).
            count: Number of rows, B.
            book: Takes the gradients of the copies.
        """
        ctx.book, ctx.parameter = book, parameter
        return parameter.expand(count, *parameter.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        """Record the copies' gradients, and return none for the inputs of `forward`.

        Args:
            ctx: Autograd's context.
            grads: One tensor, (B, *shape).
        Returns:
            No gradient: the copies are leaves of the graph.
        """
        ctx.book.add_rows(ctx.parameter, lambda: grads[0])
        return None, None, None


def by_rows(book: Bookkeeper, layer: nn.Module, own: Forward, *args: Any, **words: Any) -> Any:
    """Return what `layer` answers to a batch, row by row; a `Rule`.

    Args:
        book: Takes the gradients of the layer's trained parameters.
        layer: One of `GUESTS`, or a module that holds one.
        own: The layer's own forward, which `functional_call` finds by itself.
        args, words: The layer's arguments; every tensor but those named in `SHARED` has B rows.
    Raises:
        EngineError: An argument does not have one row an example.
    """
    count = _count(layer, args, words)
    # Frozen parameters need no copies: their gradients are not asked for.
    copies = {
        name: Copies.apply(p, count, book).unbind(0) if book.knows(p) else [p] * count
        for name, p in layer.named_parameters()
    }
    # functional_call looks `forward` up on the layer, and must not find this rule there.
    booked = vars(layer).pop("forward")
    try:
        answers = []
        for i in range(count):
            values = {name: each[i] for name, each in copies.items()}
            words_i = {k: v if k in SHARED else _row(layer, v, i, count) for k, v in words.items()}
            args_i = tuple(_row(layer, v, i, count) for v in args)
            answers.append(functional_call(layer, values, args_i, words_i))
    finally:
        layer.forward = booked
    return _joined(layer, answers)


def _count(layer: nn.Module, args: Sequence[Any], words: dict[str, Any]) -> int:
    """Return the number of examples that the layer is called with."""
    given = [*args, *(v for k, v in words.items() if k not in SHARED)]
    # An initial state has its examples on axis 1, where `_row` would not find them.
    if isinstance(layer, RNNBase) and len([v for v in given if v is not None]) != 1:
        raise EngineError(
            f"{type(layer).__name__} is run row by row and takes no initial state: "
            "leave it out, it is zero"
        )
    first = next((v for v in given if isinstance(v, Tensor) and v.ndim), None)
    if first is None:
        raise EngineError(
            f"{type(layer).__name__} is run row by row and takes tensors (B, ...), not packed "
            "sequences or lists: pad them"
        )
    return len(first)


def _row(layer: nn.Module, value: Any, i: int, count: int) -> Any:
    """Return row i of every tensor in an argument, as a batch of one."""
    leaves, form = tree_flatten(value)
    rows = []
    for leaf in leaves:
        if isinstance(leaf, Tensor) and (not leaf.ndim or len(leaf) != count):
            raise EngineError(
                f"{type(layer).__name__} is run row by row: every tensor that it takes must have "
                f"{count} rows as the first has, got {tuple(leaf.shape)}"
            )
        rows.append(leaf[i : i + 1] if isinstance(leaf, Tensor) else leaf)
    return tree_unflatten(rows, form)


def _joined(layer: nn.Module, answers: Sequence[Any]) -> Any:
    """Join the answers to single rows into the answer to the batch."""
    leaves, form = zip(*(tree_flatten(answer) for answer in answers), strict=True)
    # A recurrent layer also returns its last states, with the examples on axis 1.
    dims = [int(isinstance(layer, RNNBase) and k > 0) for k in range(len(leaves[0]))]
    joined = [
        torch.cat(each, dim) if isinstance(each[0], Tensor) else each[0]
        for each, dim in zip(zip(*leaves, strict=True), dims, strict=True)
    ]
    return tree_unflatten(joined, form[0])
