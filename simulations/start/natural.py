"""Whitening of natural features, fitted to phantoms and kept like a public start."""

from pathlib import Path

from torch import Tensor

from medformer.config import PRESETS, ModelConfig
from medformer.images import standardise
from medformer.natural.features import NUMBERS, natural_features
from medformer.natural.source import SHA256
from medformer.output import NATURAL_NORM, Whitening
from server.protocol import Tensors
from server.run.federation import Pretraining
from server.run.pretraining import REVISION, phantom_sets
from simulations.start import kept

PHANTOMS = Pretraining(images=256, patterns=256, volumes=0)
"""Public images of each kind that the whitening is fitted to."""
FACTS = {
    "natural": SHA256,
    "revision": REVISION,
    "phantoms": PHANTOMS.model_dump(mode="json"),
    "norm": NATURAL_NORM,
}
"""Everything that the whitening depends on."""


def whitened(start: Tensors, config: ModelConfig, cache: Path) -> Tensors:
    """Return the shared tensors of round 0 with the whitening of natural features.

    Args:
        start: The shared tensors, in which that whitening is still the identity.
        config: The run's model; without natural features it needs no whitening.
        cache: Folder where public starts are kept.
    Raises:
        ConfigError: The network's weights are not installed.
    """
    if config.features == "none":
        return start
    return _placed(start, config, kept.kept(FACTS, cache, fitted))


def at_hand(start: Tensors, config: ModelConfig, cache: Path) -> Tensors | None:
    """Return what `whitened` returns if nothing has to be computed for it, else None.

    Args:
        start, config, cache: As in `whitened`.
    """
    if config.features == "none":
        return start
    found = kept.find(kept.key_of(FACTS), cache)
    return None if found is None else _placed(start, config, found[0])


def fitted() -> Tensors:
    """Fit the whitening to the variation within each kind of phantom; no private image is read."""
    groups: list[Tensor] = [
        natural_features(standardise(public.images)) for public in phantom_sets(PHANTOMS)
    ]
    whitening = Whitening(NUMBERS)
    whitening.fit(groups, NATURAL_NORM)
    return {name: value.detach().numpy() for name, value in whitening.named_parameters()}


def _placed(start: Tensors, config: ModelConfig, fitted: Tensors) -> Tensors:
    # After the whitening of the attended token and of the spread at each depth.
    number = PRESETS[config.preset].blocks + 2
    return {**start, **{f"output.whitening.{number}.{k}": v for k, v in fitted.items()}}
