"""A site of phantoms, a shared model and a finetuned one, for tests of a hospital's own use."""

from pathlib import Path

import medformer
from client.local import store
from client.local.finetune import Settings, finetune
from client.local.start import shared_start
from client.local.store import LocalModel
from client.site import Privacy, Site
from medformer.config import Domain, Task
from medformer.library.card import ModelCard, Promise
from tests.conftest import CELLS, TISSUE

BREAST = Domain(name="breast-a", modality="ultrasound", anatomy="breast", channels=1)
OUTLINE = Task(name="outline", kind="dense", classes=2, labels="masks")
LEARNS = {"whole": True, "learning_rate": 2e-3, "epochs": 4, "batch": 16}
"""Enough for a better validation loss than that of an untrained head."""
DP = Promise(kind="federated-dp", epsilon=3, delta=1e-5, unit="image", noise="secure")


def small_site(tasks: tuple[Task, ...] = (TISSUE,), **changes: object) -> Site:
    """Return a site of tissue phantoms: 128 for training, 32 for validation, 64 for the test."""
    return Site(
        name="north",
        domain=CELLS,
        tasks=tasks,
        **{
            "data": {"source": "phantoms", "kind": "histology", "records": 128},
            "privacy": Privacy(n_public=128),
            **changes,
        },  # type: ignore[arg-type]
    )


def shared_file(path: Path, promise: Promise = DP) -> Path:
    """Write the model file of a run: the shared part, without heads."""
    medformer.save(medformer.build("tiny"), path, ModelCard(name="shared", dp=promise))
    return path


def tuned(folder: Path, site: Site, **settings: object) -> tuple[Path, LocalModel]:
    """Return a finetuned model and its file."""
    start = shared_file(folder / "shared.safetensors")
    chosen = Settings(**{**LEARNS, **settings})  # type: ignore[arg-type]
    local, *_ = finetune(shared_start(start, site), site, chosen, lambda _: None)
    store.make_folder(folder / "local")
    return store.save(folder / "local", local, start, "A test."), local


def outlining_site(*tasks: Task) -> Site:
    """Return a site of breast phantoms, which have masks."""
    data = {"source": "phantoms", "kind": "ultrasound", "records": 64}
    return small_site(tasks or (OUTLINE,), data=data).model_copy(update={"domain": BREAST})
