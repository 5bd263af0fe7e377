"""A small network in place of the one that is trained on photographs, which tests do without."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medformer.natural import features, source
from medformer.natural.network import STAGES


class FakeNetwork:
    """Fixed random convolutions with the widths of the real network's stages."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.calls = 0
        self._weights = [
            torch.randn(stage.width, 3, 8, 8, generator=generator) / 14 for stage in STAGES[:6]
        ]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the channels of every stage, each (B, C, H, W)."""
        self.calls += 1
        return [F.relu6(F.conv2d(images, weight, stride=8)) for weight in self._weights]


@contextmanager
def installed() -> Iterator[FakeNetwork]:
    """Act as if the package with the weights were installed; yield the network that answers."""
    fake = FakeNetwork()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "frozen", lambda: fake)
        patch.setattr(source, "check", lambda path: None)
        patch.setattr(source, "distribution", _Distribution)
        yield fake


@contextmanager
def missing() -> Iterator[None]:
    """Act as if the package were not installed."""

    def nothing(name: str) -> object:
        raise source.PackageNotFoundError(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "distribution", nothing)
        features.frozen.cache_clear()
        yield


class _Distribution:
    def __init__(self, name: str) -> None:
        self.name = name

    def locate_file(self, path: str) -> str:
        return path
