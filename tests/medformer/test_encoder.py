"""Encoder: attention in windows, order along the curve, checkpointing."""

import pytest
import torch
from torch import Tensor

from medformer.config import Preset
from medformer.encoder import Attention, Blocks
from medformer.grid import along_curve

SMALL = Preset(
    width=32,
    blocks=2,
    heads=4,
    mlp_ratio=2,
    latents=1,
    stem_widths=(16, 32),
    window=16,
    summaries=4,
)


def by_hand(attention: Attention, tokens: Tensor, window: int, summaries: int) -> Tensor:
    """Compute attention in windows, one query at a time."""
    count = tokens.shape[1]
    edges = [(i * count // summaries, -(-(i + 1) * count // summaries)) for i in range(summaries)]
    means = torch.stack([tokens[:, a:b].mean(1) for a, b in edges], 1)
    rows = []
    for i in range(count):
        start = i - i % window
        if start + window > count:
            start = count - window
        memory = torch.cat([tokens[:, start : start + window], means], 1)
        rows.append(attention(tokens[:, i : i + 1], memory))
    return torch.cat(rows, 1)


@pytest.mark.parametrize("count", [16, 17, 31, 48, 50])
def test_attention_in_windows_is_attention_to_window_and_means(count: int):
    """It is so where the last window is not full, too."""
    torch.manual_seed(0)
    attention = Attention(32, 4)
    tokens = torch.randn(2, count, 32)
    fast = attention.in_windows(tokens, 16, 4)
    assert torch.allclose(fast, by_hand(attention, tokens, 16, 4), atol=1e-5)


def test_short_sequences_attend_to_everything():
    """Up to a window nothing is summarised, and the order of tokens does not matter."""
    torch.manual_seed(0)
    blocks = Blocks(SMALL, 2)
    tokens = torch.randn(2, 16, 32)
    turned = blocks(tokens.flip(1), torch.arange(16)).flip(1)
    assert torch.allclose(blocks(tokens, torch.arange(16)), turned, atol=1e-5)


def test_long_sequences_come_back_in_their_order():
    """Sorting along the curve is undone."""
    torch.manual_seed(0)
    blocks = Blocks(SMALL, 1)
    tokens = torch.randn(1, 36, 32)
    ranks = along_curve((6, 6))
    sorted_first = blocks(tokens[:, ranks.argsort()], torch.arange(36))[:, ranks]
    assert torch.allclose(blocks(tokens, ranks), sorted_first, atol=1e-5)


def test_memory_of_attention_grows_linearly_with_the_tokens():
    """Twice the tokens make twice the scores; they are counted, because clocks are noisy."""
    scores: list[int] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores.append(q.shape[:-1].numel() * k.shape[-2])
        return real(q, k, v)

    torch.nn.functional.scaled_dot_product_attention = spy  # type: ignore[assignment]
    try:
        attention = Attention(32, 4)
        counts = []
        for count in (256, 512, 1024):
            scores.clear()
            attention.in_windows(torch.randn(1, count, 32), 16, 4)
            counts.append(sum(scores))
    finally:
        torch.nn.functional.scaled_dot_product_attention = real
    assert counts == [counts[0], 2 * counts[0], 4 * counts[0]]


def test_checkpointing_changes_memory_only():
    """Output and gradients stay the same."""
    torch.manual_seed(0)
    blocks = Blocks(SMALL, 2)
    tokens = torch.randn(2, 20, 32)
    results = []
    for on in (False, True):
        blocks.checkpointing = on
        blocks.zero_grad()
        output = blocks(tokens, torch.arange(20))
        output.square().sum().backward()
        gradients = [p.grad.clone() for p in blocks.parameters() if p.grad is not None]
        results.append([output.detach(), *gradients])
    assert len(results[0]) == 1 + len(list(blocks.parameters()))
    for plain, saved in zip(*results, strict=True):
        assert torch.allclose(plain, saved, atol=1e-6)


def test_depths_are_the_tokens_before_each_block_and_after_the_last():
    """They are in the order of the grid, also where a long sequence was sorted."""
    torch.manual_seed(0)
    blocks = Blocks(SMALL, 2)
    for count, ranks in ((12, torch.arange(12)), (36, along_curve((6, 6)))):
        tokens = torch.randn(2, count, 32)
        found = blocks.depths(tokens, ranks)
        assert torch.equal(found[0], tokens)
        assert torch.equal(found[-1], blocks(tokens, ranks))
        if count <= SMALL.window:
            assert torch.equal(found[1], blocks[0](tokens))
    assert len(found) == 3
