"""Objectives that would silently train nothing: refused before the first step, with the reason.

Only public facts decide: the model's vocabulary, the domain, the names of the tasks. What follows
from the records is no error: a record without a label adds 0, and so does `cross_scale` of a record
that is smaller than its domain declares.
"""

import math
from collections.abc import Sequence

from medformer.config import PRESETS, Domain, ModelConfig
from medformer.errors import ConfigError
from medformer.extensions.reference import is_reference
from medformer.objectives.batch import Mix

LABELS = frozenset({"supervised", "rescanned", "half_rescanned"})
"""Objectives that learn from labels."""
PLACES = frozenset({"inpainting", "contrastive", "cross_scale"})
"""Objectives that hold places of one image against each other: they need more than one token."""
OF_ANY_NETWORK = LABELS | {"domain_adversarial"}
"""Built-in objectives that need no part of Medformer's own input, encoder and pretext."""


def refuse_idle(config: ModelConfig, domain: Domain, tasks: Sequence[str], mix: Mix) -> None:
    """Refuse a mix with an objective whose loss would give no gradient, whatever the records.

    Args:
        config: The model's settings.
        domain: What the images are. Without a `size`, the number of tokens is not checked.
        tasks: Names of the tasks whose labels are learned.
        mix: Objective name -> weight.
    Raises:
        ConfigError: `domain_adversarial` has no second domain to tell this one from, an objective
            that learns from labels has no task, one that compares places has one token only, or
            the model's network is not Medformer's and lacks what an objective needs.
    """
    if config.network is not None:
        built_in = {name for name in mix if not is_reference(name)}
        if unfit := sorted(built_in - OF_ANY_NETWORK):
            raise ConfigError(
                f"{unfit[0]} needs parts of Medformer that the network {config.network} lacks: "
                f"train with {', '.join(sorted(OF_ANY_NETWORK))}, or with extensions"
            )
    if "domain_adversarial" in mix:
        _two_domains(config.domains, domain.name)
    without = sorted(LABELS & set(mix))
    if without and not tasks:
        raise ConfigError(
            f"{without[0]} learns from labels, and there is no task: give the model and the batch "
            "a task, or leave the objective out"
        )
    for name in sorted(PLACES & set(mix)):
        if domain.size is not None and _tokens(config, domain, halved=name == "cross_scale") < 2:
            raise ConfigError(
                f"{name} compares places of one image, and an image of {domain.size} pixels is "
                "one token for it: use larger images, or leave the objective out"
            )


def _two_domains(known: Sequence[str], own: str) -> None:
    """Refuse a discriminator that has nothing to tell apart."""
    if own not in known:
        raise ConfigError(f"domain {own!r} is not on the list of the model, {list(known)}")
    if len(known) < 2:
        raise ConfigError(
            f"domain_adversarial tells domains apart, and this model knows only {known[0]!r}: its "
            "loss would be 0 and train nothing. Name all domains when the model is built, "
            "medformer.build(domains=[...]), or leave the objective out"
        )


def _tokens(config: ModelConfig, domain: Domain, *, halved: bool) -> int:
    """Return the number of tokens of an image of the declared size, or of one of half that size."""
    size = domain.size or 0
    if halved:
        size = math.ceil(size / 2)
    side: int = math.ceil(size / 2 ** PRESETS[config.preset].depth(domain))
    return side**domain.rank
