"""Public starts, kept by what they were made from.

One comes with the package, so that a run begins at once: `python -m simulations.start` made
it, and can make it again. It is text, because an app bundle carries text alone. Any other is kept
under the user's home after its first training.
"""

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from medformer.common.files import replace_file
from medformer.common.locks import locked
from server.protocol import Tensors

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "tiny.json"


def cache_folder() -> Path:
    """Return the folder in which a user's own starts are kept."""
    return Path.home() / ".fedmedformer" / "starts"


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the name of the start that was made from these facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def find(key: str, cache: Path) -> tuple[Tensors, str] | None:
    """Return the tensors of a start and the place where they were, or None if nobody kept it.

    Args:
        key: Name of the start, from `key_of`.
        cache: Folder of the user's own starts.
    """
    shipped = json.loads(SHIPPED.read_text()) if SHIPPED.exists() else {}
    if shipped.get("key") == key:
        return unpack(base64.b64decode(shipped["tensors"])), "the package"
    file = _file(key, cache)
    try:
        return unpack(file.read_bytes()), str(file)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError) as error:
        log.warning("%s: cannot be read (%s): it is made again", file, error)
        return None


def kept(facts: Mapping[str, Any], cache: Path, make: Callable[[], Tensors]) -> Tensors:
    """Return the start that is made from these facts; only one process makes it at a time.

    Args:
        facts: Everything that the start depends on.
        cache: Folder of the user's own starts.
        make: Makes the tensors if nobody kept them.
    """
    key = key_of(facts)
    found = find(key, cache)
    if found is None:
        with alone(key, cache):
            # Another process may have made it while this one waited for the lock.
            found = find(key, cache)
            if found is None:
                packed = pack(make())
                tensors = unpack(packed)  # raises where it cannot be kept
                keep(key, packed, cache)
                return tensors
    tensors, where = found
    log.info("public start %s from %s", key, where)
    return tensors


def keep(key: str, packed: bytes, cache: Path) -> None:
    """Keep a start for the next run, which makes it again if the disk cannot be written."""
    try:
        replace_file(_file(key, cache), packed)
    except OSError as error:
        log.warning("the public start is not kept for the next run: %s", error)


@contextmanager
def alone(key: str, cache: Path) -> Iterator[None]:
    """Hold the lock of a start, so that no other process makes it; without a lock if that fails."""
    with ExitStack() as stack:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            stack.enter_context(
                locked(
                    _file(key, cache).with_suffix(".lock"),
                    on_wait=lambda: log.info(
                        "public start %s: another process is making it; waiting", key
                    ),
                )
            )
        except OSError as error:
            log.warning("%s: cannot be written: %s", cache, error)
        yield


def pack(tensors: Tensors) -> bytes:
    """Return tensors as safetensors in half precision, which is enough to train from."""
    return save({k: np.ascontiguousarray(v, np.float16) for k, v in sorted(tensors.items())})


def unpack(packed: bytes) -> Tensors:
    """Return the tensors that `pack` packed, in single precision.

    Raises:
        SafetensorError: The bytes are damaged.
        ValueError: A value is not finite.
    """
    tensors = {k: v.astype(np.float32) for k, v in load(packed).items()}
    if not all(np.isfinite(v).all() for v in tensors.values()):
        raise ValueError("a value is not finite")
    return tensors


def _file(key: str, cache: Path) -> Path:
    return cache / f"{key}.safetensors"
