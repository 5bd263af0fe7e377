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
    """Where a user's own starts are kept."""
    return Path.home() / ".fedmedformer" / "starts"


def key_of(facts: Mapping[str, Any]) -> str:
    """Name of the start that was made from these facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def find(key: str, cache: Path) -> tuple[Tensors, str] | None:
    """The tensors of a start and where they were; None where nobody kept it."""
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
    """The start that is made from these facts, by `make` where nobody kept it: one at a time."""
    key = key_of(facts)
    found = find(key, cache)
    if found is None:
        with alone(key, cache):
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
    """Keep a start for the next run, which makes it again where the disk does not let us."""
    try:
        replace_file(_file(key, cache), packed)
    except OSError as error:
        log.warning("the public start is not kept for the next run: %s", error)


@contextmanager
def alone(key: str, cache: Path) -> Iterator[None]:
    """Nobody else makes this start meanwhile, as far as the disk lets us know."""
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
    """Safetensors in half precision, which a start to train from does not need more of."""
    return save({k: np.ascontiguousarray(v, np.float16) for k, v in sorted(tensors.items())})


def unpack(packed: bytes) -> Tensors:
    """What `pack` made, in single precision.

    Raises:
        SafetensorError: Damaged.
        ValueError: A value is not finite.
    """
    tensors = {k: v.astype(np.float32) for k, v in load(packed).items()}
    if not all(np.isfinite(v).all() for v in tensors.values()):
        raise ValueError("a value is not finite")
    return tensors


def _file(key: str, cache: Path) -> Path:
    return cache / f"{key}.safetensors"
