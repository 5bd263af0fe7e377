"""A model file: safetensors, whose metadata says what model the tensors are of. Loads no torch.

One key, `medformer`, holds a `Header` as JSON. Format 1. Beside FILE lies FILE.md, its card. What
a hospital fitted for its own use lies aside: tensors `aside.*` and the key `medformer.aside`, which
are no part of the model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from medformer.common.files import replace_file
from medformer.common.yaml_file import explain
from medformer.config import Frozen, ModelConfig, Task
from medformer.errors import ModelFileError
from medformer.library.card import ModelCard

Arrays = Mapping[str, npt.NDArray[np.float32]]
FORMAT = 1
KEY = "medformer"
ASIDE, ASIDE_KEY = "aside.", "medformer.aside"
LARGEST_HEADER = 2**22
"""Bytes in which a file lists its tensors and says what model they are of."""


class Header(Frozen):
    """What a model file says before its tensors."""

    format: Literal[1] = 1
    config: ModelConfig
    tasks: tuple[Task, ...] = ()
    site: bool = False
    """Whether it holds a site's own embedding."""
    card: ModelCard


@dataclass(frozen=True)
class Aside:
    """What lies in a model file beside the model."""

    text: str
    """As its writer wrote it, and alone understands it."""
    arrays: Arrays


def write(path: Path, header: Header, tensors: Arrays, aside: Aside | None = None) -> None:
    """Write a model file and its card, each whole or not at all; fills in the card's facts.

    Raises:
        ModelFileError: A tensor is not finite, or the folder cannot be written.
    """
    _finite(path, tensors)
    facts = {
        "preset": header.config.preset,
        "parameters": sum(value.size for value in tensors.values()),
        "created_by": created_by(),
    }
    header = header.model_copy(update={"card": header.card.model_copy(update=facts)})
    plain = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    metadata = {KEY: header.model_dump_json()}
    if aside is not None:
        _finite(path, aside.arrays)
        plain |= {ASIDE + k: np.ascontiguousarray(v, np.float32) for k, v in aside.arrays.items()}
        metadata[ASIDE_KEY] = aside.text
    try:
        replace_file(path, save(plain, metadata))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written ({error.strerror})") from error
    write_text(card_path(path), header.card.markdown())


def read(path: Path) -> tuple[Header, dict[str, npt.NDArray[np.float32]]]:
    """A model file's header and tensors.

    Raises:
        ModelFileError: Unreadable, cut off, not of our kind, or with tensors that are not float32
            or not finite.
    """
    header = read_header(path)
    return header, _tensors(path, aside=False)


def read_aside(path: Path) -> Aside | None:
    """What lies aside in a model file, or None.

    Raises:
        ModelFileError: As `read`.
    """
    read_header(path)
    with safe_open(path, framework="np") as file:
        text = (file.metadata() or {}).get(ASIDE_KEY)
    if text is None:
        return None
    return Aside(text, {k.removeprefix(ASIDE): v for k, v in _tensors(path, aside=True).items()})


def read_start(path: Path) -> Header:
    """What a file says of itself, if training may start from it.

    Raises:
        ModelFileError: As `read_header`, or private images may be recoverable from it: its card
            says dp: none, or it holds what a hospital fitted to its own records.
    """
    header = read_header(path)
    with safe_open(path, framework="np") as file:
        private = ASIDE_KEY in (file.metadata() or {})
    if private or header.card.dp.kind == "none":
        says = "says dp: none" if header.card.dp.kind == "none" else "hides what it was fitted to"
        raise ModelFileError(
            f"{path}: its card {says}: private images may be recoverable from it, and whatever is "
            "trained from it would carry them on. Start from a model that was trained under DP or "
            "on public images, such as the model.safetensors of a run"
        )
    return header


def _tensors(path: Path, *, aside: bool) -> dict[str, npt.NDArray[np.float32]]:
    with safe_open(path, framework="np") as file:
        names = [name for name in file.keys() if name.startswith(ASIDE) == aside]  # noqa: SIM118
        kinds = {name: file.get_slice(name).get_dtype() for name in names}
        if wrong := sorted(name for name in names if kinds[name] != "F32"):
            raise ModelFileError(f"{path}: {wrong[0]} must be float32, got {kinds[wrong[0]]}")
        tensors = {name: file.get_tensor(name) for name in names}
    _finite(path, tensors)
    return tensors


def read_header(path: Path) -> Header:
    """What a model file says of itself; reads no tensor.

    Raises:
        ModelFileError: Unreadable, cut off, or not of our kind; says what to do.
    """
    try:
        _small_header(path)
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise ModelFileError(f"{path}: {_damage(path)} ({error})") from error
    if KEY not in metadata:
        raise ModelFileError(
            f"{path}: holds tensors, but no {KEY!r} metadata that says of which model: "
            "write it with medformer.save (for the weights of a ViT: medformer.load_vit)"
        )
    return _parse(path, metadata[KEY])


def card_path(path: Path) -> Path:
    """Where the readable card of a file lies."""
    return path.with_name(path.name + ".md")


def created_by() -> str:
    """Program and version."""
    try:
        return f"fedmedformer {version('fedmedformer')}"
    except PackageNotFoundError:  # run from a folder of sources
        return "fedmedformer"


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all.

    Raises:
        ModelFileError: The folder cannot be written.
    """
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written ({error.strerror})") from error


def _small_header(path: Path) -> None:
    """Before it is parsed: eight bytes in front say how long it is."""
    with open(path, "rb") as file:
        said = int.from_bytes(file.read(8), "little")
    if LARGEST_HEADER < said <= path.stat().st_size:
        raise ModelFileError(f"{path}: its header has {said} bytes: no model's has so many")


def _parse(path: Path, text: str) -> Header:
    try:
        raw: Any = json.loads(text)
        given = raw["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path}: its {KEY!r} metadata is not that of a model") from error
    if given != FORMAT:
        raise ModelFileError(
            f"{path}: is of format {given}, this version reads format {FORMAT}: "
            "install the version that wrote it"
        )
    try:
        return Header.model_validate(raw)
    except ValidationError as error:
        raise ModelFileError(f"{path}: its metadata is wrong: {explain(error, Header)}") from error


def _damage(path: Path) -> str:
    """What a file is that does not open: after eight bytes of length, safetensors begin with {."""
    with open(path, "rb") as file:
        begins = file.read(9)[8:] == b"{"
    if begins:
        return "is cut off or damaged: copy it again"
    return "is no safetensors file"


def _finite(path: Path, tensors: Arrays) -> None:
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            count = int((~np.isfinite(value)).sum())
            raise ModelFileError(f"{path}: {name} holds {count} numbers that are NaN or infinite")
