"""Rules of layers: autograd functions whose backward records per-example gradients.

A rule runs a layer's computation through an autograd function. Its backward returns the gradient of
the input only, None for the parameters; what their per-example gradients are made of goes to the
`Bookkeeper`. The parameters travel on `ctx` as they are, not through `save_for_backward`: autograd
may return saved tensors as copies, and the bookkeeper knows parameters by identity.

B examples, C channels; x is an input, g the gradient of an output.

Source: Bu et al. 2022, arXiv:2210.00038.
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
    """x W^T + b; the weight's gradient is the pair (x, g), the bias's the sum of g over places."""

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
        # A gradient returned for weight or bias would reach the parameter unclipped.
        ctx.book.add_pair(weight, x, g)
        ctx.book.add_rows(bias, lambda: g.reshape(len(g), -1, g.shape[-1]).sum(1))
        return (g @ weight if ctx.needs_input_grad[0] else None), None, None, None


def _linear(book: Bookkeeper, layer: nn.Linear, own: Forward, x: Tensor) -> Tensor:
    result: Tensor = _Linear.apply(x, layer.weight, layer.bias, book)
    return result


class _Conv(Function):
    """A convolution of any rank; `settings` are stride, padding, dilation and groups."""

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
        # The first layer of a model has no input gradient to pass on.
        if ctx.needs_input_grad[0]:
            before = _conv_backward(g, x, weight, ctx.settings, (True, False, False))[0]
        return before, None, None, None, None


def _conv_backward(
    g: Tensor, x: Tensor, weight: Tensor, settings: Any, mask: tuple[bool, bool, bool]
) -> Any:
    """Return the gradients of input, weight and bias, each where `mask` asks for it."""
    stride, padding, dilation, groups = settings
    zeros = [0] * len(stride)
    return torch.ops.aten.convolution_backward(
        g, x, weight, None, stride, padding, dilation, False, zeros, groups, mask
    )


def _book_conv(book: Bookkeeper, x: Tensor, g: Tensor, weight: Tensor, settings: Any) -> None:
    """Record the gradient of a convolution's weight in the form that is fastest for its shapes.

    That is a pair of windows and output gradients, or rows. The choice was measured on a CPU and
    depends on shapes alone, so equal seeds give equal bits.
    """
    stride, padding, dilation, groups = settings
    kernel, places = weight.shape[2:], g[0, 0].numel()
    # A 1x1 convolution is a linear layer on pixels: no windows have to be cut.
    if groups == 1 and max(kernel) == max(stride) == 1 and max(padding) == 0:
        book.add_pair(weight, _columns(x), _columns(g))
        return
    if (
        x.ndim == 4
        and groups == 1
        and (places <= MAX_UNFOLDED_PLACES or x.shape[1] <= MAX_SLICED_CHANNELS)
    ):
        if x.shape[1] <= MAX_SLICED_CHANNELS and max(dilation) == 1:
            # Strided views of the padded image are faster than F.unfold for so few channels.
            wide = F.pad(x, [padding[1]] * 2 + [padding[0]] * 2)
            seen = wide.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])
            windows = seen.permute(0, 1, 4, 5, 2, 3).reshape(len(x), -1, places)
        else:
            windows = F.unfold(x, kernel, dilation, padding, stride)
        book.add_pair(weight, windows.transpose(1, 2), _columns(g))
        return

    def rows() -> Tensor:
        """Return the weight gradient of each example, from one convolution with B x C groups."""
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
    """Return (B, C, *spatial) as (B, places, C), without a copy."""
    return x.flatten(2).transpose(1, 2)


MAX_UNFOLDED_PLACES = 36
"""Places of an output up to which a pair of unfolded windows is faster than rows."""
MAX_SLICED_CHANNELS = 4
"""Channels of an input up to which cutting its windows as strided views is fastest."""


def _conv(
    book: Bookkeeper, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, own: Forward, x: Tensor
) -> Tensor:
    # torch would take an unbatched image (C, *spatial), whose first axis is not the examples.
    if x.ndim != layer.weight.ndim:
        raise EngineError(f"convolutions take (B, C, *spatial), got {tuple(x.shape)}")
    padding = layer.padding
    if layer.padding_mode != "zeros" or isinstance(padding, str):
        # torch.convolution pads both sides with equally many zeros. Any other padding is added to
        # the input first, as the layer itself would do.
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
        padding = (0,) * len(layer.stride)
    settings = layer.stride, padding, layer.dilation, layer.groups
    result: Tensor = _Conv.apply(x, layer.weight, layer.bias, book, settings)
    return result


class _LayerNorm(Function):
    """Normalisation over the last axes; weight and bias have the shape of those axes."""

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
            # The weight's gradient sums g * (x - mean) * rstd over the places, the bias's sums g.
            # Two small products give both without a tensor of the size of (x - mean).
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
    """Normalisation over groups of channels; weight and bias have one value a channel."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, book: Bookkeeper, groups: int,
        eps: float,
    ) -> Tensor:  # fmt: skip
        x = x.contiguous()  # native_group_norm reads the memory in this order
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
        slopes = g.flatten(2).sum(2)  # (B, C), the bias's gradients

        def rows() -> Tensor:
            """Return the sum over the places of g * (x - mean) * rstd, (B, C)."""
            raw = (g * x).flatten(2).sum(2)
            # Mean and scale of a group hold for each of its channels.
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
    """Tokens repeated for every example, (count, width) -> (B, count, width)."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, count: int, book: Bookkeeper) -> Tensor:
        ctx.book, ctx.tokens = book, tokens
        return tokens.expand(count, *tokens.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        ctx.book.add_rows(ctx.tokens, lambda: grads[0])
        return None, None, None


def _latents(book: Bookkeeper, layer: Latents, own: Forward, batch: Tensor) -> Tensor:
    """Give every example the same tokens; its gradient of them is the output gradient itself."""
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
"""Rule of each kind of layer, by exact type: a subclass may compute something else."""
