"""Natural features of a site's records: computed once, and kept beside the site's state.

They are derived from private images, so the file is readable by its owner alone and never leaves.
It belongs to exactly these images: after a withdrawal, or any other change, it is written anew.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from client.data.records import Records, Stack
from client.refusals import PolicyForbids
from medformer.common.files import replace_file
from medformer.config import ModelConfig
from medformer.errors import ConfigError
from medformer.images import standardise
from medformer.natural.features import NUMBERS, natural_features
from medformer.natural.source import INSTALL, PACKAGE, SHA256, VERSION, weights_file

log = logging.getLogger(__name__)

FILE = "natural-features"
"""Name of the file in the site's state folder."""
REVISION = 1
"""Version of the computation; raise it if the same images give other numbers."""


def with_natural(records: Records, config: ModelConfig, folder: Path | None = None) -> Records:
    """Return the records with their natural features, if the run's model reads any.

    A record that cannot be used has the features of zeros, like its image.

    Args:
        records: One split.
        config: The run's model.
        folder: The site's state folder, where the features are kept; None keeps nothing.
    Raises:
        ConfigError: The network's weights are not installed.
        OSError: The folder cannot be written.
    """
    if config.features == "none":
        # Nobody would renew a file of an earlier run after a withdrawal.
        if folder is not None:
            (folder / FILE).unlink(missing_ok=True)
        return records
    key = _key(records.stacks)
    found = None if folder is None else _kept(folder / FILE, key, records.stacks)
    if found is None:
        # Deleted first: whatever happens, features of a withdrawn record do not stay.
        if folder is not None:
            (folder / FILE).unlink(missing_ok=True)
        found = [_features(stack) for stack in records.stacks]
        if folder is not None:
            packed = save({str(i): value for i, value in enumerate(found)}, {"key": key})
            replace_file(folder / FILE, packed, 0o600)
    pairs = zip(records.stacks, found, strict=True)
    return replace(records, stacks=tuple(replace(s, natural=value) for s, value in pairs))


def check_installed(config: ModelConfig) -> None:
    """Refuse a run whose natural features this site cannot compute.

    The text goes to the server, so it names no file of this machine.

    Args:
        config: The run's model.
    Raises:
        PolicyForbids: The network's weights are not installed, or are others.
    """
    if config.features == "none":
        return
    try:
        weights_file()
    except ConfigError as error:
        log.error("%s", error)
        raise PolicyForbids(
            f"this site cannot compute natural features, because it has not installed {PACKAGE} "
            f"{VERSION}, or another file under that name: {INSTALL}"
        ) from error


def _features(stack: Stack) -> Tensor:
    """Return the natural features of a stack, (N, NUMBERS), one image at a time.

    Convolutions of another number of images may round differently. So a record's features are the
    same to the last bit, whatever other records there are.
    """
    found = [natural_features(standardise(image[None])) for image in stack.images]
    return torch.cat(found) if found else torch.zeros(0, NUMBERS)


def _key(stacks: Sequence[Stack]) -> str:
    """Return a hash of everything that the features depend on."""
    digest = hashlib.sha256(f"{REVISION} {SHA256}".encode())
    for stack in stacks:
        digest.update(f"{stack.images.dtype} {tuple(stack.images.shape)}".encode())
        digest.update(stack.images.contiguous().numpy().data)
    return digest.hexdigest()


def _kept(path: Path, key: str, stacks: Sequence[Stack]) -> list[Tensor] | None:
    """Return the features in a file, or None if they are not those of these images."""
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            found = [file.get_tensor(str(i)) for i in range(len(stacks))]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        log.warning("%s: cannot be read (%s): the features are computed again", path, error)
        return None
    fits = all(v.shape == (len(s), NUMBERS) for v, s in zip(found, stacks, strict=True))
    return found if fits else None
