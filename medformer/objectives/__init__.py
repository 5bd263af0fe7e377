"""Objectives: what the model learns from, each a loss PER EXAMPLE, so that DP can clip it.

No loss in this package mixes the images of a batch: `losses(...)[i]` depends on record i and random
draws only. Averages over the batch, negatives from other images or batch statistics would silently
break the differential-privacy guarantee (tests/medformer/test_objectives.py checks each objective).

>>> import medformer, torch
>>> from medformer import objectives
>>> from medformer.images import standardise
>>> opacity = medformer.Task(name="opacity", kind="multi-class", classes=3)
>>> model = medformer.build(tasks=[opacity], domains=["north", "south"])
>>> north = medformer.Domain(name="north", modality="ct", anatomy="chest", channels=1, size=28)
>>> images = standardise(torch.rand(4, 1, 28, 28))
>>> batch = objectives.Batch(images, {"opacity": torch.tensor([0, 2, 1, 0])}, north)
>>> mix = {"supervised": 1.0, "inpainting": 0.5, "domain_adversarial": 0.1}
>>> losses = objectives.mix_losses(model, batch, mix, torch.Generator().manual_seed(0))
>>> losses.shape  # one for each image
torch.Size([4])
>>> losses.mean().backward()
>>> objectives.trained_parameters(model, north, ["opacity"], mix)[-1]
'discriminator.2.bias'

An objective that would train nothing is refused (`refuse_idle`).
"""

from medformer.objectives.batch import Batch, Mix
from medformer.objectives.idle import refuse_idle
from medformer.objectives.mix import OBJECTIVES, mix_losses, trained_parameters

__all__ = ["OBJECTIVES", "Batch", "Mix", "mix_losses", "refuse_idle", "trained_parameters"]
