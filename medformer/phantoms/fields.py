"""Building blocks shared by every phantom: coordinates, soft shapes and smooth random fields.

Letters: B images in a block, S side of an image in pixels, L lattice points along one axis.
Lengths are fractions of the image side, so one seed gives the same anatomy at every size.
"""

from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
"""Real arrays; single precision in practice."""


class Scene(NamedTuple):
    """The object in front of the scanner, before it is recorded."""

    intensities: Floats
    """(B, S, S), or (B, S, S, 3) in colour, in [0, 1]."""
    finding: npt.NDArray[np.bool_] | None = None
    """(B, S, S), the pixels of the finding that the label names; None if labels name no place."""


def pixel_centres(size: int) -> tuple[Floats, Floats]:
    """Return depth y (1, S, 1) and lateral position x (1, 1, S) of pixel centres, both in (0, 1).

    Args:
        size: S, pixels.
    """
    # Half a pixel off the edge, so that a scene has the same extent at every size.
    centres = (np.arange(size, dtype=np.float32) + 0.5) / np.float32(size)
    return centres.reshape(1, size, 1), centres.reshape(1, 1, size)


def draw(rng: np.random.Generator, count: int, low: float, high: float) -> Floats:
    """Draw a uniform number for each image, (B, 1, 1), ready to broadcast.

    Args:
        rng: Source of the draws.
        count: B.
        low, high: Range, [low, high).
    """
    return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)


def rotate(y: Floats, x: Floats, angle: Floats | float) -> tuple[Floats, Floats]:
    """Return coordinates in axes that are turned.

    Args:
        y, x: Coordinates.
        angle: Radians.
    """
    cos, sin = np.cos(angle, dtype=np.float32), np.sin(angle, dtype=np.float32)
    return y * cos - x * sin, y * sin + x * cos


def radius(y: Floats, x: Floats, height: Floats | float, width: Floats | float) -> Floats:
    """Return the distance from the origin in units of an ellipse: 1 on its border.

    Args:
        y, x: Coordinates.
        height, width: Half-axes of the ellipse.
    """
    return cast(Floats, np.sqrt((y / height) ** 2 + (x / width) ** 2))


def step(value: Floats, width: Floats | float) -> Floats:
    """Return a smooth step from 0 to 1, centred where `value` is 0.

    Args:
        value: Position relative to the step.
        width: Length of the step, in the unit of `value`.
    """
    # The cubic ramp has no kink at either end, so that edges show no lines.
    ramp = np.clip(value / width + np.float32(0.5), 0, 1)
    return cast(Floats, ramp * ramp * (3 - 2 * ramp))


def line(distance: Floats, width: Floats | float) -> Floats:
    """Return a soft bright line: 1 where `distance` is 0, falling as a Gaussian.

    Args:
        distance: Distance from the line.
        width: Standard deviation of the Gaussian, in the unit of `distance`.
    """
    return cast(Floats, np.exp(np.float32(-0.5) * (distance / width) ** 2))


def gaussian_weights(at: Floats, points: Floats, sd: float) -> Floats:
    """Return the Gaussian weight of each point at each position, (S, L).

    Args:
        at: (S,), positions.
        points: (L,), points.
        sd: Standard deviation, in the unit of both.
    """
    return cast(Floats, np.exp(np.float32(-0.5) * ((at[:, None] - points[None, :]) / sd) ** 2))


def smooth_field(
    rng: np.random.Generator, count: int, size: int, cells: tuple[float, float]
) -> Floats:
    """Draw a smooth Gaussian random field with mean 0 and variance 1 at every pixel, (B, S, S).

    Args:
        rng: Source of randomness; the number of draws does not depend on `size`.
        count: B.
        size: S, pixels.
        cells: Number of independent cells along y and x; 1 gives one slow wave.
    """
    at = pixel_centres(size)[0].ravel()
    weights = []
    for n in cells:
        margin = 2.0 / n
        # The lattice reaches beyond the image, so that its edges vary like its middle.
        points = np.linspace(-margin, 1 + margin, int(np.ceil(n)) + 5, dtype=np.float32)
        spacing = float(points[1] - points[0])
        rows = gaussian_weights(at, points, 0.6 * spacing)
        # Normalised, so that the variance is 1 at every pixel.
        weights.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    # Drawn on the lattice: the number of draws does not depend on the size.
    lattice = rng.standard_normal(
        (count, weights[0].shape[1], weights[1].shape[1]), dtype=np.float32
    )
    return _apply(weights[0], lattice, weights[1])


def blur(images: Floats, sd: tuple[float, float], *, unit_variance: bool = False) -> Floats:
    """Blur with a Gaussian along the last two axes, (..., S, S) -> (..., S, S).

    Args:
        images: Any leading axes.
        sd: Standard deviations along y and x, pixels; below 0.05 pixels an axis is not blurred.
        unit_variance: Scale so that white noise of variance 1 keeps variance 1 (for noise)
            rather than so that a constant image keeps its value (for images).
    """
    at = np.arange(images.shape[-1], dtype=np.float32)
    rows, columns = (_blur_rows(at, one, unit_variance) for one in sd)
    return _apply(rows, images, columns)


def _apply(rows: Floats, images: Floats, columns: Floats) -> Floats:
    """Apply linear maps along y and x, (S, L), (..., L, M), (R, M) -> (..., S, R).

    They are applied in double precision, because the order of sums in a matrix product depends on
    the number of threads: rounding then stays far below a grey level, and images are the same to
    the byte.
    """
    exact = rows.astype(np.float64) @ images @ columns.astype(np.float64).T
    return exact.astype(np.float32)


def _blur_rows(at: Floats, sd: float, unit_variance: bool) -> Floats:
    """Return the matrix, (S, S), that blurs along one axis."""
    weights = gaussian_weights(at, at, max(sd, 0.05))
    # Squares for noise, sums for images: see `unit_variance`.
    norm = np.linalg.norm(weights, axis=1) if unit_variance else weights.sum(axis=1)
    return cast(Floats, (weights / norm[:, None]).astype(np.float32))
