"""Hash of the source code, by which server and sites see that they run the same version."""

import hashlib
from functools import lru_cache
from pathlib import Path

PACKAGES = ("client", "medformer", "server", "simulations")
"""The packages that a run executes, at the server and at the sites."""


def source_hash(root: Path | None = None) -> str:
    """Return the SHA-256 of the Python files of our packages.

    Args:
        root: Folder that holds the packages. The default is the folder that this file was loaded
            from; it is read once a process, because a later change on the disk is not what runs.
            A package that is not installed (a guard needs no `simulations`) contributes nothing.
    """
    return _running_source_hash() if root is None else _hash_of(root)


@lru_cache(maxsize=1)
def _running_source_hash() -> str:
    # A wrong folder would hold no package: its hash is equal everywhere, and the check void.
    return _hash_of(Path(__file__).parents[2])


def _hash_of(root: Path) -> str:
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            # Paths are hashed, too: a renamed file is other code.
            digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
