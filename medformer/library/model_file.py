"""Reads and writes model files: safetensors whose metadata describe the model. Loads no torch.

Format 1: the metadata key `medformer` holds a `Header` as JSON, and FILE.md next to FILE holds its
card for readers. A file can carry an `Attachment`, which a hospital fitted for its use and which is
not part of the model: tensors `aside.*` and the metadata key `medformer.aside`.
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
from medformer.natural.source import STATEMENT

Arrays = Mapping[str, npt.NDArray[np.float32]]
FORMAT = 1
KEY = "medformer"
ATTACHED, ATTACHMENT_KEY = "aside.", "medformer.aside"
"""Beginning of the names of attached tensors, and the metadata key of an attachment's text."""
MAX_HEADER = 2**22
"""Bytes, at most, in which a file lists its tensors and describes its model."""


class Header(Frozen):
    """The description of the model that a file holds."""

    format: Literal[1] = 1
    """Version of the format."""
    config: ModelConfig
    """Preset and vocabulary."""
    tasks: tuple[Task, ...] = ()
    """Tasks whose heads the file holds."""
    site: bool = False
    """True if the file holds the embedding of a site."""
    card: ModelCard
    """Facts for readers."""


@dataclass(frozen=True)
class Attachment:
    """Content of a model file that is not part of the model."""

    text: str
    """Text in a format that only its writer knows."""
    arrays: Arrays
    """Name -> tensor."""


def write(
    path: Path, header: Header, tensors: Arrays, attachment: Attachment | None = None
) -> None:
    """Write a model file and its card, each whole or not at all.

    Args:
        path: FILE; the card is written to FILE.md.
        header: Description of the model; preset, frozen features, number of parameters and program
            are filled in.
        tensors: Name -> tensor of the model.
        attachment: Content that is not part of the model.
    Raises:
        ModelFileError: A tensor is not finite, or the folder cannot be written.
    """
    _finite(path, tensors)
    facts = {
        "preset": header.config.preset,
        "features": STATEMENT if header.config.features == "natural" else "",
        "parameters": sum(value.size for value in tensors.values()),
        "created_by": created_by(),
    }
    header = header.model_copy(update={"card": header.card.model_copy(update=facts)})
    # safetensors stores the memory of an array, which has to be contiguous.
    plain = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    # Earlier versions know no cohort: they read models of all sites, and refuse those of a kind.
    unsaid = None if header.card.cohort else {"card": {"cohort", "other_cohorts"}}
    metadata = {KEY: header.model_dump_json(exclude=unsaid)}
    if attachment is not None:
        _finite(path, attachment.arrays)
        for name, value in attachment.arrays.items():
            plain[ATTACHED + name] = np.ascontiguousarray(value, np.float32)
        metadata[ATTACHMENT_KEY] = attachment.text
    try:
        replace_file(path, save(plain, metadata))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written ({error.strerror})") from error
    write_text(card_path(path), header.card.markdown())


def read(path: Path) -> tuple[Header, dict[str, npt.NDArray[np.float32]]]:
    """Read a model file.

    Args:
        path: The file.
    Returns:
        Its header, and its tensors by name.
    Raises:
        ModelFileError: It cannot be read, is cut off or not a model file, or holds tensors that are
            not float32 or not finite.
    """
    header = read_header(path)
    return header, _tensors(path, attached=False)


def read_attachment(path: Path) -> Attachment | None:
    """Return the attachment of a model file, or None if it has none.

    Args:
        path: The file.
    Raises:
        ModelFileError: As `read`.
    """
    read_header(path)
    with safe_open(path, framework="np") as file:
        text = (file.metadata() or {}).get(ATTACHMENT_KEY)
    if text is None:
        return None
    tensors = _tensors(path, attached=True)
    return Attachment(text, {name.removeprefix(ATTACHED): v for name, v in tensors.items()})


def read_start(path: Path) -> Header:
    """Return the header of a model file from which training is to start.

    Args:
        path: The file.
    Raises:
        ModelFileError: As `read_header`; or private images may be recoverable from the file,
            because its card says dp: none or it holds an attachment that a hospital fitted to its
            records.
    """
    header = read_header(path)
    with safe_open(path, framework="np") as file:
        attached = ATTACHMENT_KEY in (file.metadata() or {})
    # An attachment was fitted without privacy, whatever the card says.
    if attached or header.card.dp.kind == "none":
        says = "says dp: none" if header.card.dp.kind == "none" else "hides what it was fitted to"
        raise ModelFileError(
            f"{path}: its card {says}: private images may be recoverable from it, and from "
            "every model that is trained from it. Start from a model that was trained under DP or "
            "on public images, such as the model.safetensors of a run"
        )
    return header


