"""Finds, hashes and imports the code of extensions.

Nothing here decides whether code may run. Whoever got the name from somebody else asks first: a
guard its policy.yaml (`client.policy`), a reader of a model file its caller (`medformer.load`).
"""

import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from medformer.errors import ConfigError


def sources(references: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the sources of each extension, in the order of names.

    Args:
        references: `MODULE:NAME` of each; one that is named twice counts once.
    Raises:
        ConfigError: As `source_hash`.
    """
    return {name: source_hash(name) for name in sorted(set(references))}


@lru_cache
def source_hash(reference: str) -> str:
    """Return the SHA-256 of all files of the package, or of the module, that an extension is in.

    The files are read once a process, because a later change on the disk is not what runs. Nothing
    is imported.

    Args:
        reference: `MODULE:NAME`.
    Raises:
        ConfigError: The package is not installed, or has no files of its own.
    """
    place = place_of(reference)
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        # Python writes compiled files there, which differ from machine to machine.
        if "__pycache__" in file.parts:
            continue
        digest.update(f"{file.relative_to(place.parent).as_posix()}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def place_of(reference: str) -> Path:
    """Return the folder of the package, or the file of the module, that an extension is in.

    Args:
        reference: `MODULE:NAME`.
    Raises:
        ConfigError: The package is not installed, or has no files of its own.
    """
    top = reference.partition(":")[0].partition(".")[0]
    # The outermost package: its modules import each other, and finding it imports nothing.
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise ConfigError(
            f"extension {reference}: there is no module {top!r} here: pip install the package that "
            "holds it (for a simulation, a folder on PYTHONPATH will do)"
        )
    origin = Path(spec.origin or "")
    if not spec.has_location or not origin.is_file():
        raise ConfigError(
            f"extension {reference}: {top!r} is no package with an __init__.py and no module of "
            "one file, so that its sources cannot be hashed"
        )
    return origin.parent if origin.name == "__init__.py" else origin


@lru_cache
def load(reference: str) -> Callable[..., Any]:
    """Import an extension.

    Args:
        reference: `MODULE:NAME`.
    Returns:
        The function or class.
    Raises:
        ConfigError: It is not installed, its module cannot be imported, or has no such name.
    """
    source_hash(reference)  # before it runs: the hash is that of the code that is imported
    module, _, name = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # a module of somebody else may raise anything
        raise ConfigError(
            f"extension {reference}: {module} cannot be imported ({type(error).__name__}: {error})"
        ) from error
    if not callable(found):
        what = "has no such name" if found is None else "holds no function or class of that name"
        raise ConfigError(f"extension {reference}: {module} {what}")
    return found
