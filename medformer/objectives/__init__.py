"""Objectives: what the model learns from, each a loss PER EXAMPLE, so that DP can clip it.

No loss in this package mixes the images of a batch: `losses(...)[i]` depends on record i and random
draws only. Averages over the batch, negatives from other images or batch statistics would silently
break the differential-privacy guarantee (tests/medformer/test_objectives.py checks each objective).
"""

from medformer.objectives.batch import Batch, Mix
from medformer.objectives.mix import OBJECTIVES, mix_losses, trained_parameters

__all__ = ["OBJECTIVES", "Batch", "Mix", "mix_losses", "trained_parameters"]
