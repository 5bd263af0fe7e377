"""Clipped gradient sums in one backward pass, without the per-example gradients ("book-keeping").

After Bu et al. 2022 (arXiv:2210.00038). While a `Book` is open, the layers that own trained
parameters run through autograd functions of their own. Their backward returns the gradient of the
input only; for the parameters it books what the per-example gradients are made of, in the shorter
of two forms (parameters are known by identity, so they are kept as they are: what autograd saves
may come back as a copy, as it does under activation checkpointing):

- rows: the per-example gradients themselves, (B, *shape), where they are small;
- pairs: activation (B, T, P) and output gradient (B, T, D), whose product over T is the gradient.

`Book.clip` then knows every example's norm over all layers, and one weighted product a layer takes
the place of the ordinary weight gradient. B examples, T places (tokens, pixels), P inputs and D
outputs of a layer. All uses of a parameter are joined before its norm is taken.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from client.privacy.models.guests import by_rows
from client.privacy.models.modules import GUESTS, EngineError, called
from medformer.layers import Latents

log = logging.getLogger(__name__)

Forward = Callable[..., Any]

ROWS_UP_TO = 1.0
"""Rows are kept where they are at most so many times as long as the pair; 0.5 to 2 cost the same
time on the tiny preset."""

SHORT = 2048
"""Rows of up to so many values are joined to one table: copying them costs less than the many
small products it saves."""

ROUNDING = 9.0
"""Relative rounding error allowed for in a ghost norm, always to the safe side, in units of the
number format's own: 1e-6 for float32."""


@dataclass
class Entry:
    """What one backward pass said about one parameter."""

    rows: Tensor | None = None
    """(B, *shape)."""
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """(B, T, P) and (B, T, D) of each use of a (D, P) weight."""

    def joined(self) -> "Entry":
        """All uses as one: tokens of several pairs side by side, or everything as rows."""
        if self.rows is None:
            if len(self.pairs) < 2:
                return self
            inputs, outputs = zip(*self.pairs, strict=True)
            return Entry(None, [(torch.cat(inputs, 1), torch.cat(outputs, 1))])
        rows = self.rows
        for x, g in self.pairs:
            rows = rows + (g.transpose(1, 2) @ x).view_as(rows)
        return Entry(rows)

    def spelled_out(self) -> Tensor:
        """The per-example gradients themselves; of a joined entry."""
        if self.rows is not None:
            return self.rows
        ((x, g),) = self.pairs
        return g.transpose(1, 2) @ x

    @property
    def count(self) -> int:
        """Examples."""
        return len(self.pairs[0][0] if self.rows is None else self.rows)

    def of_units(self, units: "Grouping") -> "Entry":
        """Mean gradient of each unit's rows in place of each row's; of a joined entry.

        The rows of a unit become places side by side, so that their cross terms are in its norm.
        """
        if self.rows is not None:
            shares = units.shares.view(-1, *[1] * (self.rows.ndim - 1))
            rows = torch.where(shares > 0, shares * self.rows, 0.0)  # 0 * NaN is NaN
            total = rows.new_zeros(units.count, *rows.shape[1:])
            return Entry(total.index_add_(0, units.index, rows))
        ((x, g),) = self.pairs
        shares = units.shares[:, None, None]
        x = torch.where(shares > 0, x, 0.0)
        g = torch.where(shares > 0, shares * g, 0.0)
        return Entry(None, [(units.side_by_side(x), units.side_by_side(g))])

    def squares(self) -> Tensor:
        """Squared norm of each example's gradient, (B,), never too small; of a joined entry."""
        if self.rows is not None:
            return torch.linalg.vector_norm(self.rows.flatten(1), dim=1).square()
        ((x, g),) = self.pairs  # the Gram matrices give the norm of the product: ghost norm
        grams = x @ x.transpose(1, 2), g @ g.transpose(1, 2)
        ghost = torch.linalg.vecdot(*(gram.flatten(1) for gram in grams))
        # Where places cancel, rounding could make it too small, and the clipping too weak.
        lengths = [gram.diagonal(dim1=1, dim2=2) for gram in grams]
        longest = (lengths[0] * lengths[1]).sqrt().sum(1)
        return ghost.clamp(min=0) + ROUNDING * torch.finfo(ghost.dtype).eps * longest.square()

    def weighted(self, factors: Tensor) -> Tensor:
        """Sum of the examples' gradients times `factors` (B,); of a joined entry."""
        if self.rows is not None:
            return factors @ self.rows.flatten(1)
        ((x, g),) = self.pairs
        narrow, wide = (g, x) if g.shape[2] <= x.shape[2] else (x, g)
        scaled = (narrow * factors[:, None, None]).flatten(0, 1)
        return scaled.T @ x.flatten(0, 1) if narrow is g else wide.flatten(0, 1).T @ scaled

    def without(self, usable: Tensor) -> "Entry":
        """The same, with zeros for the examples that are not `usable` (B,): 0 * NaN is NaN."""
        if self.rows is not None:
            usable = usable.view(-1, *[1] * (self.rows.ndim - 1))
            return Entry(torch.where(usable, self.rows, 0.0))
        kept = usable[:, None, None]
        return Entry(None, [tuple(torch.where(kept, v, 0.0) for v in p) for p in self.pairs])  # type: ignore[misc]


