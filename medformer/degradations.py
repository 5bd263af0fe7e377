"""What a worse acquisition would have recorded: noise, blur, bias field, missing k-space, contrast.

Letters: B images, C channels; `*spatial` is (H, W) or (D, H, W). Every function takes images
(B, C, *spatial) of any range, strengths (B,) from 0 (nothing changes) to 1, and a generator whose
draws, one an image, see no pixel; image i of the result depends on image i and its draws alone.

MONAI and torchio offer more such transforms, but for one record at a time, with loops in Python
and imports of seconds; a few tensor operations over the whole batch do here.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

MOST_NOISE = 1.0
"""Standard deviation of the noise at strength 1, of images with standard deviation 1."""
MOST_BLUR = 2.5
"""Standard deviation of the blur at strength 1, pixels."""
MOST_BIAS = 1.0
"""Logarithm of the bias field's factor at strength 1, root mean square of its coefficients."""
WAVES = 3
"""Cosines along each axis that a bias field is made of, the constant among them."""
MOST_DROPPED = 0.8
"""Share of the outer k-space lines that are missing at strength 1."""
CENTRE = 0.05
"""Frequency up to which no line is missing, cycles a pixel; the mean is always kept."""
MOST_GAMMA = 3.0
"""Exponent of the contrast at strength 1, or its inverse."""

MOST_TINT = 1.0
"""Standard deviation of the logarithm of a channel's gain at strength 1."""
MOST_RESCAN = 0.6
"""Largest strength of each fault of another scanner."""

Degradation = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def noise(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Additive Gaussian noise, as of a detector."""
    drawn = torch.randn(images.shape, generator=generator)
    return images + _each(MOST_NOISE * strength, images) * drawn


def rician(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """The magnitude of a complex signal with noise in both parts, as in MRI (Gudbjartsson and
    Patz 1995); the darkest value of an image counts as no signal."""
    floor = _least(images)
    deviation = _each(MOST_NOISE * strength, images)
    real = images - floor + deviation * torch.randn(images.shape, generator=generator)
    imaginary = deviation * torch.randn(images.shape, generator=generator)
    return torch.hypot(real, imaginary) + floor


def blur(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian blur, one axis after the other; at the edges over the pixels that there are."""
    widths = (MOST_BLUR * strength).clamp(min=1e-3)[:, None, None]  # as good as none
    for axis in range(2, images.ndim):
        places = torch.arange(images.shape[axis])
        distances = places[:, None] - places
        weights = (-0.5 * (distances / widths).square()).exp()  # (B, n, n)
        weights = weights / weights.sum(2, keepdim=True)
        lines = images.movedim(axis, 1)
        images = (weights @ lines.flatten(2)).view_as(lines).movedim(1, axis)
    return images


def bias(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """A smooth multiplicative field of low cosines, as of a coil; the darkest value stays."""
    rank = images.ndim - 2
    field = torch.randn((len(images), *[WAVES] * rank), generator=generator) / WAVES ** (rank / 2)
    for size in images.shape[2:]:
        places = (torch.arange(size) + 0.5) / size
        waves = (math.pi * torch.arange(WAVES)[:, None] * places).cos()
        field = field.movedim(1, -1) @ waves  # one axis of coefficients becomes one of pixels
    floor = _least(images)
    factor = (MOST_BIAS * _each(strength, images) * field[:, None]).exp()
    return (images - floor) * factor + floor


def undersampling(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Random k-space lines along one axis are missing, as in accelerated MRI; the centre is kept.

    The missing lines are those of a real image: a frequency and its mirror together.
    """
    rank = images.ndim - 2
    chosen = (torch.rand(len(images), generator=generator) * rank).long()
    result = images
    for axis in range(rank):
        size = images.shape[2 + axis]
        frequencies = torch.fft.rfftfreq(size)
        drawn = torch.rand((len(images), len(frequencies)), generator=generator)
        kept = (drawn >= MOST_DROPPED * strength[:, None]) | (frequencies <= CENTRE)
        shape = [len(images), *[1] * (images.ndim - 1)]
        shape[2 + axis] = len(frequencies)
        waves = torch.fft.rfft(images, dim=2 + axis) * kept.view(shape)
        lines = torch.fft.irfft(waves, n=size, dim=2 + axis)
        result = torch.where(_each(chosen == axis, images), lines, result)
    return result


def contrast(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """A gamma curve between the darkest and the brightest value, brighter or darker at random."""
    darker = torch.rand(len(images), generator=generator) < 0.5
    gamma = (math.log(MOST_GAMMA) * strength * torch.where(darker, 1, -1)).exp()
    floor = _least(images)
    span = (-_least(-images) - floor).clamp(min=1e-6)
    return floor + span * ((images - floor) / span).pow(_each(gamma, images))


def tint(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Each channel with a gain of its own, as of another stain or white balance; the darkest value
    stays. Nothing happens to grey images once they are standardised."""
    gains = torch.randn(images.shape[:2], generator=generator)
    factor = (MOST_TINT * strength[:, None] * gains).exp()
    floor = _least(images)
    return (images - floor) * factor.view(*factor.shape, *[1] * (images.ndim - 2)) + floor


DEGRADATIONS: Mapping[str, Degradation] = {
    "noise": noise,
    "rician": rician,
    "blur": blur,
    "bias": bias,
    "undersampling": undersampling,
    "contrast": contrast,
}
"""All of them; an image degraded by the one at place k is of kind k + 1, kind 0 is none."""


def degrade(images: Tensor, kinds: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Apply to each image the degradation of its kind, (B, C, *spatial) -> the same.

    Args:
        kinds: (B,) int64, 0 for none, else 1 + the place in `DEGRADATIONS`.
        strength: (B,) in [0, 1].
    """
    result = images.clone()
    for kind, function in enumerate(DEGRADATIONS.values(), start=1):
        rows = (kinds == kind).nonzero().flatten()
        if len(rows):
            result[rows] = function(images[rows], strength[rows], generator)
    return result


def rescan(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image as another scanner might have recorded it, (B, C, *spatial) -> the same.

    Tint, contrast, bias field, blur and noise, each with even chances and any strength up to
    `MOST_RESCAN`: domain randomisation (Tobin et al. 2017, arXiv:1703.06907) over acquisitions.
    """
    for fault in (tint, contrast, bias, blur, noise):
        strength = torch.rand(len(images), generator=generator)
        coin = torch.rand(len(images), generator=generator)
        images = fault(images, MOST_RESCAN * strength * (coin < 0.5), generator)
    return images


def _each(values: Tensor, images: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1), as many axes as the images have."""
    return values.view(-1, *[1] * (images.ndim - 1))


def _least(images: Tensor) -> Tensor:
    """Smallest value of each image, (B, 1, ..., 1)."""
    return images.flatten(1).amin(1).view(-1, *[1] * (images.ndim - 1))
