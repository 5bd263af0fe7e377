"""Builds models, saves them to files and loads them again."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from medformer.common.yaml_file import explain
from medformer.config import UNKNOWN, ModelConfig, Task
from medformer.errors import ConfigError, ModelFileError
from medformer.library import model_file as files
from medformer.library.card import ModelCard
from medformer.model import Medformer
from medformer.vocabulary import EVERYTHING


def build(
    preset: str = "tiny",
    *,
    modalities: Sequence[str] = (),
    anatomies: Sequence[str] = (),
    stems: Sequence[str] = (),
    domains: Sequence[str] = (),
    tasks: Sequence[Task] = (),
    seed: int = 0,
    checkpointing: bool = False,
) -> Medformer:
    """Return a new model with random weights.

    >>> model = build("tiny", modalities=["ct"], anatomies=["chest"])
    >>> model.config.modalities, model.training
    (('ct',), True)

    Args:
        preset: `tiny`, `small` or `base`.
        modalities, anatomies, stems, domains: The vocabulary; a list that is left out is that of
            `medformer.vocabulary.EVERYTHING`, which covers MedMNIST.
        tasks: Supervised tasks; each gets a query and a head.
        seed: Seed of the weights.
        checkpointing: Keep less of the encoder for the backward pass and compute it again.
    Raises:
        ConfigError: A name is not valid or is repeated, or the preset does not exist.
    """
    given = {"modalities": modalities, "anatomies": anatomies, "stems": stems, "domains": domains}
    # Sorted, so that the order of arguments does not change the weights.
    named = {field: tuple(sorted(names)) for field, names in given.items() if names}
    config = checked_config(EVERYTHING.model_dump() | {"preset": preset} | named)
    if len({t.name for t in tasks}) < len(tasks):
        raise ConfigError(f"tasks need distinct names, got {[t.name for t in tasks]}")
    model = seeded(config, tasks, site=False, seed=seed)
    model.encoder.blocks.checkpointing = checkpointing
    return model


def save(model: Medformer, path: str | Path, card: ModelCard) -> None:
    """Write a model to a safetensors file FILE, and its card to FILE.md.

    >>> import medformer, tempfile
    >>> card = medformer.ModelCard(name="demo", dp=medformer.Promise(kind="public"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     medformer.save(medformer.build(), f"{folder}/demo.safetensors", card)
    ...     medformer.load(f"{folder}/demo.safetensors").config.preset
    'tiny'

    Args:
        model: Any model.
        path: FILE.
        card: Facts for readers; preset, number of parameters and program are filled in.
    Raises:
        ModelFileError: A weight is NaN or infinite, or the folder cannot be written.
    """
    header = files.Header(
        config=model.config,
        tasks=tuple(model.tasks.values()),
        site="own" in model.input.site,
        card=card,
    )
    tensors = {k: v.detach().cpu().float().numpy() for k, v in model.named_parameters()}
    files.write(Path(path), header, tensors)


def load(
    path: str | Path,
    *,
    preset: str | None = None,
    modalities: Collection[str] = (),
    anatomies: Collection[str] = (),
    stems: Collection[str] = (),
    domains: Collection[str] = (),
    extensions: Collection[str] = (),
) -> Medformer:
    """Return the model, in evaluation mode, of a file that `save` or a run wrote.

    Args:
        path: The file.
        preset: Refuse a file with another preset.
        modalities, anatomies, stems, domains: Refuse a file that does not know all of these.
        extensions: Code from outside, `MODULE:NAME`, that may be imported if the file names it.
    Raises:
        ModelFileError: The file cannot be read, is damaged, holds another model than was asked for,
            or has tensors that are missing, left over, of another shape or not finite. It names
            code from outside that the caller does not.
    """
    path = Path(path)
    header, arrays = files.read(path)
    _check_outside(path, header, extensions)
    asked = {"modalities": modalities, "anatomies": anatomies, "stems": stems, "domains": domains}
    _check_asked(path, header.config, preset, asked)
    # Random weights that the file's replace; the seed keeps global random numbers unchanged.
    model = seeded(header.config, header.tasks, site=header.site, seed=0)
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    _same_tensors(path, dict(model.named_parameters()), tensors)
    model.load_state_dict(tensors)
    return model.eval()


def seeded(config: ModelConfig, tasks: Sequence[Task], *, site: bool, seed: int) -> Medformer:
    """Return a model whose weights follow from a seed; other random numbers do not change.

    Args:
        config: Preset and vocabulary.
        tasks: Supervised tasks.
        site: Whether to add the embedding of a site.
        seed: Seed of the weights.
    """
    # The caller's random numbers continue as if no model had been made.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Medformer(config, tasks, site=site)


def checked_config(values: Mapping[str, Any]) -> ModelConfig:
    """Return a vocabulary, or raise an error that says what is wrong with it.

    Args:
        values: Fields of `ModelConfig`.
    Raises:
        ConfigError: A name is not valid or is repeated, or the preset does not exist.
    """
    try:
        return ModelConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, ModelConfig)) from error


def _check_outside(path: Path, header: files.Header, allowed: Collection[str]) -> None:
    """Refuse a file that names code which the caller does not: a file must not choose what runs."""
    named = {header.config.network, *(task.head for task in header.tasks)} - {None}
    if strange := sorted(str(name) for name in named - set(allowed)):
        raise ModelFileError(
            f"{path}: is a model with {strange[0]}, code that is no part of medformer: read it, "
            f"install it, and call medformer.load(..., extensions=[{strange[0]!r}])"
        )


def _check_asked(
    path: Path, config: ModelConfig, preset: str | None, asked: Mapping[str, Collection[str]]
) -> None:
    """Refuse a model that is not the one that was asked for."""
    if preset is not None and preset != config.preset:
        raise ModelFileError(f"{path}: has preset {config.preset!r}, asked for {preset!r}")
    for field, names in asked.items():
        known = getattr(config, field)
        # `unknown` is in every model.
        if missing := sorted(set(names) - {*known, UNKNOWN}):
            close = get_close_matches(missing[0], known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "Add them with medformer.extend."
            raise ModelFileError(
                f"{path}: does not know the {field} {', '.join(missing)}; "
                f"it knows {', '.join(known)}. {hint}"
            )


def _same_tensors(path: Path, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not exactly those of the model, in names and shapes."""
    for problem, names in (
        ("lacks", wanted.keys() - given),
        ("has unknown", given.keys() - wanted),
    ):
        if names:
            some = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise ModelFileError(
                f"{path}: {problem} tensors: {len(names)} ({some}); "
                f"the model that it declares has {len(wanted)}, the file {len(given)}"
            )
    for name, value in wanted.items():
        if given[name].shape != value.shape:
            raise ModelFileError(
                f"{path}: {name} must be {tuple(value.shape)}, got {tuple(given[name].shape)}"
            )