class Table:
    """The short rows of several parameters side by side, so that one product serves them all."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._widths = {}
        parts = []
        for name, entry in entries.items():
            if entry.rows is not None and entry.rows[0].numel() <= SHORT:
                parts.append(entry.rows.flatten(1))
                self._widths[name] = parts[-1].shape[1]
        self._joined = Entry(torch.cat(parts, 1)) if parts else None
        self._others = {n: e for n, e in entries.items() if n not in self._widths}

    def squares(self) -> Tensor:
        """Squared norm of each example's whole gradient, (B,)."""
        entries = [*([self._joined] if self._joined else []), *self._others.values()]
        return torch.stack([entry.squares() for entry in entries]).sum(0)

    def weighted(self, factors: Tensor, usable: Tensor) -> dict[str, Tensor]:
        """Name -> sum of the examples' gradients times `factors` (B,), flat or as a matrix."""
        joined, others = self._joined, self._others
        if not bool(usable.all()):
            joined = joined.without(usable) if joined else None
            others = {name: entry.without(usable) for name, entry in others.items()}
        sums = {name: entry.weighted(factors) for name, entry in others.items()}
        if joined:
            split = joined.weighted(factors).split(list(self._widths.values()))
            sums.update(zip(self._widths, split, strict=True))
        return sums


class Grouping:
    """Which rows of a batch belong together and are clipped together: a patient's images, or the
    views of an image.

    Args:
        index: (B,) int64, each row's unit, from 0 without gaps.
        valid: (B,) bool; other rows are no part of their unit's mean. A unit that has no valid row
            counts as 0.
    """

    def __init__(self, index: Tensor, valid: Tensor) -> None:
        self.index = index
        sizes = torch.bincount(index)
        self.count = len(sizes)
        known = torch.zeros(self.count).index_add_(0, index, valid.float())
        self.valid = known > 0
        self.shares = torch.where(valid, 1 / known.clamp(min=1)[index], 0.0)
        """(B,) part of each row in its unit's mean."""
        order = index.argsort(stable=True)
        starts = (sizes.cumsum(0) - sizes)[index[order]]
        self._slot = torch.empty_like(index).scatter_(0, order, torch.arange(len(index)) - starts)
        self._most = int(sizes.max())

    def side_by_side(self, rows: Tensor) -> Tensor:
        """(B, T, P) -> (units, most rows of a unit * T, P), zeros where a unit has fewer rows."""
        wide = rows.new_zeros(self.count, self._most, *rows.shape[1:])
        wide[self.index, self._slot] = rows
        return wide.flatten(1, 2)


