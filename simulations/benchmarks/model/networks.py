"""The networks of the benchmark: Medformer, a small CNN and a ResNet-18, in 2D and 3D.

B images, C channels, T outputs of a task.
"""

import math

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from medformer.config import Domain, ModelConfig, Task
from medformer.model import Medformer
from medformer.objectives.inpainting import grid_of

Layer = type[nn.Module]


def small_cnn(channels: int, rank: int, outputs: int) -> nn.Module:
    """Build three convolutions with GroupNorm and 16-32-64 channels (23,000 weights in 2D).

    Args:
        channels: Channels of an image.
        rank: 2 for images, 3 for volumes.
        outputs: Number of logits.
    """
    conv: Layer = nn.Conv2d if rank == 2 else nn.Conv3d
    pool: Layer = nn.MaxPool2d if rank == 2 else nn.MaxPool3d
    layers: list[nn.Module] = []
    before = channels
    for after in (16, 32, 64):
        layers += [conv(before, after, 3, padding=1), nn.GroupNorm(8, after), nn.GELU(), pool(2)]
        before = after
    mean = nn.AdaptiveAvgPool2d(1) if rank == 2 else nn.AdaptiveAvgPool3d(1)
    return nn.Sequential(*layers, mean, nn.Flatten(), nn.Linear(before, outputs))


def resnet(channels: int, rank: int, outputs: int) -> nn.Module:
    """Build torchvision's ResNet-18, adapted to small images or volumes.

    The first convolution is 3x3 with stride 2, and there is no max pooling in 2D. In 3D, every
    convolution has a third axis and the pooling stays.

    Args:
        channels: Channels of an image.
        rank: 2 for images, 3 for volumes.
        outputs: Number of logits.
    Source: He et al. 2016, arXiv:1512.03385.
    """
    network = resnet18(num_classes=outputs)
    network.conv1 = nn.Conv2d(channels, 64, 3, 2, 1, bias=False)
    if rank == 2:
        # Images of 28 pixels would be down to 7 before the first block.
        network.maxpool = nn.Identity()
    else:
        _inflate(network)
    return network


def _inflate(module: nn.Module) -> None:
    """Replace each 2D layer by the corresponding 3D layer, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            new: nn.Module = nn.Conv3d(
                child.in_channels, child.out_channels, child.kernel_size[0], child.stride[0],
                child.padding[0], bias=child.bias is not None,
            )  # fmt: skip
        elif isinstance(child, nn.BatchNorm2d):
            new = nn.BatchNorm3d(child.num_features)
        elif isinstance(child, nn.MaxPool2d):
            new = nn.MaxPool3d(3, 2, 1)
        elif isinstance(child, nn.AdaptiveAvgPool2d):
            new = nn.AdaptiveAvgPool3d(1)
        else:
            # A block holds further layers.
            _inflate(child)
            continue
        setattr(module, name, new)


KEPT = {"small": 0.5}
"""Preset -> fraction of each image's tokens that the encoder sees in training, if it is below 1
(patch dropout, Liu et al. 2022, arXiv:2208.07220). It was chosen on validation AUC."""


class Classifier(nn.Module):
    """Medformer as a network from images to the logits of one task.

    Args:
        model: The model.
        domain: Domain of the images.
        task: A task of the model.
        kept: Fraction of the tokens that are encoded in training, drawn anew for each image.
        seed: Seed of these draws.
    """

    def __init__(
        self, model: Medformer, domain: Domain, task: Task, *, kept: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__()
        self.model, self.domain, self.task, self.kept = model, domain, task.name, kept
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits: standardised images (B, C, *spatial) -> (B, T)."""
        # Patch dropout is for training only.
        if not self.training or self.kept == 1:
            return self.model.logits(images, self.domain, self.task)
        count = math.prod(grid_of(images, self.model.patch(self.domain)))
        order = torch.rand(len(images), count, generator=self.generator).argsort(1)
        # Random tokens of each image, as many for all, so that they form one batch.
        keep = order[:, : round(self.kept * count)]
        depths = self.model.depths(images, self.domain, task=self.task, keep=keep)
        logits: Tensor = self.model.output(depths, self.task)
        return logits


def medformer(preset: str, domain: Domain, task: Task, seed: int) -> nn.Module:
    """Build a Medformer with the vocabulary of one set."""
    model = Medformer(ModelConfig.for_domains([domain], preset), [task])
    return Classifier(model, domain, task, kept=KEPT.get(preset, 1.0), seed=seed)


def build(kind: str, domain: Domain, task: Task, seed: int) -> nn.Module:
    """Build a network from a seed.

    Args:
        kind: `cnn`, `resnet18` or `medformer-PRESET`.
        domain: Domain of the images.
        task: The task to answer.
        seed: Seed of the weights; the global generator of torch is left as it was.
    """
    # torch's layers draw their weights from the global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "cnn":
            return small_cnn(domain.channels, domain.rank, task.outputs)
        if kind == "resnet18":
            return resnet(domain.channels, domain.rank, task.outputs)
        return medformer(kind.removeprefix("medformer-"), domain, task, seed)
