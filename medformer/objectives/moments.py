"""Moments: learn mean and covariance of the features that heads read, with no label and no decoder.

The loss is linear in the parameters that it trains, so a step adds the moments of its images to
them, whatever the step size: clipped, noised and averaged like any other gradient. The encoder is
not trained. After the phase, the server fits the whitening of features anew
(`medformer.postprocessing.whitening`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from medformer.model import Medformer
from medformer.objectives.batch import Batch


def losses(model: Medformer, batch: Batch, generator: torch.Generator, weight: float) -> Tensor:
    """Return the negative inner product of each image's moments with those learned so far, (B,).

    Args:
        model, batch, generator, weight: As for every objective (`mix.LossPerExample`).
    """
    with torch.no_grad():
        depths = model.depths(batch.images, batch.domain, spacing=batch.spacing)
        # A query that has learned nothing attends to all tokens equally, and reads their mean.
        features = model.output.features(depths, depths[-1].mean(1))
        # Natural features, if the model reads them, keep their public whitening: it is the last.
        parts = [white(part) for white, part in zip(model.output.whitening, features, strict=False)]
    total = torch.zeros(len(batch))
    for learned, part in zip(model.pretext.moments, parts, strict=True):
        # Of length 1: then no image counts more than another, and the trace of the second moment
        # tells how many steps of which size were taken.
        unit = F.normalize(part, dim=1)
        total = total - (learned(unit) * unit).sum(1)
    return weight * total
