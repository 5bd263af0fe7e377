"""Maps of attention and inpainted images are what the model really computed."""

import pytest
import torch

from medformer.encoder import Attention
from medformer.images import standardise
from medformer.library.explain import attention_map, attention_weights, inpainted
from medformer.model import Medformer
from medformer.objectives import Batch, inpainting
from tests.conftest import CHEST

IMAGES = standardise(torch.rand(3, 1, 28, 36, generator=torch.Generator().manual_seed(0)))


def test_weights_are_those_of_multi_head_attention():
    """PyTorch's own layer, which can tell its weights, is the oracle."""
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
    tokens = torch.randn(2, 9, 16)

    _, wanted = theirs(tokens, tokens, tokens)
    assert torch.allclose(attention_weights(ours, tokens), wanted, atol=1e-6)


def test_rollout_shares_out_the_mean_token(model: Medformer):
    """A share a place; equal shares where attention is the same for all places, and not else."""
    with torch.no_grad():
        shares = attention_map(model, IMAGES, CHEST)
        assert shares.shape == (3, 4, 5)
        assert torch.allclose(shares.sum((1, 2)), torch.ones(3), atol=1e-6)
        assert shares.std() > 1e-5
        for block in model.encoder.blocks:
            block.attention.query.weight.zero_()
            block.attention.query.bias.zero_()
        assert torch.allclose(attention_map(model, IMAGES, CHEST), torch.full((3, 4, 5), 1 / 20))


def test_rollout_follows_the_blocks_in_their_order(model: Medformer):
    """Source and target of one block's attention are not mixed up: worked out by hand."""
    with torch.no_grad():
        grid = model.input.maps(IMAGES, CHEST)[-1]
        x = model.input(grid, CHEST, None, None)
        first, second = model.encoder.blocks
        one = (attention_weights(first.attention, first.norm1(x)) + torch.eye(20)) / 2
        two = (attention_weights(second.attention, second.norm1(first(x))) + torch.eye(20)) / 2
        wanted = (two @ one).mean(1)
        assert torch.allclose(attention_map(model, IMAGES, CHEST).flatten(1), wanted, atol=1e-6)


def test_more_tokens_than_a_window_are_refused(model: Medformer):
    """There, no token attends to all others."""
    large = torch.zeros(1, 1, 136, 136)
    with pytest.raises(Exception, match="at most 256 tokens, got 289: crop the images to 128"):
        attention_map(model, large, CHEST)


def test_only_what_was_hidden_is_filled_in_and_by_what_the_loss_measures(model: Medformer):
    """The error over the hidden pixels is the objective's loss of the same draw."""
    with torch.no_grad():
        seen, filled = inpainted(model, IMAGES, CHEST, torch.Generator().manual_seed(4))
        batch = Batch(IMAGES, {}, CHEST)
        losses = inpainting.losses(model, batch, torch.Generator().manual_seed(4), 1.0)
    hidden = seen.expand_as(IMAGES) == 0
    assert torch.equal(filled[~hidden], IMAGES[~hidden])
    errors = torch.where(hidden, (filled - IMAGES).square(), 0.0).flatten(1).sum(1)
    assert torch.allclose(errors / hidden.flatten(1).sum(1), losses, rtol=1e-5)
    assert float(hidden.float().mean()) == pytest.approx(inpainting.MASKED, abs=0.06)
