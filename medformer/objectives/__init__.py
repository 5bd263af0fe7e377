"""What the model learns from: each objective is a loss PER EXAMPLE, so that DP can clip it.

No loss here may mix the images of a batch: `losses(...)[i]` depends on record i and random draws
only. Averages over the batch, negatives from other images, batch statistics would silently break
the differential-privacy guarantee (tests/medformer/test_objectives.py checks each).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medformer.config import Domain
from medformer.errors import ConfigError
from medformer.model import Medformer
from medformer.objectives import contrastive, domain_adversarial, inpainting, supervised


@dataclass(frozen=True)
class Batch:
    """Records of one site, as the objectives read them."""

    images: Tensor
    """(B, C, H, W), standardised."""
    labels: Tensor
    """(B,) int64 classes, or (B, T) for a multi-label task."""
    domain: Domain
    task: str
    """Name of the supervised task."""

    def __getitem__(self, rows: slice) -> "Batch":
        return Batch(self.images[rows], self.labels[rows], self.domain, self.task)

    def __len__(self) -> int:
        return len(self.images)


Mix = Mapping[Any, float]
"""Name in OBJECTIVES -> weight."""
LossPerExample = Callable[[Medformer, Batch, torch.Generator, float], Tensor]

OBJECTIVES: Mapping[str, LossPerExample] = {
    "inpainting": inpainting.losses,
    "contrastive": contrastive.losses,
    "supervised": supervised.losses,
    "domain_adversarial": domain_adversarial.losses,
}

_INPUT = ("input.stems.{stem}.", "input.modality.{modality}.", "input.anatomy.{anatomy}.",
          "input.site.", "input.norm.", "input.attention.", "encoder.")  # fmt: skip
_OWN = {
    "inpainting": (
        "pretext.mask.", "pretext.block.", "pretext.norm.", "pretext.pixels.{stem}.",
    ),
    "contrastive": ("pretext.projector.",),
    "supervised": ("input.task.{task}.", "output.key.", "output.queries.{task}.",
                   "output.heads.{task}."),
    "domain_adversarial": ("discriminator.",),
}  # fmt: skip


def mix_losses(model: Medformer, batch: Batch, mix: Mix, generator: torch.Generator) -> Tensor:
    """Weighted sum of objectives, (B,): still one loss per example.

    Args:
        mix: Objective name -> weight. The weight of `domain_adversarial` is the lambda of the
            gradient reversal (Ganin et al. 2016, arXiv:1505.07818, eq. 18); the discriminator
            itself always learns at full strength.
    """
    total = torch.zeros(len(batch))
    for name in sorted(mix):
        total = total + OBJECTIVES[name](model, batch, generator, mix[name])
    return total


def trained_parameters(model: Medformer, domain: Domain, task: str, mix: Mix) -> list[str]:
    """Names of the parameters that this mix trains at a site, in the model's order.

    A function of the public schedule and the site's declaration, never of a record.
    """
    words = {
        "stem": domain.stem, "modality": domain.modality, "anatomy": domain.anatomy, "task": task,
    }  # fmt: skip
    prefixes = tuple(p.format(**words) for p in _prefixes(mix))
    return [name for name, _ in model.named_parameters() if name.startswith(prefixes)]


def _prefixes(mix: Mix) -> Sequence[str]:
    unknown = sorted(set(mix) - set(OBJECTIVES))
    if unknown or not mix:
        raise ConfigError(f"objectives must be some of {sorted(OBJECTIVES)}, got {sorted(mix)}")
    return [*_INPUT, *(p for name in sorted(mix) for p in _OWN[name])]
