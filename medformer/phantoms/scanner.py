"""The scanner of a site: it alters the look of the images, and never what they show."""

from dataclasses import dataclass
from math import isfinite
from typing import cast

import numpy as np

from medformer.phantoms.fields import Floats, blur, smooth_field

REFERENCE_SIZE = 28
"""Image side, pixels, at which `Scanner.blur` is stated."""


@dataclass(frozen=True)
class Scanner:
    """Acquisition settings of one site.

    Two sites with different scanners show the same anatomy, under the same label rule, with
    visibly different pixels: a controlled covariate shift.

    Raises:
        ValueError: A setting is not finite or outside the range that its description gives.
    """

    gain: float = 1.0
    """Contrast factor about mid-grey; > 0, no unit."""
    offset: float = 0.0
    """Brightness shift in units of full scale; -1 to 1."""
    gamma: float = 1.0
    """Exponent applied to intensities in [0, 1]; > 0, above 1 darkens."""
    noise: float = 0.02
    """Standard deviation of additive noise in units of full scale; 0 to 1."""
    blur: float = 0.0
    """Gaussian blur sd in pixels of a 28-pixel image, scaled to other sizes; 0 to 14."""
    bias_field: float = 0.0
    """Amplitude of a smooth multiplicative illumination field; 0 to below 1."""
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Red, green and blue factors, each > 0; grey images ignore them."""

    def __post_init__(self) -> None:
        _require("gain", self.gain, "a positive factor; 1.0 keeps the contrast", above=0)
        _require("offset", self.offset, "a number from -1 to 1; 0.0 keeps it", low=-1, high=1)
        _require("gamma", self.gamma, "a positive exponent; 1.0 keeps the curve", above=0)
        _require("noise", self.noise, "a number from 0 to 1; 0.0 adds no noise", low=0, high=1)
        _require("blur", self.blur, "a number of pixels from 0 to 14", low=0, high=14)
        _require("bias_field", self.bias_field, "a number from 0 to below 1", low=0, below=1)
        if len(self.tint) != 3:
            raise ValueError(
                f"tint must hold red, green and blue factors, got {len(self.tint)} numbers. "
                "Use (1.0, 1.0, 1.0) for no colour cast."
            )
        for factor in self.tint:
            _require("tint", factor, "three positive factors, such as (1.0, 0.9, 1.1)", above=0)


def _require(
    name: str,
    value: float,
    wanted: str,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    above: float = -np.inf,
    below: float = np.inf,
) -> None:
    """Raise ValueError unless `value` is finite and low <= value <= high, above < value < below."""
    if not (isfinite(value) and low <= value <= high and above < value < below):
        raise ValueError(f"{name} is out of range: got {value}. Give {wanted}.")


def acquire(rng: np.random.Generator, scenes: Floats, scanner: Scanner) -> Floats:
    """Record scenes with a scanner.

    Args:
        rng: Source of shading and noise; the number of draws does not depend on the scanner.
        scenes: (B, S, S) or (B, S, S, 3), in [0, 1].
        scanner: Settings of the scanner.
    Returns:
        The images, of the shape of `scenes`, in [0, 1].
    """
    count, size = scenes.shape[:2]
    channels_last = scenes.reshape(count, size, size, -1)
    images = np.moveaxis(channels_last, -1, 1)  # (B, C, S, S)
    if scanner.blur > 0:
        # Stated for 28 pixels, so that a scanner looks alike at every size.
        sd = scanner.blur * size / REFERENCE_SIZE
        images = blur(images, (sd, sd))
    # tanh bounds the field: the factor stays positive.
    shading = 1 + scanner.bias_field * np.tanh(smooth_field(rng, count, size, (1, 1)))
    images = images * shading[:, None]
    # Contrast about mid-grey, then brightness, then the curve of the display.
    images = (images - 0.5) * scanner.gain + 0.5 + scanner.offset
    images = np.clip(images, 0, 1) ** np.float32(scanner.gamma)
    # Grey images have no colour cast.
    if images.shape[1] == 3:
        images = images * np.asarray(scanner.tint, dtype=np.float32)[:, None, None]
    # Last, like the noise of a detector, and drawn whatever its strength.
    images = images + scanner.noise * rng.standard_normal(images.shape, dtype=np.float32)
    recorded = np.moveaxis(np.clip(images, 0, 1), 1, -1).reshape(scenes.shape)
    return cast(Floats, recorded.astype(np.float32))
