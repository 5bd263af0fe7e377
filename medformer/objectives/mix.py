"""Weighted sums of objectives, and which parameters of a model a mix of objectives trains."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from medformer.config import Domain
from medformer.errors import ConfigError
from medformer.extensions.code import load
from medformer.extensions.reference import is_reference
from medformer.model import Medformer
from medformer.objectives import (
    alignment,
    contrastive,
    cross_scale,
    degradation,
    domain_adversarial,
    inpainting,
    moments,
    orientation,
    rescanned,
    restoration,
    supervised,
)
from medformer.objectives.batch import Batch, Mix
from medformer.objectives.idle import LABELS, refuse_idle

LossPerExample = Callable[[Medformer, Batch, torch.Generator, float], Tensor]
"""The losses of an objective: (model, batch, generator, weight) -> (B,), one loss for each example.

The model is read, never changed; the batch holds standardised records; the generator makes all
random draws, which see no pixel; the losses are multiplied by the weight, no unit."""

OBJECTIVES: Mapping[str, LossPerExample] = {
    "inpainting": inpainting.losses,
    "restoration": restoration.losses,
    "degradation": degradation.losses,
    "orientation": orientation.losses,
    "contrastive": contrastive.losses,
    "cross_scale": cross_scale.losses,
    "supervised": supervised.losses,
    "rescanned": rescanned.losses,
    "half_rescanned": rescanned.half,
    "domain_adversarial": domain_adversarial.losses,
    "alignment": alignment.losses,
    "moments": moments.losses,
}

_INPUT = ("input.stems.{stem}.exits.{depth}.", "input.modality.{modality}.",
          "input.anatomy.{anatomy}.", "input.site.", "input.norm.", "input.attention.",
          "encoder.")  # fmt: skip
"""Prefixes of parameters that objectives train, beside the stages of the stem."""
FROZEN = frozenset({"moments"})
"""Objectives that look at the features as they are, and train none of `_INPUT`."""
_PAINTER = ("pretext.block.", "pretext.norm.", "pretext.pixels.{stem}-{depth}.")
_LABELS = ("input.task.{task}.", "output.key.", "output.queries.{task}.",
           "output.heads.{task}.weight", "output.heads.{task}.bias", "output.textures.{task}.",
           "output.heads.{task}.{rank}d-{depth}.", "output.concepts.{kind}.")  # fmt: skip
_OF_WHOLE_IMAGES = ("output.key.", "output.concepts.{kind}.")
"""Shared parameters that no dense task uses."""
_OWN: Mapping[str, tuple[str, ...]] = {
    "inpainting": ("pretext.mask.", *_PAINTER),
    "restoration": _PAINTER,
    "degradation": ("pretext.degradation.",),
    "orientation": ("pretext.orientation.{rank}d.",),
    "contrastive": ("pretext.projector.",),
    "cross_scale": ("pretext.projector.",),
    "supervised": _LABELS,
    "rescanned": _LABELS,
    "half_rescanned": _LABELS,
    "domain_adversarial": ("discriminator.",),
    "alignment": (),  # its reference is public and stays as it is
    "moments": ("pretext.moments.",),
}  # fmt: skip
"""Objective -> prefixes of its own parameters, beside `_INPUT`. Extensions have none."""


def mix_losses(model: Medformer, batch: Batch, mix: Mix, generator: torch.Generator) -> Tensor:
    """Return the weighted sum of objectives, (B,): still one loss per example.

    Args:
        model: In training mode.
        batch: Records of one site.
        mix: Objective name -> weight. The weight of `domain_adversarial` is the lambda of the
            gradient reversal; the discriminator itself always learns at full strength. A name
            `MODULE:NAME` is a function of that module, which is imported.
        generator: Draws masks, degradations and so on.
    Raises:
        ConfigError: There is no such objective, one would train nothing (`refuse_idle`), or an
            extension returns something else than one loss for each example.

    Source: Ganin et al. 2016, arXiv:1505.07818, eq. 18 (the lambda).
    """
    _known(mix)
    refuse_idle(model.config, batch.domain, list(batch.labels), mix)
    total = torch.zeros(len(batch))
    for name in sorted(mix):  # an order that all sites share, because each objective draws
        total = total + _losses(name)(model, batch, generator, mix[name])
    return total


def _losses(name: str) -> LossPerExample:
    """Return the losses of an objective, those of an extension with their shape checked."""
    if not is_reference(name):
        return OBJECTIVES[name]
    outside = load(name)

    def checked(
        model: Medformer, batch: Batch, generator: torch.Generator, weight: float
    ) -> Tensor:
        values = outside(model, batch, generator, weight)
        # One mean of the batch would be added to every example's loss, without an error.
        if not isinstance(values, Tensor) or values.shape != (len(batch),):
            given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ConfigError(
                f"objective {name}: returns one loss for each example, ({len(batch)},); got {given}"
            )
        return values

    return checked


def trained_parameters(
    model: Medformer, domain: Domain, tasks: Sequence[str], mix: Mix
) -> list[str]:
    """Return the names of the parameters that a mix trains at a site, in the model's order.

    The answer follows from the public schedule and the site's declaration, never from a record.

    Args:
        model: The site's model.
        domain: What the site's images are.
        tasks: Names of the site's tasks that this step trains.
        mix: Objective name -> weight.
    Raises:
        ConfigError: An objective does not exist, there is none, or one would train nothing
            (`refuse_idle`).
    """
    _known(mix)
    refuse_idle(model.config, domain, tasks, mix)
    depth = model.preset.depth(domain)
    words = {
        "stem": domain.stem, "rank": domain.rank, "modality": domain.modality, "kind": domain.kind,
        "anatomy": domain.anatomy, "depth": depth,
    }  # fmt: skip
    # Stages that these images do not pass get no gradient, and would get noise only.
    stages = {f"input.stems.{domain.stem}.{stage}." for stage in model.preset.stages(depth)}
    tokens: Sequence[str] = _INPUT
    if model.network is not None:
        stages, tokens = set(), ("network.",)
    if mix.keys() <= FROZEN:
        stages, tokens = set(), ()
    # A site with dense tasks only uses neither key nor concepts.
    only_dense = all(model.tasks[t].is_dense for t in tasks if t in model.tasks)
    prefixes = stages | {
        prefix.format(**words, task=task)
        for prefix in (*tokens, *(own for name in sorted(mix) for own in _OWN.get(name, ())))
        # Without tasks, prefixes with {task} match nothing.
        for task in tasks or [""]
        if not (only_dense and prefix in _OF_WHOLE_IMAGES)
    }
    if LABELS & set(mix):
        own = (task for task in map(model.tasks.get, tasks) if task is not None and task.head)
        prefixes |= {f"output.heads.{task.name}." for task in own}
    return [name for name, _ in model.named_parameters() if name.startswith(tuple(prefixes))]


def _known(mix: Mix) -> None:
    """Refuse an objective that does not exist, and a mix of none."""
    if not mix or {name for name in mix if not is_reference(name)} - set(OBJECTIVES):
        raise ConfigError(
            f"objectives must be some of {sorted(OBJECTIVES)}, or MODULE:NAME; got {sorted(mix)}"
        )
