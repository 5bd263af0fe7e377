"""Images before they meet the model. B images, C channels, then height and width."""

import torch
from torch import Tensor

from medformer.errors import ShapeError


def standardise(images: Tensor) -> Tensor:
    """Give every image mean 0 and standard deviation 1 over its own values.

    Args:
        images: (B, C, *spatial), uint8 or floating point, finite.
    Returns:
        (B, C, *spatial) float32. Each image depends on itself alone; a constant image becomes 0.
    Raises:
        ShapeError: Fewer than 4 dimensions.
    """
    if images.ndim < 4:
        raise ShapeError(
            f"images must be (B, C, H, W) or (B, C, D, H, W), got {tuple(images.shape)}. "
            "For one image, pass images.unsqueeze(0)."
        )
    values = images.float()
    dims = tuple(range(1, values.ndim))
    centred = values - values.mean(dims, keepdim=True)
    scale = centred.square().mean(dims, keepdim=True).sqrt()
    return centred / (scale + 1e-5 * (1 + values.abs().amax(dims, keepdim=True)))


def shift_and_flip(
    images: Tensor, generator: torch.Generator, *, shift: int = 2, flip: bool = False
) -> Tensor:
    """Move each image by up to `shift` pixels a side and, if `flip`, mirror half of them.

    Args:
        images: (B, C, H, W). Edges are repeated, not wrapped.
        generator: Draws one shift and one mirror an image; the draws see no pixel.
        shift: Largest shift in pixels.
        flip: Only where the labels are left-right invariant.
    """
    count, _, height, width = images.shape
    dy, dx = torch.randint(-shift, shift + 1, (2, count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < (0.5 if flip else 0.0)
    rows = (torch.arange(height) + dy[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width) + dx[:, None]).clamp(0, width - 1)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    moved = images.gather(2, rows[:, None, :, None].expand_as(images))
    return moved.gather(3, columns[:, None, None, :].expand_as(images))