class Book:
    """Books the layers of `model` that own `trained` parameters, until it is closed.

    Args:
        model: Its layers' `forward` is replaced while the book is open.
        trained: Name -> parameter.
    Raises:
        EngineError: A module owns trained parameters and there is no rule for it.
    """

    def __init__(self, model: nn.Module, trained: Mapping[str, nn.Parameter]) -> None:
        self._trained = dict(trained)
        self._names = {id(p): name for name, p in trained.items()}
        self._entries: dict[str, Entry] = {}
        self._layers: list[tuple[nn.Module, Forward]] = []
        guests: list[str] = []
        for name, module in model.named_modules():
            if any(name.startswith(guest) for guest in guests):
                continue  # a part of a layer that is run row by row as a whole
            guest = type(module) in GUESTS
            if not any(self.knows(p) for p in module.parameters(recurse=guest)):
                continue
            if guest:
                log.warning("%s is run row by row, which is slow", called(name, module))
                guests.append(f"{name}." if name else "")
            rule = by_rows if guest else RULES.get(type(module))
            if rule is None:
                raise EngineError(
                    f"{called(name, module)} owns parameters and has no per-example "
                    "gradient rule: put them into layers of torch "
                    "(client/privacy/models/modules.py), or, where they are the same for every "
                    "example, into medformer.layers.Latents, "
                    "which is called with the batch and answers (B, count, width)"
                )
            self._layers.append((module, partial(rule, self, module, module.forward)))
        self.open()

    def open(self) -> None:
        """Let the layers run through the book."""
        for module, forward in self._layers:
            module.forward = forward

    def close(self) -> None:
        """Give the layers their own `forward` back."""
        for module, _ in self._layers:
            vars(module).pop("forward", None)

    def forget(self) -> None:
        """Drop what was booked since the last `clip`."""
        self._entries = {}

    def seen(self) -> list[str]:
        """Names of the parameters that were booked since the last `clip`."""
        return list(self._entries)

    def examples(self) -> dict[str, Tensor]:
        """Per-example gradients since the last `clip`, (B, *shape); for checks."""
        entries = {name: entry.joined() for name, entry in self._entries.items()}
        self._refuse_other_uses()
        self.forget()
        return {
            name: entry.spelled_out().view(-1, *self._trained[name].shape)
            for name, entry in entries.items()
        }

    def knows(self, parameter: Tensor | None) -> bool:
        """Whether the parameter is trained."""
        return parameter is not None and id(parameter) in self._names

    def add_rows(self, parameter: Tensor | None, rows: Callable[[], Tensor]) -> None:
        """Book per-example gradients, (B, *shape); computed only if the parameter is trained."""
        if parameter is not None and (name := self._names.get(id(parameter))):
            more = rows()
            entry = self._entry(name, len(more))
            entry.rows = more if entry.rows is None else entry.rows + more

    def add_pair(self, weight: Tensor, x: Tensor, g: Tensor) -> None:
        """Book activation (B, ..., P) and output gradient (B, ..., D) of a (D, P) weight."""
        if not self.knows(weight):
            return
        x, g = (v.detach().reshape(len(v), -1, v.shape[-1]) for v in (x, g))
        places, inputs, outputs = x.shape[1], x.shape[2], g.shape[2]
        if inputs * outputs <= ROWS_UP_TO * places * (inputs + outputs):
            self.add_rows(weight, lambda: (g.transpose(1, 2) @ x).view(len(x), *weight.shape))
        else:
            self._entry(self._names[id(weight)], len(x)).pairs.append((x, g))

    def _entry(self, name: str, count: int) -> Entry:
        """Where a use of a parameter on `count` examples is booked.

        Raises:
            EngineError: It was used on another number of them before.
        """
        entry = self._entries.setdefault(name, Entry())
        if (entry.pairs or entry.rows is not None) and entry.count != count:
            raise EngineError(
                f"the layer of {name} is called with {count} rows and with {entry.count}: call it "
                "with the whole batch, one row an example"
            )
        return entry

    @torch.no_grad()
    def clip(
        self,
        groups: Sequence[tuple[Sequence[str], float]],
        valid: Tensor,
        units: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Clipped sum of the units booked since the last call, and forget them.

        Args:
            groups: Names that are clipped together, and their bound C: a unit's gradient g counts
                as g * min(1, C / (|g| + 1e-6)), as in Opacus.
            valid: (B,) bool; rows that are False count as 0, and so do units whose gradient is not
                finite.
            units: (B,) int64, each row's unit, from 0 without gaps; a unit's gradient is the mean
                over its valid rows. Each row is a unit if left out.
        Returns:
            Name -> sum, of the parameter's shape.
        Raises:
            EngineError: A parameter was not used once an example, or used outside its layer.
        """
        entries = {name: entry.joined() for name, entry in self._entries.items()}
        self._entries = {}
        self._check(entries, len(valid))
        if units is not None:
            whole = Grouping(units, valid)
            entries = {name: entry.of_units(whole) for name, entry in entries.items()}
            valid = whole.valid
        sums: dict[str, Tensor] = {}
        for names, bound in groups:
            table = Table({n: entries[n] for n in names})
            norms = table.squares().sqrt()
            usable = norms.isfinite() & valid
            factors = torch.where(usable, (bound / (norms + 1e-6)).clamp(max=1.0), 0.0)
            for name, total in table.weighted(factors, usable).items():
                sums[name] = total.view_as(self._trained[name])
        return sums

    def _check(self, entries: Mapping[str, Entry], count: int) -> None:
        for name in self._trained:
            seen = entries[name].count if name in entries else None
            if seen != count:
                raise EngineError(
                    f"{name} has per-sample gradients for {seen} of {count} rows: its layer "
                    "mixes rows, or the objective does not use it once a row"
                )
        self._refuse_other_uses()

    def _refuse_other_uses(self) -> None:
        """No layer of a book leaves a gradient behind, so one that is there came another way."""
        for name, parameter in self._trained.items():
            if parameter.grad is not None:
                raise EngineError(
                    f"{name} is used outside its layer too, where no per-example gradient is "
                    "taken: call the layer"
                )


Rule = Callable[..., Any]
"""(book, layer, its own forward, *inputs) -> output."""


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, book: Book) -> Tensor:
        ctx.save_for_backward(x)
        ctx.book, ctx.parameters = book, (weight, bias)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        (x,), (weight, bias) = ctx.saved_tensors, ctx.parameters
        ctx.book.add_pair(weight, x, g)
        ctx.book.add_rows(bias, lambda: g.reshape(len(g), -1, g.shape[-1]).sum(1))
        return (g @ weight if ctx.needs_input_grad[0] else None), None, None, None


def _linear(book: Book, layer: nn.Linear, own: Forward, x: Tensor) -> Tensor:
    result: Tensor = _Linear.apply(x, layer.weight, layer.bias, book)
    return result


class _Conv(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, book: Book, settings: Any
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.book, ctx.parameters, ctx.settings = book, (weight, bias), settings
        stride, padding, dilation, groups = settings
        zeros = [0] * len(stride)
        return torch.convolution(x, weight, bias, stride, padding, dilation, False, zeros, groups)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        (x,), (weight, bias) = ctx.saved_tensors, ctx.parameters
        if ctx.book.knows(weight):
            _book_conv(ctx.book, x, g, weight, ctx.settings)
        ctx.book.add_rows(bias, lambda: g.flatten(2).sum(2))
        before = None
        if ctx.needs_input_grad[0]:
            before = _conv_backward(g, x, weight, ctx.settings, (True, False, False))[0]
        return before, None, None, None, None


def _conv_backward(
    g: Tensor, x: Tensor, weight: Tensor, settings: Any, mask: tuple[bool, bool, bool]
) -> Any:
    """Gradients of input, weight and bias, as `mask` asks."""
    stride, padding, dilation, groups = settings
    zeros = [0] * len(stride)
    return torch.ops.aten.convolution_backward(
        g, x, weight, None, stride, padding, dilation, False, zeros, groups, mask
    )


def _book_conv(book: Book, x: Tensor, g: Tensor, weight: Tensor, settings: Any) -> None:
    """As pair of windows and output gradients, or as rows: then every example is a group of one
    large convolution. The choice, measured on CPU, depends on shapes alone: equal seeds, equal
    bits."""
    stride, padding, dilation, groups = settings
    kernel, places = weight.shape[2:], g[0, 0].numel()
    if groups == 1 and max(kernel) == max(stride) == 1 and max(padding) == 0:
        book.add_pair(weight, _columns(x), _columns(g))
        return
    if x.ndim == 4 and groups == 1 and (places <= UNFOLD_UP_TO or x.shape[1] <= FEW_CHANNELS):
        if x.shape[1] <= FEW_CHANNELS and max(dilation) == 1:
            wide = F.pad(x, [padding[1]] * 2 + [padding[0]] * 2)
            seen = wide.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])
            windows = seen.permute(0, 1, 4, 5, 2, 3).reshape(len(x), -1, places)
        else:
            windows = F.unfold(x, kernel, dilation, padding, stride)
        book.add_pair(weight, windows.transpose(1, 2), _columns(g))
        return

    def rows() -> Tensor:
        count = len(x)
        merged = _conv_backward(
            g.reshape(1, -1, *g.shape[2:]),
            x.reshape(1, -1, *x.shape[2:]),
            weight.expand(count, *weight.shape).flatten(0, 1),
            (stride, padding, dilation, groups * count),
            (False, True, False),
        )[1]
        return cast(Tensor, merged.view(count, *weight.shape))

    book.add_rows(weight, rows)


def _columns(x: Tensor) -> Tensor:
    """(B, C, *spatial) -> (B, places, C), without a copy."""
    return x.flatten(2).transpose(1, 2)


UNFOLD_UP_TO = 36
"""Places of the output up to which unfolding is faster."""
FEW_CHANNELS = 4
"""Channels of an image up to which windows that are cut out of it are faster."""


def _conv(book: Book, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, own: Forward, x: Tensor) -> Tensor:
    if x.ndim != layer.weight.ndim:
        raise EngineError(f"convolutions take (B, C, *spatial), got {tuple(x.shape)}")
    padding = layer.padding
    if layer.padding_mode != "zeros" or isinstance(padding, str):
        # What is not the same number of zeros on both sides is added first, as torch does it.
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
        padding = (0,) * len(layer.stride)
    settings = layer.stride, padding, layer.dilation, layer.groups
    result: Tensor = _Conv.apply(x, layer.weight, layer.bias, book, settings)
    return result


class _LayerNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, book: Book, eps: float
    ) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, mean, rstd)
        ctx.book, ctx.parameters = book, (weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        (x, mean, rstd), (weight, bias) = ctx.saved_tensors, ctx.parameters
        shape = weight.shape
        width, count = math.prod(shape), len(x)
        if ctx.book.knows(weight) or ctx.book.knows(bias):
            # The sum over the places of g * (x - mean) * rstd, and of g, in two small products.
            each, scale = g.reshape(count, -1, width), rstd.reshape(count, 1, -1)
            shift = torch.cat([mean.reshape(count, 1, -1) * scale, torch.ones_like(scale)], 1)
            moved, slopes = (shift @ each).unbind(1)
            ctx.book.add_rows(
                weight,
                lambda: ((scale @ (each * x.reshape(each.shape)))[:, 0] - moved).view(-1, *shape),
            )
            ctx.book.add_rows(bias, lambda: slopes.view(-1, *shape))
        before = None
        if ctx.needs_input_grad[0]:
            before = torch.ops.aten.native_layer_norm_backward(
                g.contiguous(), x, shape, mean, rstd, weight, bias, [True, False, False]
            )[0]
        return before, None, None, None, None


def _layer_norm(book: Book, layer: nn.LayerNorm, own: Forward, x: Tensor) -> Tensor:
    result: Tensor = _LayerNorm.apply(x, layer.weight, layer.bias, book, layer.eps)
    return result


class _GroupNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, book: Book, groups: int,
        eps: float,
    ) -> Tensor:  # fmt: skip
        x = x.contiguous()
        count, channels = x.shape[:2]
        places = x[0, 0].numel()
        y, mean, rstd = torch.native_group_norm(
            x, weight, bias, count, channels, places, groups, eps
        )
        ctx.save_for_backward(x, mean, rstd)
        ctx.book, ctx.parameters, ctx.groups = book, (weight, bias), groups
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g = grads[0].contiguous()
        (x, mean, rstd), (weight, bias) = ctx.saved_tensors, ctx.parameters
        count, channels = x.shape[:2]
        each = channels // ctx.groups
        slopes = g.flatten(2).sum(2)

        def rows() -> Tensor:
            """Sum over the places of g * (x - mean) * rstd."""
            raw = (g * x).flatten(2).sum(2)
            wide = [v.repeat_interleave(each, 1) for v in (mean, rstd)]
            return (raw - slopes * wide[0]) * wide[1]

        ctx.book.add_rows(weight, rows)
        ctx.book.add_rows(bias, lambda: slopes)
        before = None
        if ctx.needs_input_grad[0]:
            before = torch.ops.aten.native_group_norm_backward(
                g, x, mean, rstd, weight, count, channels, x[0, 0].numel(), ctx.groups,
                [True, False, False],
            )[0]  # fmt: skip
        return before, None, None, None, None, None


def _group_norm(book: Book, layer: nn.GroupNorm, own: Forward, x: Tensor) -> Tensor:
    groups, eps = layer.num_groups, layer.eps
    result: Tensor = _GroupNorm.apply(x, layer.weight, layer.bias, book, groups, eps)
    return result


class _Broadcast(Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, count: int, book: Book) -> Tensor:
        ctx.book, ctx.tokens = book, tokens
        return tokens.expand(count, *tokens.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        ctx.book.add_rows(ctx.tokens, lambda: grads[0])
        return None, None, None


def _latents(book: Book, layer: Latents, own: Forward, batch: Tensor) -> Tensor:
    """Every example received the same tokens, so its gradient is the output gradient itself."""
    result: Tensor = _Broadcast.apply(layer.tokens, len(batch), book)
    return result


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Conv3d: _conv,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    Latents: _latents,
}
"""Kinds of layer, by exact type, that are booked by a rule of their own."""
