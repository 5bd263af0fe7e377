"""The labels of an image that another scanner might have taken: adaptation to scanners unseen."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medformer.degradations import rescan
from medformer.images import standardise
from medformer.objectives import supervised

if TYPE_CHECKING:
    from medformer.model import Medformer
    from medformer.objectives import Batch


def losses(model: "Medformer", batch: "Batch", generator: torch.Generator, weight: float) -> Tensor:
    """The supervised losses, (B,), of images whose acquisition is drawn anew in every step.

    It takes the place of `supervised`, or shares the weight with it. Masks of dense tasks stay as
    they are: no pixel moves.
    """
    shown = standardise(rescan(batch.images, generator))
    return supervised.losses(model, replace(batch, images=shown), generator, weight)
