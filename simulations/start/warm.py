"""Makes the shared tensors of round 0 without training: random, or from a model file."""

import hashlib
from pathlib import Path

from medformer.config import ModelConfig
from medformer.errors import ConfigError, ModelFileError
from medformer.library.extension import extend, extended_config, missing_words
from medformer.library.model_file import read_start
from medformer.library.models import load
from server.protocol import Tensors
from server.run.federation import Federation
from server.run.pretraining import initial_shared


def warm_start(file: Path, wanted: ModelConfig) -> tuple[ModelConfig, str]:
    """Return the vocabulary of a run that starts from a file, and a sentence about that file.

    The run keeps every word that the file knows, but its concepts are those of its own sites: a
    concept of a single site, or one that the run does not share, must not be trained in common.

    Raises:
        ModelFileError: The file is unreadable, no model file, or trained without a promise.
        ConfigError: Its preset or its frozen features are others than those of `wanted`.
    """
    header = read_start(file)
    if header.config.preset != wanted.preset:
        raise ConfigError(
            f"start: {file} is of preset {header.config.preset!r}, the scenario of "
            f"{wanted.preset!r}: set `preset: {header.config.preset}`, or start from another file"
        )
    if header.config.features != wanted.features:
        raise ConfigError(
            f"start: {file} has features: {header.config.features}, the scenario "
            f"{wanted.features}: set `features: {header.config.features}`, or start from another "
            "file"
        )
    config = extended_config(header.config, missing_words(header.config, wanted))
    config = config.model_copy(update={"kinds": wanted.kinds})
    sentence = f"{header.card.name} (SHA-256 {_sha256(file)[:16]}): {header.card.dp.sentence()}"
    if header.card.dp.kind == "federated-dp":
        sentence += " Records that both trainings used cost the sum of both epsilons."
    return config, sentence


def untrained(federation: Federation, file: Path | None) -> Tensors:
    """Return the shared tensors of round 0, random or from `file`.

    Raises:
        ModelFileError: The file is damaged, or another one than the federation names.
    """
    random = initial_shared(federation.model, federation.seed)
    if file is None:
        return random
    if warm_start(file, federation.model) != (federation.model, federation.started_from):
        raise ModelFileError(f"{file}: has changed since the run was prepared: use --overwrite")
    model = load(file)
    words = missing_words(model.config, federation.model)
    larger = extend(model, **words, seed=federation.seed)
    known = dict(larger.named_parameters())
    return {name: known[name].detach().numpy() for name in random}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
