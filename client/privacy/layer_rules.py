"""Rules of layers: autograd functions whose backward books per-example gradients.

Each rule runs a layer through a function of its own. The backward returns the gradient of the input
only; for the parameters it books what the per-example gradients are made of. B examples.
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from client.privacy.per_example import Bookkeeper, EngineError, Forward, Rule
from medformer.layers import Latents


class _Linear(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, book: Bookkeeper
    ) -> Tensor:
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


def _linear(book: Bookkeeper, layer: nn.Linear, own: Forward, x: Tensor) -> Tensor:
    result: Tensor = _Linear.apply(x, layer.weight, layer.bias, book)
    return result


class _Conv(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, book: Bookkeeper, settings: Any
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


def _book_conv(book: Bookkeeper, x: Tensor, g: Tensor, weight: Tensor, settings: Any) -> None:
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


def _conv(
    book: Bookkeeper, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, own: Forward, x: Tensor
) -> Tensor:
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
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, book: Bookkeeper, eps: float
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


def _layer_norm(book: Bookkeeper, layer: nn.LayerNorm, own: Forward, x: Tensor) -> Tensor:
    result: Tensor = _LayerNorm.apply(x, layer.weight, layer.bias, book, layer.eps)
    return result


class _GroupNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, book: Bookkeeper, groups: int,
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


def _group_norm(book: Bookkeeper, layer: nn.GroupNorm, own: Forward, x: Tensor) -> Tensor:
    groups, eps = layer.num_groups, layer.eps
    result: Tensor = _GroupNorm.apply(x, layer.weight, layer.bias, book, groups, eps)
    return result


class _Broadcast(Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, count: int, book: Bookkeeper) -> Tensor:
        ctx.book, ctx.tokens = book, tokens
        return tokens.expand(count, *tokens.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        ctx.book.add_rows(ctx.tokens, lambda: grads[0])
        return None, None, None


def _latents(book: Bookkeeper, layer: Latents, own: Forward, batch: Tensor) -> Tensor:
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
