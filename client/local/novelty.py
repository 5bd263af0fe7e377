"""Novelty of an image: its distance to the training images, beyond which a model should not answer.

The distance is Mahalanobis' (Lee et al. 2018, arXiv:1807.03888), over the outputs of stem and
encoder and the image's grey values. The limit is a conformal quantile of the validation images'
distances: an image like those lies beyond it with probability at most `alpha` (Vovk et al. 2005;
Bates et al. 2023, arXiv:2104.08279). B images, C channels, F features.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from client.data.records import Records, Stack
from client.evaluation import CHUNK
from medformer.config import Domain
from medformer.images import standardise
from medformer.model import Medformer

QUANTILES = (0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995)
"""Quantiles of an image's standardised values that are features."""
MIN_SCALE = 1e-6
"""Minimum standard deviation of a feature: some are constant over the training images."""


def features(model: Medformer, domain: Domain, images: Tensor, spacing: Tensor | None) -> Tensor:
    """Compute the features of images; each image depends on itself alone.

    They are mean and deviation of the encoded tokens and of the stem's maps over all places,
    quantiles of the standardised values, and the mean difference between neighbours.

    Args:
        model: The model.
        domain: The site's kind of image.
        images: (B, C, *spatial), not standardised.
        spacing: (B, rank) distances between pixels, or None.
    Returns:
        (B, F) float64.
    """
    pixels = standardise(images)
    with torch.no_grad():
        maps = model.input.maps(pixels, domain)
        tokens = model.tokens(pixels, domain, spacing=spacing).transpose(1, 2)
    places = [tokens, *(m.flatten(2) for m in maps)]
    found = [
        statistic for each in places for statistic in (each.mean(2), each.std(2, correction=0))
    ]
    flat = pixels.flatten(1)
    # Not torch.quantile, which refuses volumes of more than 2**24 values.
    ranks = [round(q * (flat.shape[1] - 1)) for q in QUANTILES]
    found.append(flat.sort(1).values[:, ranks])
    steps = [pixels.diff(dim=axis).abs().flatten(1).mean(1) for axis in range(2, pixels.ndim)]
    # The logarithm makes smooth and noisy images comparable; the clamp keeps constant ones finite.
    found.append(torch.stack(steps, 1).clamp(min=1e-3).log())
    return torch.cat(found, 1).double()


class Novelty:
    """Distances to the images that it was fitted to.

    Args:
        centre: (F,) mean of the features.
        scale: (F,) standard deviation of the features.
        precision: (F, F) inverse covariance of the standardised features.
        limit: Distance beyond which a model should abstain.
    """

    def __init__(self, centre: Tensor, scale: Tensor, precision: Tensor, limit: float) -> None:
        self.centre, self.scale, self.precision = (
            centre.double(),
            scale.double(),
            precision.double(),
        )
        self.limit = limit

    def distances(self, values: Tensor) -> Tensor:
        """Return the distance of each image, (B, F) -> (B,).

        The images that it was fitted to have a mean square distance of about 1, less if they are
        few.

        Args:
            values: (B, F), from `features`.
        """
        off = (values - self.centre) / self.scale
        squares = ((off @ self.precision) * off).sum(1) / len(self.centre)
        # Rounding can make the square of a tiny distance negative.
        return squares.clamp(min=0).sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a model file keeps, float32."""
        kept = {"centre": self.centre, "scale": self.scale, "precision": self.precision}
        return {name: value.float() for name, value in kept.items()}


def fit(model: Medformer, domain: Domain, train: Records, val: Records, alpha: float) -> Novelty:
    """Fit the distance to the training images, and its limit to the validation images.

    Args:
        model: The model.
        domain: The site's kind of image.
        train: Records of the train split.
        val: Records of the val split.
        alpha: Share of images like the validation images that may lie beyond the limit. With fewer
            than 1 / alpha - 1 of them, the limit is their maximum distance, and the share at most 1
            / (their number + 1).
    """
    own = _features(model, domain, train)
    # A feature that is constant over the training images must not divide by zero.
    centre, scale = own.mean(0), own.std(0, correction=0).clamp(min=MIN_SCALE)
    precision = torch.linalg.inv(shrunk((own - centre) / scale))
    novelty = Novelty(centre, scale, precision, math.inf)
    # Rounded to float32 as in a file: else an image could cross the limit when it is read again.
    kept = novelty.tensors()
    distances = Novelty(**kept, limit=math.inf).distances(_features(model, domain, val))
    rank = conformal_rank(len(distances), alpha)
    return Novelty(**kept, limit=float(distances.sort().values[rank - 1]))


def conformal_rank(count: int, alpha: float) -> int:
    """Return the rank of the limit among sorted distances, from 1: ceil((n + 1)(1 - alpha)).

    Args:
        count: Number n of distances.
        alpha: Share of like images that may lie beyond the limit.
    """
    # The small term keeps floating point from rounding an exact rank up.
    return min(count, math.ceil((count + 1) * (1 - alpha) - 1e-9))


def shrunk(values: Tensor) -> Tensor:
    """Return the covariance of centred rows, shrunk to a multiple of the identity.

    It is invertible however few rows there are (Ledoit and Wolf 2004,
    doi:10.1016/S0047-259X(03)00096-4).

    Args:
        values: (N, F), centred.
    Returns:
        (F, F).
    """
    count, width = values.shape
    covariance = values.T @ values / count
    identity = torch.eye(width, dtype=values.dtype)
    target = covariance.trace() / width * identity
    apart = float((covariance - target).square().sum() / width)
    spread = float(
        (values.square().sum(1).square().sum() / count - covariance.square().sum()) / count / width
    )
    # At least 1e-4: with fewer images than features the covariance alone is singular.
    share = 1.0 if apart <= 0 else min(1.0, max(spread / apart, 1e-4))
    return (1 - share) * covariance + share * target.clamp(min=MIN_SCALE) * identity


def _features(model: Medformer, domain: Domain, records: Records) -> Tensor:
    """Return the features of all valid records, (N, F)."""
    return torch.cat([features(model, domain, s.images, s.spacing) for s in _valid(records)])


def _valid(records: Records) -> Iterator[Stack]:
    """Yield the valid records in chunks of one shape."""
    for stack in records.stacks:
        usable = stack[stack.valid]
        for first in range(0, len(usable), CHUNK):
            yield usable[slice(first, first + CHUNK)]
