"""Adds words to a model: modalities, anatomies, stems, domains, kinds of image. Answers stay.

Letters: A any size, C channels, P = patch**rank pixels of a patch, D width.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from medformer.config import UNKNOWN, ModelConfig, stem_kind
from medformer.errors import ConfigError
from medformer.library.models import checked_config, seeded
from medformer.model import Medformer

FIELDS = ("stems", "modalities", "anatomies", "domains", "kinds")
"""Lists of a vocabulary to which words can be added."""


def extend(
    model: Medformer,
    *,
    modalities: Collection[str] = (),
    anatomies: Collection[str] = (),
    stems: Collection[str] = (),
    domains: Collection[str] = (),
    kinds: Collection[str] = (),
    seed: int = 0,
) -> Medformer:
    """Return a larger model that knows more words and answers old images as before.

    Every tensor of `model` is kept bit for bit.

    - A new modality or anatomy starts as a copy of the entry `unknown`.
    - A new stem starts from the stem of the same rank whose number of channels is nearest: from the
      mean over its first convolution's channels, scaled so that their sum stays. So a grey image is
      read alike in one channel and in three equal ones. Its pixel decoder starts from the mean over
      channels. A stem of a new rank starts at random.
    - A new domain's row of the discriminator is zero; rows are in the order of `config.domains`,
      which is sorted.
    - Concepts of a new kind of image are zero.

    >>> import medformer
    >>> model = medformer.build(modalities=["ct"], anatomies=["chest"])
    >>> medformer.extend(model, modalities=["mri"]).config.modalities
    ('ct', 'mri')

    Args:
        model: The model to extend; it is not changed.
        modalities, anatomies, stems, domains, kinds: New words.
        seed: Seed of the random weights of a stem of a new rank.
    Raises:
        ConfigError: A name is already known, repeated or not valid.
    """
    added = {
        "stems": stems, "modalities": modalities, "anatomies": anatomies, "domains": domains,
        "kinds": kinds,
    }  # fmt: skip
    config = extended_config(model.config, added)
    if model.network is not None:
        raise ConfigError(f"the network {model.config.network} has no vocabulary to extend")
    site = "own" in model.input.site
    larger = seeded(config, tuple(model.tasks.values()), site=site, seed=seed)
    # Later ones win: random, then copied, then the discriminator's rows.
    tensors = larger.state_dict() | _copied(model, config)
    tensors |= _discriminator(model, config)
    larger.load_state_dict(tensors)
    larger.encoder.blocks.checkpointing = model.encoder.blocks.checkpointing
    return larger.train(model.training)


def extended_config(config: ModelConfig, added: Mapping[str, Collection[str]]) -> ModelConfig:
    """Return a vocabulary with new names, each list sorted.

    Args:
        config: The vocabulary so far.
        added: Name in `FIELDS` -> new names.
    Raises:
        ConfigError: A name is already known, repeated or not valid.
    """
    values = config.model_dump()
    for field, names in added.items():
        # A text is a collection of letters, which would become words.
        if isinstance(names, str):
            raise ConfigError(f"{field} must be a list of names, got the text {names!r}")
        if known := sorted(set(names) & {*values[field], UNKNOWN}):
            raise ConfigError(f"{field}: this model knows {', '.join(known)} already")
        values[field] = tuple(sorted([*values[field], *names]))
    return checked_config(values)


def missing_words(config: ModelConfig, wanted: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Return the words of one vocabulary that another lacks, as arguments of `extend`.

    Args:
        config: The vocabulary that may lack words.
        wanted: The vocabulary whose words are needed.
    """
    return {
        field: tuple(
            n for n in getattr(wanted, field) if n not in getattr(config, field) and n != UNKNOWN
        )
        for field in FIELDS
    }


def _copied(model: Medformer, config: ModelConfig) -> dict[str, Tensor]:
    """Return all old tensors, and copies of them for new words."""
    tensors = dict(model.state_dict())
    for place, names in (("modality", config.modalities), ("anatomy", config.anatomies)):
        for name in set(names) - set(model.input.get_submodule(place)._modules):
            unknown = tensors[f"input.{place}.{UNKNOWN}.tokens"]
            tensors[f"input.{place}.{name}.tokens"] = unknown.clone()
    for stem in set(config.stems) - set(model.config.stems):
        if source := _nearest(stem, model.config.stems):
            tensors |= _stem(model.state_dict(), source, stem)
    return tensors


def _nearest(stem: str, known: Collection[str]) -> str | None:
    """Find the stem of the same rank with the nearest number of channels, the smaller of two."""
    rank, channels = stem_kind(stem)
    same = [s for s in known if stem_kind(s)[0] == rank]
    return min(same, key=lambda s: (abs(stem_kind(s)[1] - channels), stem_kind(s)[1]), default=None)


def _stem(tensors: Mapping[str, Tensor], source: str, stem: str) -> dict[str, Tensor]:
    """Make a stem and its pixel decoders from those of `source`."""
    before, after = stem_kind(source)[1], stem_kind(stem)[1]
    made = {}
    for name, value in tensors.items():
        if name.startswith(f"input.stems.{source}."):
            new = name.replace(f"input.stems.{source}.", f"input.stems.{stem}.", 1)
            # Only the first layer of a stem depends on the number of channels.
            first = name.endswith((".stages.0.0.weight", ".fine.0.0.weight", ".coarse.0.0.weight"))
            made[new] = _spread(value, after) * (before / after) if first else value.clone()
        elif name.startswith(f"pretext.pixels.{source}-"):
            new = name.replace(f"pretext.pixels.{source}-", f"pretext.pixels.{stem}-", 1)
            # Decoder outputs are ordered by channel first.
            by_channel = value.unflatten(0, (before, -1)).transpose(0, 1)  # (P, C, ...)
            made[new] = _spread(by_channel, after).transpose(0, 1).flatten(0, 1)
    return made


def _spread(weight: Tensor, channels: int) -> Tensor:
    """Repeat the mean over channels, (A, C, ...) -> (A, channels, ...)."""
    return weight.mean(1, keepdim=True).expand(-1, channels, *weight.shape[2:]).clone()


def _discriminator(model: Medformer, config: ModelConfig) -> dict[str, Tensor]:
    """Place the rows of the last layer in the new order of domains; those of new ones are zero."""
    rows = [config.domains.index(name) for name in model.config.domains]

    def placed(value: Tensor) -> Tensor:
        larger = torch.zeros(len(config.domains), *value.shape[1:])
        # Rows of new domains stay zero: no domain is favoured.
        larger[rows] = value
        return larger

    last = f"discriminator.{len(model.discriminator) - 1}."
    return {k: placed(v) for k, v in model.state_dict().items() if k.startswith(last)}