def _tensors(path: Path, *, attached: bool) -> dict[str, npt.NDArray[np.float32]]:
    """Read the tensors of the model, or those that are attached to it."""
    with safe_open(path, framework="np") as file:
        names = [name for name in file.keys() if name.startswith(ATTACHED) == attached]  # noqa: SIM118
        # Checked before any is read, because converting them could need much memory.
        types = {name: file.get_slice(name).get_dtype() for name in names}
        if wrong := sorted(name for name in names if types[name] != "F32"):
            raise ModelFileError(f"{path}: {wrong[0]} must be float32, got {types[wrong[0]]}")
        tensors = {name: file.get_tensor(name) for name in names}
    _finite(path, tensors)
    return tensors


def read_header(path: Path) -> Header:
    """Return the header of a model file; no tensor is read.

    Args:
        path: The file.
    Raises:
        ModelFileError: It cannot be read, is cut off or not a model file.
    """
    try:
        _check_header_size(path)
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except OSError as error:
        raise ModelFileError(
            f"{path}: cannot be read ({error.strerror or error}){_others(path)}"
        ) from error
    except SafetensorError as error:
        raise ModelFileError(f"{path}: {_damage(path)} ({error})") from error
    if KEY not in metadata:
        raise ModelFileError(
            f"{path}: holds tensors, but no {KEY!r} metadata that describe their model: "
            "write it with medformer.save (for the weights of a ViT: medformer.load_vit)"
        )
    return _parse(path, metadata[KEY])


def card_path(path: Path) -> Path:
    """Return the path of a card.

    Args:
        path: The model file.
    """
    return path.with_name(path.name + ".md")


def created_by() -> str:
    """Return name and version of this program."""
    try:
        return f"fedmedformer {version('fedmedformer')}"
    except PackageNotFoundError:  # run from a folder of sources
        return "fedmedformer"


def write_text(path: Path, text: str) -> None:
    """Write a text that belongs to a model file, whole or not at all.

    Args:
        path: The file.
        text: Its content.
    Raises:
        ModelFileError: The folder cannot be written.
    """
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written ({error.strerror})") from error


def _check_header_size(path: Path) -> None:
    """Refuse a huge header before it is parsed; a file's first eight bytes are its length."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
    # A length beyond the end of the file is damage, which safetensors reports itself.
    if MAX_HEADER < size <= path.stat().st_size:
        raise ModelFileError(
            f"{path}: its header has {size} bytes, and that of a model at most {MAX_HEADER}"
        )


def _parse(path: Path, text: str) -> Header:
    """Parse the metadata that describe the model."""
    try:
        # The version first: a later format may have other fields.
        raw: Any = json.loads(text)
        version_ = raw["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path}: its {KEY!r} metadata is not that of a model") from error
    if version_ != FORMAT:
        raise ModelFileError(
            f"{path}: is of format {version_}, this version reads format {FORMAT}: "
            "install the version that wrote it"
        )
    try:
        return Header.model_validate(raw)
    except ValidationError as error:
        raise ModelFileError(f"{path}: its metadata is wrong: {explain(error, Header)}") from error


def _damage(path: Path) -> str:
    """Say what is wrong with a file that does not open as safetensors."""
    # After eight bytes of length, every safetensors file continues with a JSON object.
    with open(path, "rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"
    if is_safetensors:
        return "is cut off or damaged: copy it again"
    return "is not a safetensors file"


def _others(path: Path) -> str:
    """Name the models of single kinds of image beside a file that is not there."""
    others = sorted(p.name for p in path.parent.glob(f"{path.stem}-*{path.suffix}"))
    if path.exists() or not others:
        return ""
    return f". Each kind of image has a model of its own there: take one of {', '.join(others)}"


def _finite(path: Path, tensors: Arrays) -> None:
    """Refuse tensors that hold NaN or infinite values."""
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            count = int((~np.isfinite(value)).sum())
            raise ModelFileError(f"{path}: {name} holds {count} numbers that are NaN or infinite")
