"""Simulates faults of an acquisition: noise, blur, bias field, missing k-space, contrast.

Letters: B images, C channels; `*spatial` is (H, W) or (D, H, W). Every function takes images
(B, C, *spatial) of any range, strengths (B,) from 0 (nothing changes) to 1, and a generator that
draws for each image without looking at its pixels. Image i of the result depends only on image i
and its draws.

MONAI and torchio offer more such transforms, but for one record at a time, with loops in Python
and seconds of imports. Here, a few tensor operations over the whole batch suffice.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

MAX_NOISE = 1.0
"""Standard deviation of the noise at strength 1, for images with standard deviation 1."""
MAX_BLUR = 2.5
"""Standard deviation of the blur at strength 1, pixels."""
MAX_BIAS = 1.0
"""Logarithm of the bias field's factor at strength 1, root mean square of its coefficients."""
WAVES = 3
"""Cosines along each axis of a bias field, including the constant."""
MAX_DROPPED = 0.8
"""Share of the outer k-space lines that are missing at strength 1."""
CENTRE = 0.05
"""Frequency up to which no line is missing, cycles per pixel; the mean is always kept."""
MAX_GAMMA = 3.0
"""Exponent of the contrast at strength 1, or its inverse."""
MAX_TINT = 1.0
"""Standard deviation of the logarithm of a channel's gain at strength 1."""
MAX_RESCAN = 0.6
"""Largest strength of each fault that `rescan` draws."""

Degradation = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""Images, strengths (B,), generator -> images."""


def noise(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise, as a detector does.

    Args:
        images, strength, generator: As for every degradation (see the head of this file).
    """
    # Drawn for every image, whatever its strength: the draws see no pixel.
    drawn = torch.randn(images.shape, generator=generator)
    return images + _each(MAX_NOISE * strength, images) * drawn


