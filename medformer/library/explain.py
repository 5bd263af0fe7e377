"""Shows what a model uses in an image, as maps for people to look at; for public images.

Letters as in medformer/layers.py: B images, C channels, N tokens, D width.
"""

import math

import torch
from torch import Tensor

from medformer.config import Domain
from medformer.encoder import Attention, Block
from medformer.errors import ShapeError
from medformer.grid import unpatchify
from medformer.model import Medformer
from medformer.objectives import Batch, inpainting


def attention_weights(attention: Attention, tokens: Tensor) -> Tensor:
    """Return how much each token attends to each other, the mean over heads, (B, N, N).

    Args:
        attention: Of a block.
        tokens: (B, N, D), as the block passes them to its attention.
    Returns:
        (B, N, N); rows sum to 1.
    """
    heads = (attention.heads, -1)
    query = attention.query(tokens).unflatten(-1, heads)
    key = attention.key_value(tokens).chunk(2, -1)[0].unflatten(-1, heads)
    scores = torch.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(query.shape[-1])
    return scores.softmax(-1).mean(1)


def attention_map(model: Medformer, images: Tensor, domain: Domain) -> Tensor:
    """Return how much of the encoder's mean token comes from each place, by attention rollout.

    Each block is taken to pass on half of a token unchanged and half by attention. The blocks'
    matrices are multiplied, and the rows of all tokens averaged.

    Args:
        model: Any model.
        images: (B, C, *spatial), standardised.
        domain: What the images are.
    Returns:
        (B, *grid), a value for each token; those of an image sum to 1.
    Raises:
        ShapeError: There are more tokens than a window, so that tokens do not attend to all others.

    Source: Abnar and Zuidema 2020, arXiv:2005.00928.
    """
    grid = model.input.maps(images, domain)[-1]
    tokens = model.input(grid, domain, None, None)
    count = tokens.shape[1]
    if count > model.preset.window:
        raise ShapeError(
            f"attention maps are for at most {model.preset.window} tokens, got {count}: "
            f"crop the images to {math.isqrt(model.preset.window) * model.patch(domain)} pixels"
        )
    flow = torch.eye(count).expand(len(tokens), -1, -1)
    for block in model.encoder.blocks:
        assert isinstance(block, Block)
        passed = attention_weights(block.attention, block.norm1(tokens))
        # Half identity: the residual connection passes a token on unchanged.
        flow = (passed + torch.eye(count)) / 2 @ flow
        # Attention depends on the tokens that enter the block, so it is read first.
        tokens = block(tokens)
    return flow.mean(1).unflatten(1, grid.shape[2:])


def inpainted(
    model: Medformer, images: Tensor, domain: Domain, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide patches of images and fill them with the predictions of the pretext decoder.

    Args:
        model: Any model.
        images: (B, C, *spatial), standardised.
        domain: What the images are.
        generator: Draws the hidden patches.
    Returns:
        visible: (B, 1, *spatial), 1 where the model saw the image, else 0.
        filled: (B, C, *spatial), standardised: the image where it was visible, else the prediction.
    """
    batch = Batch(images, {}, domain)
    patches, kept = inpainting.guess(model, batch, generator)
    spatial, patch = images.shape[2:], model.patch(domain)
    grid = inpainting.grid_of(images, patch)
    visible = inpainting.upsample(kept, grid, patch, spatial)
    predicted = unpatchify(patches, domain.channels, spatial, patch)
    return visible, torch.where(visible > 0, images, predicted)
