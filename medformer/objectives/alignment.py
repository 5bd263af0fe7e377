"""Alignment: draw features towards those of public images, without seeing another site's.

Correlation alignment (Sun and Saenko 2016, arXiv:1607.01719) compares second moments of a site's
features. Those are statistics of a batch: they mix records, so no per-example clipping could bound
the part of one record in them. Possible per example is the distance of each image from moments of
PUBLIC images (`pretext.reference`, fitted once by the public pre-training and never trained): the
Gaussian negative log-likelihood of its mean token, without constants. It pulls towards the public
mean, not towards the public spread: use it with a small weight beside an objective that keeps
images apart.
"""

import torch
from torch import Tensor

from medformer.model import Medformer
from medformer.objectives.batch import Batch

MIN_VARIANCE = 1e-3
"""Added to the public variances: a feature that public images hardly use must not rule the loss."""


def losses(model: Medformer, batch: Batch, generator: torch.Generator, weight: float) -> Tensor:
    """Return the squared standardised distance from public images, averaged over features, (B,).

    It is about 1 for a public image. Without public pre-training the reference has mean 0 and
    variance 1.

    Args:
        model, batch, generator, weight: As for every objective (`mix.LossPerExample`).

    Source: the first-moment part of Sun and Saenko 2016, arXiv:1607.01719.
    """
    # The mean token: places differ between images, their average is comparable.
    features = model.tokens(batch.images, batch.domain, spacing=batch.spacing).mean(1)
    reference = model.pretext.reference
    squares = (features - reference.mean).square() / (reference.variance + MIN_VARIANCE)
    return weight * squares.mean(1)
