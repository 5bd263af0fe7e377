"""The shared tensors of round 0, kept by what they were made from: trials share them."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from medformer.files import replace_file
from server.federation import Federation
from server.pretraining import carried_over, initial_shared, train_public
from server.protocol import Tensors
from simulations.benchmarks import record
from simulations.public import public_sets, usual_size

_ROOT = Path(__file__).parents[3]
SOURCES = ("medformer/**/*.py", "server/pretraining.py", "simulations/public.py")


def start(federation: Federation, data_root: Path | None, cache: Path) -> Tensors:
    """Random tensors, or those of public pre-training, from the cache where they are in it."""
    random, settings = initial_shared(federation.model, federation.seed), federation.pretraining
    if settings is None:
        return random
    facts = {
        "preset": federation.model.preset,
        "encoder_eps": federation.model.encoder_eps,
        "stems": [s for s in federation.model.stems if s.startswith("2d")],
        "size": usual_size(federation),
        "settings": settings.model_dump(mode="json"),
        "sources": _sources(),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    file = cache / f"start-{key}.safetensors"
    with record.alone(file):  # trials run side by side: one makes it, the others wait
        if not file.exists():
            sets = public_sets(settings, federation, data_root)
            made = train_public(federation.model, settings, sets)
            replace_file(file, save({k: np.ascontiguousarray(v) for k, v in made.items()}))
    return carried_over(load_file(file), random)


@lru_cache(maxsize=1)
def _sources() -> str:
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(path.relative_to(_ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
