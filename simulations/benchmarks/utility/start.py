"""The shared tensors of round 0, kept by what they were made from: trials share them."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from medformer.files import replace_file
from server.federation import Federation
from server.pretraining import initial_shared, pretrain
from server.protocol import Tensors
from simulations.benchmarks import record
from simulations.public import public_sets

_ROOT = Path(__file__).parents[3]
SOURCES = ("medformer/**/*.py", "server/pretraining.py", "simulations/public.py")


def start(federation: Federation, data_root: Path | None, cache: Path) -> Tensors:
    """Random tensors, or those of public pre-training, from the cache where they are in it."""
    settings = federation.pretraining
    if settings is None:
        return initial_shared(federation.model, federation.seed)
    facts = {
        "model": federation.model.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json"),
        "seed": federation.seed,
        "sources": _sources(),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    file = cache / f"start-{key}.safetensors"
    with record.alone(file):  # trials run side by side: one makes it, the others wait
        if not file.exists():
            made = pretrain(federation, settings, public_sets(settings, federation, data_root))
            replace_file(file, save({k: np.ascontiguousarray(v) for k, v in made.items()}))
    tensors: Tensors = load_file(file)
    return tensors


@lru_cache(maxsize=1)
def _sources() -> str:
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(path.relative_to(_ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