def rician(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Take the magnitude of a complex signal with noise in both parts, as in MRI.

    The darkest value of an image counts as no signal.

    Args:
        images, strength, generator: As for every degradation.

    Source: Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618.
    """
    floor = _darkest(images)
    deviation = _each(MAX_NOISE * strength, images)
    real = images - floor + deviation * torch.randn(images.shape, generator=generator)
    imaginary = deviation * torch.randn(images.shape, generator=generator)
    return torch.hypot(real, imaginary) + floor


def blur(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Blur with a Gaussian, one axis after the other; at the edges over the pixels there are.

    Args:
        images, strength, generator: As for every degradation.
    """
    widths = (MAX_BLUR * strength).clamp(min=1e-3)[
        :, None, None
    ]  # not 0, and small enough to blur nothing
    for axis in range(2, images.ndim):
        places = torch.arange(images.shape[axis])
        distances = places[:, None] - places
        weights = (-0.5 * (distances / widths).square()).exp()  # (B, n, n)
        # Weights of the pixels that exist sum to 1, so a constant stays constant.
        weights = weights / weights.sum(2, keepdim=True)
        lines = images.movedim(axis, 1)
        images = (weights @ lines.flatten(2)).view_as(lines).movedim(1, axis)
    return images


def bias(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Multiply by a smooth field, as a coil does; the darkest value stays.

    The logarithm of the field is a random sum of low cosines.

    Args:
        images, strength, generator: As for every degradation.
    """
    rank = images.ndim - 2
    # Scaled so that the field's size does not depend on the rank.
    field = torch.randn((len(images), *[WAVES] * rank), generator=generator) / WAVES ** (rank / 2)
    for size in images.shape[2:]:
        places = (torch.arange(size) + 0.5) / size
        waves = (math.pi * torch.arange(WAVES)[:, None] * places).cos()
        field = field.movedim(1, -1) @ waves  # one axis of coefficients becomes one of pixels
    floor = _darkest(images)
    factor = (MAX_BIAS * _each(strength, images) * field[:, None]).exp()
    return (images - floor) * factor + floor


def undersampling(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Drop random k-space lines along one axis, as accelerated MRI does; the centre is kept.

    The image stays real: a frequency and its mirror are dropped together.

    Args:
        images, strength, generator: As for every degradation.
    """
    rank = images.ndim - 2
    # One axis for each image, as a scanner has one direction of phase encoding.
    chosen = (torch.rand(len(images), generator=generator) * rank).long()
    result = images
    for axis in range(rank):
        size = images.shape[2 + axis]
        frequencies = torch.fft.rfftfreq(size)
        drawn = torch.rand((len(images), len(frequencies)), generator=generator)
        kept = (drawn >= MAX_DROPPED * strength[:, None]) | (frequencies <= CENTRE)
        shape = [len(images), *[1] * (images.ndim - 1)]
        shape[2 + axis] = len(frequencies)
        waves = torch.fft.rfft(images, dim=2 + axis) * kept.view(shape)
        lines = torch.fft.irfft(waves, n=size, dim=2 + axis)
        # Computed for all and selected: loops over images would be slower.
        result = torch.where(_each(chosen == axis, images), lines, result)
    return result


def contrast(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Apply a gamma curve between darkest and brightest value, brighter or darker at random.

    Args:
        images, strength, generator: As for every degradation.
    """
    darker = torch.rand(len(images), generator=generator) < 0.5
    gamma = (math.log(MAX_GAMMA) * strength * torch.where(darker, 1, -1)).exp()
    floor = _darkest(images)
    # A constant image has no span to divide by.
    span = (-_darkest(-images) - floor).clamp(min=1e-6)
    return floor + span * ((images - floor) / span).pow(_each(gamma, images))


def tint(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Multiply each channel by a random gain, as another stain or white balance does.

    The darkest value stays. A grey image changes only by a factor, which standardising undoes.

    Args:
        images, strength, generator: As for every degradation.
    """
    gains = torch.randn(images.shape[:2], generator=generator)
    factor = (MAX_TINT * strength[:, None] * gains).exp()
    floor = _darkest(images)
    return (images - floor) * factor.view(*factor.shape, *[1] * (images.ndim - 2)) + floor


DEGRADATIONS: Mapping[str, Degradation] = {
    "noise": noise,
    "rician": rician,
    "blur": blur,
    "bias": bias,
    "undersampling": undersampling,
    "contrast": contrast,
}
"""Name -> degradation. Its kind is its place plus 1; kind 0 is no degradation."""


def degrade(images: Tensor, kinds: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Apply to each image the degradation of its kind, (B, C, *spatial) -> the same shape.

    Args:
        images: (B, C, *spatial), any range.
        kinds: (B,) int64, 0 for none, else 1 + the place in `DEGRADATIONS`.
        strength: (B,) in [0, 1].
        generator: Source of the draws.
    """
    result = images.clone()
    for kind, function in enumerate(DEGRADATIONS.values(), start=1):
        rows = (kinds == kind).nonzero().flatten()
        # Fewer images than kinds: some kinds are not drawn.
        if len(rows):
            result[rows] = function(images[rows], strength[rows], generator)
    return result


def rescan(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change each image as if another scanner had recorded it, (B, C, *spatial) -> same shape.

    Tint, contrast, bias field, blur and noise are each applied with probability 1/2 and a random
    strength up to `MAX_RESCAN`.

    Args:
        images: (B, C, *spatial), any range.
        generator: Source of the draws.

    Source: Tobin et al. 2017, arXiv:1703.06907 (domain randomisation), here over acquisitions.
    """
    for fault in (tint, contrast, bias, blur, noise):
        # Strength and coin are drawn for all images, so that draws see no pixel.
        strength = torch.rand(len(images), generator=generator)
        coin = torch.rand(len(images), generator=generator)
        images = fault(images, MAX_RESCAN * strength * (coin < 0.5), generator)
    return images


def _each(values: Tensor, images: Tensor) -> Tensor:
    """Add axes until there are as many as the images have, (B,) -> (B, 1, ..., 1)."""
    return values.view(-1, *[1] * (images.ndim - 1))


def _darkest(images: Tensor) -> Tensor:
    """Return the smallest value of each image, (B, 1, ..., 1)."""
    return images.flatten(1).amin(1).view(-1, *[1] * (images.ndim - 1))
