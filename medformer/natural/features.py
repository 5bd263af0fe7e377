"""From images to natural features.

Letters: B images, C channels, S slices; `*spatial` is (H, W) or (D, H, W).
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from medformer.natural.network import NUMBERS as NUMBERS
from medformer.natural.network import READ, Network, network
from medformer.natural.source import weights_file

SIDE = 112
"""Pixels to which an image is enlarged or reduced, half of those of the network's training: smaller
images have no more detail, and four times as many pixels take four times as long."""
CONTRAST = 0.45
"""Standard deviation of an image's pixels, about that of the photographs."""
SLICES = 8
"""Slices that stand for a volume, at equal distances."""
CHUNK = 8
"""Images that go through the network at once; more take longer each, because their maps exceed the
processor's cache."""


@lru_cache(maxsize=1)
def frozen() -> Network:
    """Return the network, read once a process.

    Raises:
        ConfigError: The package with its weights is not installed, or is another one.
    """
    # `weights_only`: a pickle could run any code.
    return network(torch.load(weights_file(), weights_only=True, map_location="cpu"))


@torch.no_grad()
def natural_features(images: Tensor) -> Tensor:
    """Return the natural features of images, each computed from that image alone.

    Grey images are shown in three equal channels; of other numbers of channels, the mean is. A
    volume is answered by the mean over slices along its first axis.

    Args:
        images: (B, C, *spatial), standardised (`medformer.images.standardise`).
    Returns:
        (B, NUMBERS).
    Raises:
        ConfigError: The network's weights are not installed.
    """
    # A program that is exported takes any number of images at once.
    if torch.compiler.is_exporting():
        return _of_chunk(images)
    return torch.cat([_of_chunk(part) for part in images.split(CHUNK)])


def _of_chunk(images: Tensor) -> Tensor:
    if images.ndim == 4:
        return _of_pictures(images)
    depth = images.shape[2]
    places = [(2 * i + 1) * depth // (2 * SLICES) for i in range(SLICES)]
    slices = [_of_pictures(images[:, :, place]) for place in places]
    return torch.stack(slices).mean(0)


def _of_pictures(images: Tensor) -> Tensor:
    """Return the features of (B, C, H, W)."""
    colour = images if images.shape[1] == 3 else images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    # Without smoothing, an image that is made smaller would show patterns that it does not have.
    smaller = max(images.shape[2:]) > SIDE
    shown = F.interpolate(
        CONTRAST * colour, size=(SIDE, SIDE), mode="bilinear", align_corners=False,
        antialias=smaller,
    )  # fmt: skip
    stages = frozen()(shown.contiguous(memory_format=torch.channels_last))
    return torch.cat([stages[stage].mean((2, 3)) for stage in READ], 1)
