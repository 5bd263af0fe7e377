"""The frozen network of the natural features: it computes what its definition says."""

from importlib.metadata import PackageNotFoundError, distribution

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medformer.natural import features, source
from medformer.natural.features import natural_features
from medformer.natural.network import BN_EPS, NUMBERS, STAGES, network


class Plain:
    """The same layers with random weights, not folded; images are square."""

    def __init__(self) -> None:
        self.names: dict[str, Tensor] = {}

    def layer(self, name: str, norm: str, shape: tuple[int, ...]) -> None:
        self.names[f"{name}.weight"] = torch.randn(shape) / (shape[1] * shape[2] * shape[3]) ** 0.5
        width = shape[0]
        self.names |= {
            f"{norm}.weight": 1 + 0.1 * torch.randn(width),
            f"{norm}.bias": 0.1 * torch.randn(width),
            f"{norm}.running_mean": 0.1 * torch.randn(width),
            f"{norm}.running_var": 0.5 + torch.rand(width),
        }

    def run(self, x: Tensor, name: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self.names[f"{name}.weight"]
        kernel, side = weight.shape[-1], x.shape[-1]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, weight, stride=stride, groups=groups)
        return F.batch_norm(
            x, *(self.names[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight",
                                                     "bias")), eps=BN_EPS,
        )  # fmt: skip


def test_folded_convolutions_compute_what_the_layers_do():
    """Each stage's output is that of convolutions, batch norms and ReLU6 one after the other."""
    torch.manual_seed(0)
    plain, before, number = Plain(), 32, 0
    plain.layer("_conv_stem", "_bn0", (32, 3, 3, 3))
    x = torch.randn(2, 3, 30, 30)
    y = F.relu6(plain.run(x, "_conv_stem", "_bn0", 2))
    expected = []
    for stage in STAGES[:6]:
        for place in range(stage.blocks):
            name, wide = f"_blocks.{number}", before * stage.expand
            inside = y
            if stage.expand > 1:
                plain.layer(f"{name}._expand_conv", f"{name}._bn0", (wide, before, 1, 1))
                inside = F.relu6(plain.run(y, f"{name}._expand_conv", f"{name}._bn0"))
            shape = (wide, 1, stage.kernel, stage.kernel)
            plain.layer(f"{name}._depthwise_conv", f"{name}._bn1", shape)
            stride = stage.stride if place == 0 else 1
            inside = F.relu6(
                plain.run(inside, f"{name}._depthwise_conv", f"{name}._bn1", stride, wide)
            )
            plain.layer(f"{name}._project_conv", f"{name}._bn2", (stage.width, wide, 1, 1))
            inside = plain.run(inside, f"{name}._project_conv", f"{name}._bn2")
            y = inside + y if place else inside
            before, number = stage.width, number + 1
        expected.append(y)
    for given, wanted in zip(network(plain.names)(x), expected, strict=True):
        assert torch.allclose(given, wanted, atol=1e-4 * float(wanted.abs().max()))


def test_the_weights_of_the_package_give_these_numbers():
    """The installed file is the known one, and its network still computes the same features."""
    try:
        distribution(source.PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"needs {source.INSTALL}")
    features.frozen.cache_clear()
    ramp = torch.linspace(-1.5, 1.5, 40)
    found = natural_features((ramp[:, None] * ramp.flip(0).cos())[None, None])
    assert found.shape == (1, NUMBERS)
    wanted = torch.tensor(MEASURED)
    assert torch.allclose(found[0, :: NUMBERS // 8][:8], wanted, atol=1e-3)


MEASURED = [0.4877, -8.4899, -0.5311, -0.0320, -1.2422, -3.3267, -0.8241, 1.0735]
"""Every 38th feature of that image."""
