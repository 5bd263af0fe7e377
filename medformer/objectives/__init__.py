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
from medformer.objectives import (
    alignment,
    contrastive,
    cross_scale,
    degradation,
    domain_adversarial,
    inpainting,
    orientation,
    rescanned,
    restoration,
    supervised,
)


@dataclass(frozen=True)
class Batch:
    """Records of one site, as the objectives read them."""

    images: Tensor
    """(B, C, *spatial), standardised."""
    labels: Mapping[str, Tensor]
    """Task -> (B,) int64 classes, (B, T) of a multi-label or (B, *spatial) of a dense task."""
    domain: Domain
    spacing: Tensor | None = None
    """(B, rank) distance between pixels of each image; the domain's own if left out."""

    def __post_init__(self) -> None:
        if self.spacing is None and self.domain.spacing is not None:
            own = torch.tensor(self.domain.spacing).expand(len(self.images), -1)
            object.__setattr__(self, "spacing", own)

    def __getitem__(self, rows: slice) -> "Batch":
        return Batch(
            self.images[rows],
            {task: labels[rows] for task, labels in self.labels.items()},
            self.domain,
            None if self.spacing is None else self.spacing[rows],
        )

    def __len__(self) -> int:
        return len(self.images)


Mix = Mapping[Any, float]
"""Name in OBJECTIVES -> weight."""
LossPerExample = Callable[[Medformer, Batch, torch.Generator, float], Tensor]

OBJECTIVES: Mapping[str, LossPerExample] = {
    "inpainting": inpainting.losses,
    "restoration": restoration.losses,
    "degradation": degradation.losses,
    "orientation": orientation.losses,
    "contrastive": contrastive.losses,
    "cross_scale": cross_scale.losses,
    "supervised": supervised.losses,
    "rescanned": rescanned.losses,
    "domain_adversarial": domain_adversarial.losses,
    "alignment": alignment.losses,
}

_INPUT = ("input.stems.{stem}.exits.{depth}.", "input.modality.{modality}.",
          "input.anatomy.{anatomy}.", "input.site.", "input.norm.", "input.attention.",
          "encoder.")  # fmt: skip
_PAINTER = ("pretext.block.", "pretext.norm.", "pretext.pixels.{stem}-{depth}.")
_LABELS = ("input.task.{task}.", "output.key.", "output.queries.{task}.",
           "output.heads.{task}.weight", "output.heads.{task}.bias", "output.textures.{task}.",
           "output.heads.{task}.{rank}d-{depth}.", "output.concepts.{kind}.")  # fmt: skip
_OWN: Mapping[str, tuple[str, ...]] = {
    "inpainting": ("pretext.mask.", *_PAINTER),
    "restoration": _PAINTER,
    "degradation": ("pretext.degradation.",),
    "orientation": ("pretext.orientation.{rank}d.",),
    "contrastive": ("pretext.projector.",),
    "cross_scale": ("pretext.projector.",),
    "supervised": _LABELS,
    "rescanned": _LABELS,
    "domain_adversarial": ("discriminator.",),
    "alignment": (),  # its reference is public and stays as it is
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


def trained_parameters(
    model: Medformer, domain: Domain, tasks: Sequence[str], mix: Mix
) -> list[str]:
    """Names of the parameters that this mix trains at a site, in the model's order.

    A function of the public schedule and the site's declaration, never of a record.
    """
    words = {
        "stem": domain.stem, "rank": domain.rank, "modality": domain.modality, "kind": domain.kind,
        "anatomy": domain.anatomy, "depth": (depth := model.preset.depth(domain)),
    }  # fmt: skip
    stages = {f"input.stems.{domain.stem}.{stage}." for stage in model.preset.stages(depth)}
    dense = [model.tasks[t].kind == "dense" for t in tasks if t in model.tasks]
    prefixes = stages | {
        p.format(**words, task=task)
        for p in _prefixes(mix)
        for task in tasks or [""]
        if not (p in ("output.key.", "output.concepts.{kind}.") and all(dense))
    }
    return [name for name, _ in model.named_parameters() if name.startswith(tuple(prefixes))]


def _prefixes(mix: Mix) -> Sequence[str]:
    unknown = sorted(set(mix) - set(OBJECTIVES))
    if unknown or not mix:
        raise ConfigError(f"objectives must be some of {sorted(OBJECTIVES)}, got {sorted(mix)}")
    return [*_INPUT, *(p for name in sorted(mix) for p in _OWN[name])]
