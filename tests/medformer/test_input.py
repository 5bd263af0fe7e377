"""Stems: images stop early where that gives enough tokens, and train only what they pass."""

import pytest
import torch

from medformer.config import PRESETS, Domain, ModelConfig, Task
from medformer.model import Medformer
from medformer.objectives import trained_parameters


@pytest.mark.parametrize(
    ("preset", "rank", "size", "tokens"),
    [
        ("tiny", 2, 28, 16),
        ("tiny", 3, 28, 64),
        ("small", 2, 28, 49),
        ("small", 2, 64, 64),
        ("small", 2, 224, 196),
        ("small", 3, 28, 64),
        ("small", 3, 64, 64),
        ("base", 2, 28, 49),
        ("base", 2, 64, 256),
        ("base", 2, 224, 196),
        ("base", 3, 64, 64),
    ],
)
def test_small_images_are_cut_finer(preset: str, rank: int, size: int, tokens: int):
    """The stem stops where the tokens fit the budget: every size gets some 50 to 250 tokens."""
    domain = Domain(name="d", modality="m", anatomy="a", channels=1, rank=rank, size=size)
    side = -(-size // 2 ** PRESETS[preset].depth(domain))
    assert side**rank == tokens


@pytest.mark.parametrize(("rank", "size"), [(2, 28), (2, 64), (2, 224), (3, 16), (3, 28)])
def test_only_what_an_image_goes_through_is_trained(rank: int, size: int):
    """The finest and coarsest images of `small` have separate stages."""
    domain = Domain(name="d", modality="m", anatomy="a", channels=1, rank=rank, size=size)
    task = Task(name="t", kind="multi-class", classes=3)
    model = Medformer(ModelConfig.for_domains([domain], "small"), [task])
    torch.nn.init.normal_(model.output.heads["t"].weight)
    torch.nn.init.normal_(model.input.attention.out.weight)
    images = torch.randn(2, 1, *[min(size, 40)] * rank)
    model.logits(images, domain, "t").square().sum().backward()
    reached = [name for name, p in model.named_parameters() if p.grad is not None]
    assert reached == trained_parameters(model, domain, ["t"], {"supervised": 1.0})
    depth = PRESETS["small"].depth(domain)
    assert any(".fine." in name for name in reached) == (depth == 2)
    assert any(".coarse." in name for name in reached) == (depth == 4)
    assert any(".stages.0." in name for name in reached) == (depth == 3)
