"""What Medformer is held against: a small CNN and a ResNet-18, for images and volumes."""

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from medformer.config import Domain, ModelConfig, Task
from medformer.model import Medformer

Layer = type[nn.Module]


def small_cnn(channels: int, rank: int, outputs: int) -> nn.Module:
    """Three convolutions with GroupNorm, 16-32-64 channels (23 thousand weights in 2D)."""
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
    """torchvision's ResNet-18 with a 3x3 stride-2 first convolution and no max pooling, as small
    images need; for volumes every convolution gets a third axis and the pooling stays."""
    network = resnet18(num_classes=outputs)
    network.conv1 = nn.Conv2d(channels, 64, 3, 2, 1, bias=False)
    if rank == 2:
        network.maxpool = nn.Identity()
    else:
        _inflate(network)
    return network


def _inflate(module: nn.Module) -> None:
    """Replace each 2D layer by its 3D kind, in place."""
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
            _inflate(child)
            continue
        setattr(module, name, new)


class Classifier(nn.Module):
    """Medformer as a network from images to the logits of one task."""

    def __init__(self, model: Medformer, domain: Domain, task: Task) -> None:
        super().__init__()
        self.model, self.domain, self.task = model, domain, task.name

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *spatial), standardised -> (B, T)."""
        return self.model.logits(images, self.domain, self.task)


def medformer(preset: str, domain: Domain, task: Task) -> nn.Module:
    """A Medformer with the vocabulary of one set."""
    return Classifier(Medformer(ModelConfig.for_domains([domain], preset), [task]), domain, task)


def build(kind: str, domain: Domain, task: Task, seed: int) -> nn.Module:
    """`cnn`, `resnet18`, or `medformer-PRESET`, from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "cnn":
            return small_cnn(domain.channels, domain.rank, task.outputs)
        if kind == "resnet18":
            return resnet(domain.channels, domain.rank, task.outputs)
        return medformer(kind.removeprefix("medformer-"), domain, task)
