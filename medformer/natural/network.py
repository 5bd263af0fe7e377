"""EfficientNet-Lite0 up to its sixth stage, frozen: an image's mean channels at two depths.

It is no `nn.Module`: its weights are no part of a model, are never trained and never sent. Batch
norms are folded into the convolutions, so that each image is read by itself.

Letters: B images, C channels, H and W pixels.

Source: Tan and Le 2019, arXiv:1905.11946; the variant without squeeze-and-excitation, with ReLU6,
of https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BN_EPS = 1e-3
"""Number that the network's batch norms add to the variance."""


class Stage(NamedTuple):
    """Blocks of one width."""

    blocks: int
    kernel: int
    stride: int
    expand: int
    """Width inside a block, divided by that before it."""
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40), Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112), Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320),
)  # fmt: skip
"""The whole network; the last stage and the classifier of photographs are used by tests only."""
READ = (4, 5)
"""Numbers of the stages whose channels are read."""
NUMBERS = sum(STAGES[stage].width for stage in READ)
"""Natural features of an image."""


@dataclass(frozen=True)
class Convolution:
    """A convolution with the batch norm after it; the output is ceil(input / stride) wide."""

    weight: Tensor
    bias: Tensor
    stride: int = 1
    groups: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve, (B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        kernel = self.weight.shape[-1]
        # As TensorFlow pads: what is uneven goes to the bottom and the right.
        rows, columns = (
            max((math.ceil(side / self.stride) - 1) * self.stride + kernel - side, 0)
            for side in x.shape[2:]
        )
        around = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return F.conv2d(F.pad(x, around), self.weight, self.bias, self.stride, groups=self.groups)


@dataclass(frozen=True)
class Block:
    """An inverted bottleneck: wider, convolved by channel, narrower again."""

    expand: Convolution | None
    depthwise: Convolution
    project: Convolution
    skip: bool

    def __call__(self, x: Tensor) -> Tensor:
        """Return (B, C', H', W')."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.skip else y


@dataclass(frozen=True)
class Network:
    """The frozen network up to a stage."""

    stem: Convolution
    stages: tuple[tuple[Block, ...], ...]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the channels after each stage, each (B, C, H, W).

        Args:
            images: (B, 3, H, W); those of the training had values from -1 to 1.
        """
        x = F.relu6(self.stem(images))
        found = []
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
            found.append(x)
        return found


def network(tensors: Mapping[str, Tensor], stages: int = max(READ) + 1) -> Network:
    """Build the network from its file of weights.

    Args:
        tensors: Name -> tensor, with the names of the package `efficientnet-lite-pytorch`.
        stages: Number of stages to build.
    """
    built, number = [], 0
    for stage in STAGES[:stages]:
        blocks = []
        for place in range(stage.blocks):
            blocks.append(_block(tensors, f"_blocks.{number}", stage, first=place == 0))
            number += 1
        built.append(tuple(blocks))
    return Network(_folded(tensors, "_conv_stem", "_bn0", stride=2), tuple(built))


def _block(tensors: Mapping[str, Tensor], name: str, stage: Stage, *, first: bool) -> Block:
    wide = stage.expand > 1
    depthwise = _folded(
        tensors, f"{name}._depthwise_conv", f"{name}._bn1",
        stride=stage.stride if first else 1, apart=True,
    )  # fmt: skip
    return Block(
        expand=_folded(tensors, f"{name}._expand_conv", f"{name}._bn0") if wide else None,
        depthwise=depthwise,
        project=_folded(tensors, f"{name}._project_conv", f"{name}._bn2"),
        skip=not first,
    )


def _folded(
    tensors: Mapping[str, Tensor], name: str, norm: str, *, stride: int = 1, apart: bool = False
) -> Convolution:
    """Fold a batch norm into the convolution before it, in double precision."""
    weight, mean, variance, scale, shift = (
        tensors[key].double()
        for key in (f"{name}.weight", f"{norm}.running_mean", f"{norm}.running_var",
                    f"{norm}.weight", f"{norm}.bias")
    )  # fmt: skip
    scale = scale / (variance + BN_EPS).sqrt()
    return Convolution(
        (weight * scale[:, None, None, None]).float(),
        (shift - mean * scale).float(),
        stride,
        len(weight) if apart else 1,
    )
