"""Features near those of public images: adaptation without seeing another site's.

Second moments of a site's own features, as correlation alignment compares them (Sun and Saenko
2016, arXiv:1607.01719), are statistics of a batch: they mix records, so no per-example clipping
could bound one record's part in them. What is left is each image's distance from moments of PUBLIC
images (`pretext.reference`, set once by the public pre-training and never trained): the Gaussian
negative log-likelihood of its mean token, less constants. It pulls towards the public mean, not
towards the public spread: use it with a small weight beside an objective that keeps images apart.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from medformer.model import Medformer
    from medformer.objectives import Batch

LEAST_VARIANCE = 1e-3
"""Added to the public variances: a feature that public images hardly use must not rule the loss."""


def losses(model: "Medformer", batch: "Batch", generator: torch.Generator, weight: float) -> Tensor:
    """Mean over the features of the squared standardised distance, (B,); about 1 for a public
    image. Without public pre-training the reference has mean 0 and variance 1."""
    features = model.tokens(batch.images, batch.domain, spacing=batch.spacing).mean(1)
    reference = model.pretext.reference
    squares = (features - reference.mean).square() / (reference.variance + LEAST_VARIANCE)
    return weight * squares.mean(1)
