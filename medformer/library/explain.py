"""What a model sees in an image, as maps that people can look at; for public images.

Letters: B images, C channels, N tokens, D width. `*spatial` is (H, W) or (D, H, W).
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
    """Who attends to whom, the mean over the heads: (B, N, D) -> (B, N, N); rows add up to 1."""
    heads = (attention.heads, -1)
    query = attention.query(tokens).unflatten(-1, heads)
    key = attention.key_value(tokens).chunk(2, -1)[0].unflatten(-1, heads)
    scores = torch.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(query.shape[-1])
    return scores.softmax(-1).mean(1)


def attention_map(model: Medformer, images: Tensor, domain: Domain) -> Tensor:
    """How much of the encoder's mean token comes from where: attention rollout.

    Each block passes on half of a token unchanged and half by attention; the blocks are multiplied
    (Abnar and Zuidema 2020, arXiv:2005.00928) and the rows of all tokens averaged.

    Args:
        images: (B, C, *spatial), standardised.
    Returns:
        (B, *grid), one value a token, each image's adding up to 1.
    Raises:
        ShapeError: More tokens than a window: then no token attends to all others.
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
        flow = (passed + torch.eye(count)) / 2 @ flow
        tokens = block(tokens)
    return flow.mean(1).unflatten(1, grid.shape[2:])


def inpainted(
    model: Medformer, images: Tensor, domain: Domain, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide patches of images and fill them in with what the pretext decoder predicts.

    Args:
        images: (B, C, *spatial), standardised.
        generator: Draws the hidden patches.
    Returns:
        seen: (B, 1, *spatial), 1 where the model saw the image, else 0.
        filled: (B, C, *spatial), standardised: the image where it was seen, else the prediction.
    """
    batch = Batch(images, {}, domain)
    patches, visible = inpainting.guess(model, batch, generator)
    spatial, patch = images.shape[2:], model.patch(domain)
    grid = inpainting.grid_of(images, patch)
    seen = inpainting.upsample(visible, grid, patch, spatial)
    predicted = unpatchify(patches, domain.channels, spatial, patch)
    return seen, torch.where(seen > 0, images, predicted)
