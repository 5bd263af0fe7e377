"""Images before they meet the model. B images, C channels, *spatial is (H, W) or (D, H, W)."""

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
    """Move each image by up to `shift` pixels along every axis and, if `flip`, mirror half of them.

    Args:
        images: (B, C, *spatial). Edges are repeated, not wrapped.
        generator: Draws one shift an axis and one mirror an image; the draws see no pixel.
        shift: Largest shift in pixels.
        flip: Along the last axis; only where the labels are left-right invariant.
    """
    count, _, *spatial = images.shape
    shifts = torch.randint(-shift, shift + 1, (len(spatial), count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < (0.5 if flip else 0.0)
    for axis, size in enumerate(spatial):
        places = (torch.arange(size) + shifts[axis, :, None]).clamp(0, size - 1)
        if axis == len(spatial) - 1:
            places = torch.where(mirrored[:, None], places.flip(1), places)
        shape = [count, *[1] * (images.ndim - 1)]
        shape[axis + 2] = size
        images = images.gather(axis + 2, places.view(shape).expand_as(images))
    return images
