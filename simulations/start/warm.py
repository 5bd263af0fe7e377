"""The shared tensors of round 0 where nothing is trained before: random, or those of a file."""

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
    """The vocabulary of a run that starts from a file, and a sentence about that file.

    The run keeps every word that the file knows, but concepts are those of the run's own sites:
    what one site has alone, or the run shall not share, must not be trained in common.

    Raises:
        ModelFileError: Unreadable, no model file, or trained without a promise.
        ConfigError: Of another preset than `wanted`.
    """
    header = read_start(file)
    if header.config.preset != wanted.preset:
        raise ConfigError(
            f"start: {file} is of preset {header.config.preset!r}, the scenario of "
            f"{wanted.preset!r}: set `preset: {header.config.preset}`, or start from another file"
        )
    config = extended_config(header.config, missing_words(header.config, wanted))
    config = config.model_copy(update={"kinds": wanted.kinds})
    sentence = f"{header.card.name} (SHA-256 {_sha256(file)[:16]}): {header.card.dp.sentence()}"
    if header.card.dp.kind == "federated-dp":
        sentence += " Records that both trainings used cost the sum of both epsilons."
    return config, sentence


def untrained(federation: Federation, file: Path | None) -> Tensors:
    """The shared tensors of round 0, random or from `file`.

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
